"""What README and docs show is there and works: links, commands, Python."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterable, Iterator
from itertools import dropwhile, groupby, pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import av
import click
import numpy as np
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image

import lmk
from lmk.cli import main
from lmk.commands import cli
from lmk.runtime.errors import UserError
from lmk.runtime.model.composition import model_file
from lmk.runtime.outputs import FORMATS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / name
    for name in (
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "benchmarks/NOTES.md",
    )
]
PAGES += [ROOT / name / "README.md" for name in ("zoo", "examples", "benchmarks/zoo")]
PAGES += sorted(ROOT.glob("docs/*.md"))
OTHERS = {
    "ffmpeg",
    "tritonserver",
    "tar",
    "cd",
    "export",
    "pytest",
    "pip",
    "npm",
}  # programs not ours
ELSEWHERE = {"--device", "--hwaccel", "--on", "--detector", "--engine"}  # need more than is here
SHOWN = {"photo.jpg", "photos", "video.mp4", "clips/*.mp4"}  # sources of which `here` has some


class Line(NamedTuple):
    """A piece of a page and where it stands: `README.md:12`."""

    place: str
    text: str


def each(lines: Iterable[Line]) -> pytest.MarkDecorator:
    """A test for each of `lines`, called by its place."""
    found = list(lines)
    return pytest.mark.parametrize("line", found, ids=[line.place for line in found])


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks(language: str) -> Iterator[Line]:
    """The fenced blocks of a language in all pages."""
    for page in PAGES:
        for token in tokens(page):
            if token.type == "fence" and token.info.strip() == language and token.map:
                yield Line(f"{page.relative_to(ROOT)}:{token.map[0] + 2}", token.content)


def commands() -> Iterator[Line]:
    """Every command of every sh block: continued lines joined, parts of a pipe apart."""
    for block in blocks("sh"):
        name, _, first = block.place.rpartition(":")
        for line in re.finditer(r"(?:.*\\\n)*.+", block.text):
            number = int(first) + block.text.count("\n", 0, line.start())
            words = shlex.split(line[0].replace("\\\n", ""), comments=True)
            for between, part in groupby(words, {"|", "&&", ";"}.__contains__):
                if not between:
                    yield Line(f"{name}:{number}", shlex.join(part))


def inline() -> Iterator[tuple[str, Token]]:
    """What stands in sentences, headings and tables, and where."""
    for page in PAGES:
        for token in tokens(page):
            line = token.map[0] + 1 if token.map else 0
            for child in token.children or ():
                yield f"{page.relative_to(ROOT)}:{line}", child


def links() -> Iterator[Line]:
    """The target of every link and picture."""
    for place, token in inline():
        target = token.attrGet("href") or token.attrGet("src")
        if target:
            yield Line(place, str(target))


def spans() -> Iterator[Line]:
    """Commands named in a sentence: `lmk report PACK --data DIR`."""
    for place, token in inline():
        if token.type == "code_inline" and token.content.startswith("lmk "):
            yield Line(place, token.content)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page, each of which is there once."""
    parsed = tokens(page)
    titles = [
        "".join(child.content for child in content.children or ())
        for opening, content in pairwise(parsed)
        if opening.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def parse(words: list[str]) -> click.Context | None:
    """What click makes of a line `lmk …`, which is not run; None if it only asks for help.

    Raises click.UsageError for what would be refused before anything is done.
    """
    command: click.Command = cli
    name, *rest = words
    while isinstance(command, click.Group):
        if rest[:1] == ["--debug"]:
            rest = rest[1:]
        if not rest or rest[0] in ("-h", "--help", "--version"):
            return None
        name, *rest = rest
        found = command.get_command(click.Context(command), name)
        if found is None:
            raise click.UsageError(f"No such command '{name}'.")
        command = found
    return _parsed(command, name, rest)


def _parsed(command: click.Command, name: str, words: list[str]) -> click.Context | None:
    with contextlib.suppress(click.exceptions.Exit), contextlib.redirect_stdout(io.StringIO()):
        context = command.make_context(name, list(words), click.Context(cli))
        for written in context.params.get("formats", ()):
            if written not in FORMATS:
                raise click.BadParameter(f"'{written}' is no format of {', '.join(FORMATS)}")
        return context
    return None


def check(words: list[str]) -> None:
    """Fail for a command that cannot be: of ours by its parser, of others by its name."""
    program, *_ = words = list(dropwhile(lambda word: "=" in word, words))  # NAME=VALUE COMMAND …
    if program == "lmk":
        parse(words)
    elif program == "torchrun":
        parse(words[words.index("lmk.cli") :])
    elif program == "make":
        targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert set(word for word in words[1:] if "=" not in word) <= targets
    elif program == "python":
        check_python(words[1:])
    elif program.endswith(".sh"):
        assert (ROOT / program).is_file()
    else:
        assert program in OTHERS, f"{program}: got a command that is not known here"


def check_python(words: list[str]) -> None:
    """`-m MODULE` of ours by its click command, FILE of ours by what it reads."""
    if words[0] == "-m":
        _parsed(importlib.import_module(words[1]).main, words[1], words[2:])
        return
    text = (ROOT / words[0]).read_text()
    for word in words[1:]:
        assert not word.startswith("--") or word == "--help" or word in text, f"no {word}"


@each(commands())
def test_commands_parse(line):
    check(shlex.split(line.text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lmk fly", "fly"),
        ("lmk detect a.jpg --nope", "--nope"),
        ("lmk detect", "SOURCES"),
        ("lmk detect a.jpg --write csv,xls", "xls"),
        ("lmk export shoes --precision int7", "int7"),
        ("lmk data check cups .", "cups"),
        ("torchrun --nproc-per-node 4 -m lmk.cli adapt", "--data"),
        ("python -m lmk.benchmarks.zoo.showcase", "OUTPUT"),
        ("RUNS=1 make tea", "tea"),
        ("abracadabra", "abracadabra"),
    ],
)
def test_what_is_no_command_is_found(text, words):
    with pytest.raises((click.ClickException, AssertionError)) as caught:
        check(shlex.split(text))
    error = caught.value
    assert words in (error.format_message() if hasattr(error, "format_message") else str(error))


@each(spans())
def test_commands_in_sentences_exist(line):
    if "…" not in line.text:  # a sentence shows what it is about, and may leave out the rest
        with contextlib.suppress(click.MissingParameter, click.BadOptionUsage):
            parse(shlex.split(line.text))


@each(links())
def test_links_lead_somewhere(line):
    place = ROOT / line.place.rpartition(":")[0]
    address = urlsplit(line.text)
    if address.scheme:
        assert address.scheme == "https" and "." in address.netloc and " " not in line.text
        return
    target = (place.parent / address.path).resolve() if address.path else place
    assert target.exists(), f"{line.text}: no such file"
    assert target.is_relative_to(ROOT), f"{line.text}: outside of the project"
    if address.fragment:
        assert address.fragment in anchors(target), f"{line.text}: no such heading"


def test_extras_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    for page in PAGES:
        for names in re.findall(r"'\.\[([\w,]+)\]'", page.read_text()):
            assert set(names.split(",")) <= extras, f"{page.name}: '.[{names}]'"


def test_modules_exist():
    for page in PAGES:
        for name in re.findall(r"python3? -m (lmk[\w.]*\w)", page.read_text()):
            assert importlib.util.find_spec(name), f"{page.name}: python -m {name}"


def test_files_exist():
    """Those that are named from the root of the repository; NAME stands for one to be written."""
    folders = "runtime|train|export|benchmarks|tests|docs|examples|zoo"
    for page in PAGES:
        for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text()):
            assert "NAME" in name or (ROOT / name).exists(), f"{page.name}: {name}"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with what the pages name: a photograph, videos, a pack's model once composed."""
    folder = tmp_path_factory.mktemp("docs")
    sheet = Image.open(ROOT / "docs/landmarks.jpg").convert("RGB")
    picture = sheet.crop((0, 160, 160, 320)).resize((320, 240))
    (folder / "photos").mkdir()
    (folder / "clips").mkdir()
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.jpg"):
        picture.save(folder / name)
    _write_video(folder / "video.mp4", np.asarray(picture))
    for name in ("clips/a.mp4", "clips/b.mp4"):
        shutil.copy(folder / "video.mp4", folder / name)
    (folder / "skeleton.csv").write_text("p0,p1\n")
    (folder / "points").mkdir()
    picture.save(folder / "points/1.jpg")
    (folder / "points/1.txt").write_text("1 2\n3 4\n5 6.5\n")
    with contextlib.chdir(folder):
        model_file("cats")
    return folder


def _write_video(path: Path, picture: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def quick() -> Iterator[Line]:
    """The commands that can be run with what lies in `here`."""
    for line in commands():
        words = shlex.split(line.text)
        if words[:3] == ["lmk", "data", "list"]:
            yield line
        elif words[:2] == ["lmk", "detect"] and not ELSEWHERE & set(words):
            asked = parse(words).params
            if set(asked["sources"]) <= SHOWN and str(asked["model"] or "cats") == "cats":
                yield line


@each(quick())
def test_commands_run(line, here, monkeypatch):
    words = shlex.split(line.text)[1:]
    monkeypatch.chdir(here)
    monkeypatch.setenv("LMK_DATA", str(here))
    if words[0] == "detect":
        words += ["--threads", "1"]
        words += [] if "--resume" in words else ["--force"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0


@each(blocks("python"))
def test_python_runs(line, here, monkeypatch):
    monkeypatch.chdir(here)
    for name in ("discover", "adapt", "export"):  # which take minutes: that they could be called
        told = inspect.signature(getattr(lmk, name))
        monkeypatch.setattr(lmk, name, told.bind)
    namespace = {"__name__": "shown"}
    exec(compile(line.text, line.place, "exec"), namespace)
    if "LAYOUT" in namespace:  # the one block that defines something and does nothing
        layout = namespace["LAYOUT"]
        assert layout.recognises(here / "points") and not layout.recognises(here / "photos")
        [sample] = layout.open(here / "points").samples
        assert sample.points.tolist() == [[1, 2], [3, 4], [5, 6.5]]
        with pytest.raises(UserError, match="points"):
            layout.open(here / "photos")
