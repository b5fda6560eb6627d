"""`make fuzz`: damage what lmk reads, and see that it ends in results or in one line.

Every case is a folder with damaged files of one kind and, for media, two whole neighbours; a
command reads it in a process of its own, bounded in time and memory. At fault is: a crash or a
traceback, no end, a whole neighbour without its rows, a damaged model that finds other points.
Cases at fault are kept. The same seed makes the same cases.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import av
import numpy as np
from PIL import Image

from lmk.cli import main
from lmk.runtime.model import Contract, compose  # noqa: F401  (what every child would load anew)
from lmk.runtime.model.engine_file import EngineInfo, Recipe, sha256, write_engine
from lmk.runtime.owner import RECORD
from lmk.runtime.pipeline import Journal, feed
from lmk.train.datasets import open_dataset
from lmk.train.datasets.decoded import decode

ROOT = Path(__file__).parents[2]
SECONDS, BYTES = 120, 4 << 30  # of a case
POISON = [b"nan", b"inf", b"-1", b"1e999", b"99999999999999999999", b"null", b"[]", b"{}", b'""']
POISON += [b"../../x.png", b"/dev/zero", b"\xff\xfe", b"\x00", b"[" * 5000, b"9" * 400, b"=1+1"]
NUMBER = tuple(b"0123456789")


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes, half of them near the start, where formats say what follows."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        length = len(changed)
        if not length:
            break
        at = int(rng.integers(min(length, 512) if rng.random() < 0.5 else length))
        span = int(min(length - at, 2 ** rng.integers(0, 14)))
        match rng.integers(7):
            case 0:
                changed[at] ^= 1 << rng.integers(8)
            case 1:
                changed[at : at + span] = rng.bytes(span)
            case 2:
                del changed[at : at + span]
            case 3:
                changed[at:at] = changed[at : at + span] * 2
            case 4:
                del changed[at:]
            case 5:
                changed[at : at + 4] = rng.choice([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff"])
            case _:
                changed[at:at] = rng.choice(np.array(POISON, object))
    return bytes(changed)


def garble(data: bytes, rng: np.random.Generator) -> bytes:
    """Put what no number or name should be in the place of words of a text."""
    words = [at for at in range(1, len(data)) if (data[at] in NUMBER) != (data[at - 1] in NUMBER)]
    for _ in range(rng.integers(1, 4)):
        if len(words) < 2:
            break
        index = int(rng.integers(len(words) - 1))
        poison = rng.choice(np.array(POISON, object))
        data = data[: words[index]] + poison + data[words[index + 1] :]
    return data


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 6, 8, 3), np.uint8)
    return [np.asarray(Image.fromarray(each).resize((96, 72))) for each in coarse]


def film(suffix: str, codec: str) -> bytes:
    path = Path(f"seed{suffix}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for picture in pictures(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def image(form: str, **options) -> bytes:
    file = io.BytesIO()
    first, *rest = map(Image.fromarray, pictures(3))
    first.save(file, form, **({"append_images": rest, "save_all": True} if options else {}))
    return file.getvalue()


@dataclass
class Kind:
    """What is damaged: whole files by suffix, how, and the command that reads them."""

    seeds: dict[str, bytes]  # in a `place`: by name
    words: Callable[[Path, list[Path]], list[str]]  # (folder, damaged files) -> arguments of lmk,
    changes: Callable[[bytes, np.random.Generator], bytes] = damage
    at_once: int = 1  # damaged files in a case; more only where they must not harm each other
    neighbours: bool = False  # whether two whole files lie beside them, whose rows must be there
    sealed: bool = False  # whether any change of what is found must be refused
    place: str | None = None  # a folder, of which the case has a copy, in which a file is damaged
    call: Callable[[str], None] | None = None  # in the place of lmk, with the one word


def kinds(here: Path) -> dict[str, Kind]:
    """`here`: with what `prepare` has left there."""
    model, good, pack = here / "model.onnx", here / "good.png", ROOT / "zoo" / "cats.safetensors"
    detecting = ["--write", "csv", "--threads", "1", "--output", "out", "--force"]

    def detect(*sources: Path, model: Path = model) -> list[str]:
        return ["detect", *map(str, sources), "--model", str(model), *detecting]

    films = {".mp4": "libx264", ".mkv": "libx264", ".avi": "mpeg4", ".webm": "libvpx"}
    still = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".webp": "WEBP", ".tif": "TIFF"}
    named = ["detect", str(good), "--model", "cats", *detecting]
    filmed = ["detect", str(here / "film.mp4"), "--model", str(model), *detecting]

    def decoded(cache: str) -> None:
        """Read the cache, whose damage must be found and mended."""
        images = decode(open_dataset(str(here / "in")), 64, "image", Path(cache)).images
        assert images.tobytes() == (here / "pixels").read_bytes(), "other pixels"

    template = ROOT / "zoo" / "template-128-128-10-fp32.safetensors"
    plan, points_of = b"ftrt" + bytes(99), Contract("x", 1, 64, "fp32", "c", "p", ("a",), 1.0)
    recipe = Recipe("o", "fp32", "tensorrt_rtx", "1.7", "", ("8.6",), (1,), False, 3, None)
    info = EngineInfo(points_of, recipe, {}, {}, {}, 1.0, len(plan), sha256(plan))
    write_engine(here / "x.engine", info, plan)
    names = [f"{n}.png" for n in range(3)]
    table = "file,a_x,a_y,b_x,b_y\n" + "".join(f"{n},1.5,2,30,40\n" for n in names)
    points = [
        {"id": n, "image_id": n, "category_id": 1, "keypoints": [9, 9, 2, 20, 20, 2]}
        for n in range(3)
    ]
    coco = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 96, "height": 72} for n in range(3)],
        "annotations": points,
        "categories": [{"id": 1, "name": "x", "keypoints": ["a", "b"], "skeleton": [[1, 2]]}],
    }
    return {
        "image": Kind(
            {suffix: image(form) for suffix, form in still.items()}
            | {".gif": image("GIF", many=True), ".tiff": image("TIFF", many=True)},
            lambda folder, _: detect(folder),
            at_once=6,
            neighbours=True,
        ),
        "film": Kind(
            {suffix: film(suffix, codec) for suffix, codec in films.items()},
            lambda folder, files: detect(*files, folder / "a.png", folder / "b.png"),
            at_once=3,
            neighbours=True,
        ),
        "pack": Kind(
            {"cats.safetensors": pack.read_bytes()},
            lambda _, files: named,
            place="runs",
            sealed=True,
        ),
        "onnx": Kind(
            {".onnx": model.read_bytes()},
            lambda _, files: detect(good, model=files[0]),
            sealed=True,
        ),
        "engine": Kind(
            {".engine": (here / "x.engine").read_bytes()},
            lambda _, files: ["info", str(files[0])],
        ),
        "csv": Kind(
            {".csv": table.encode()},
            lambda folder, files: ["data", "check", "csv", str(annotated(folder, files))],
            garble,
        ),
        "coco": Kind(
            {".json": json.dumps(coco).encode()},
            lambda folder, files: ["data", "check", "coco", str(annotated(folder, files))],
            garble,
        ),
        "skeleton": Kind(
            {".csv": b"p0,p1\np1,p2\np3,p4\n"},
            lambda _, files: [*detect(good), "--skeleton", str(files[0]), "--write", "coco"],
            garble,
        ),
        "boxes": Kind(
            {".csv": b"frame,track,x,y,w,h\n0,0,1,2,30,40\n0,1,5,6.5,20,20\n9,0,1,2,33,40\n"},
            lambda _, files: [*filmed, "--roi", str(files[0])],
            garble,
        ),
        "journal": Kind(
            contents(here / ".out.partial"),
            lambda _, files: [*filmed[:-1], "--resume"],
            place=".out.partial",
            sealed=True,
        ),
        "record": Kind(
            {RECORD: (here / "out" / RECORD).read_bytes()},
            lambda _, files: [*filmed[:-1], "--resume"],
            place="out",
            sealed=True,
        ),
        "template": Kind(
            {template.name: template.read_bytes()},
            lambda _, files: named,
            place="runs",
            sealed=True,
        ),
        "cache": Kind(
            contents(next((here / "decoded").iterdir())),
            lambda folder, files: [str(folder.parent)],
            place=str(next((here / "decoded").iterdir()).relative_to(here)),
            call=decoded,
        ),
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def annotated(folder: Path, files: list[Path]) -> Path:
    """Give the one damaged file the name that a data set has it under, and its images."""
    files[0].rename(folder / f"annotations{files[0].suffix}")
    for number, picture in enumerate(pictures(3)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


@dataclass
class Ended:
    code: int | None  # of exit, minus the signal's number, None if it had to be stopped
    said: str
    megabytes: float


def run(
    words: list[str], folder: Path, call: Callable[[str], None] | None = None, dies: bool = False
) -> Ended:
    """`lmk WORDS` in `folder`, or `call`, in a child that has everything imported.

    dies: as it would leave its journal.
    """
    said = folder / "said.txt"
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setsid()
            os.chdir(folder)
            resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number in (1, 2):
                os.dup2(file, number)
            if dies:
                Journal.finish = lambda self: os._exit(0)
            try:
                if call:
                    try:
                        call(*words)
                    except BaseException:
                        traceback.print_exc()
                        os._exit(99)
                    os._exit(0)
                main(words)
            except SystemExit as end:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code if isinstance(end.code, int) else 1)
        os._exit(99)
    deadline = time.monotonic() + SECONDS
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.wait4(child, 0)
            return Ended(None, said.read_text(errors="replace"), 0.0)
        time.sleep(0.005)
    text = said.read_text(errors="replace") if said.exists() else ""
    return Ended(os.waitstatus_to_exitcode(status), text, used.ru_maxrss / 1024)


def rows(folder: Path) -> dict[str, str]:
    """What landmarks.csv says of each source."""
    found: dict[str, str] = {}
    for path in (folder / "out").rglob("landmarks.csv"):
        with path.open(newline="", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                source = Path(row.pop("source", "") or "").name
                found[source] = found.get(source, "") + json.dumps(row)
    return found


def fault(kind: Kind, folder: Path, ended: Ended, whole: dict[str, str]) -> str | None:
    """What is wrong with how a case ended, if anything is."""
    if ended.code is None:
        return "hang"
    if ended.code < 0 or "Traceback" in ended.said or ended.code not in (0, 1, 2, 3, 4):
        return "crash"
    if ended.code == 1 and kind.changes is damage:  # `data check` says so of what is missing
        return "crash"
    if kind.neighbours:
        found = rows(folder)
        if any(found.get(name) != whole[name] for name in ("a.png", "b.png")):
            return "neighbour"
    found = rows(folder)
    if kind.sealed and ended.code == 0 and not found:
        return "changed"
    if kind.sealed and any(found[name] != whole[name] for name in found):
        return "changed"
    return None


def cases(kind: Kind, folder: Path, rng: np.random.Generator) -> Iterator[tuple[Path, list[str]]]:
    """Endless: a folder of its own for each, and the command that reads it."""
    number = 0
    while True:
        place = folder / f"{number:05d}"
        (place / "in").mkdir(parents=True)
        seeds = rng.choice(sorted(kind.seeds), kind.at_once)
        if kind.place:
            shutil.copytree(folder.parent / kind.place, place / kind.place)
            files = [place / kind.place / name for name in seeds]
        else:
            files = [place / "in" / f"damaged{index}{name}" for index, name in enumerate(seeds)]
        for file, seed in zip(files, seeds, strict=True):
            file.write_bytes(kind.changes(kind.seeds[seed], rng))
        if kind.neighbours:
            for name, picture in zip(("a.png", "b.png"), pictures(2), strict=True):
                Image.fromarray(picture).save(place / "in" / name)
        yield place, kind.words(files[0].parent, files)
        number += 1


def campaign(minutes: float, seed: int, wanted: list[str], kept: Path) -> int:
    """Run cases of every kind in turns; return the number of faults."""
    here = Path(tempfile.mkdtemp(prefix="fuzz-"))
    os.environ |= {"LMK_CACHE": str(here / "cache"), "LMK_DEVICE": "cpu"}
    os.chdir(here)
    Path("in").mkdir()
    for name, picture in zip(("a.png", "b.png", "good.png"), pictures(3), strict=True):
        Image.fromarray(picture).save(Path("in") / name)
    shutil.copy("in/good.png", "good.png")
    feed.CHUNK = 4
    whole: dict[str, str] = {}
    Path("film.mp4").write_bytes(film(".mp4", "libx264"))
    options = ["--write", "csv", "--threads", "1", "--output", "out", "--force"]
    for source, model, dies in (
        ("in", "cats", False),
        ("good.png", "model.onnx", False),
        ("film.mp4", "model.onnx", False),
        ("film.mp4", "model.onnx", True),
    ):
        ended = run(["detect", source, "--model", model, *options], here, dies=dies)
        assert ended.code == 0, ended.said
        whole |= rows(here)
        for file in (here / "runs").glob("*.onnx"):
            file.rename(here / "model.onnx")
    Path("pixels").write_bytes(
        decode(open_dataset(str(here / "in")), 64, "image", here / "decoded").images.tobytes()
    )
    every = kinds(here)
    for name, kind in every.items():  # what is whole is read, else damage would try nothing
        still = replace(kind, changes=lambda data, rng: data)
        place, words = next(cases(still, here / f"{name}-whole", np.random.default_rng(seed)))
        ended = run(words, place, kind.call)
        assert ended.code == 0 and fault(kind, place, ended, whole) is None, (name, ended.said)
    turns = {
        name: cases(every[name], here / name, np.random.default_rng([seed, index]))
        for index, name in enumerate(every)
        if not wanted or name in wanted
    }
    count: Counter[tuple[str, str]] = Counter()
    most: dict[str, float] = dict.fromkeys(turns, 0.0)
    until = time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        for name, turn in turns.items():
            place, words = next(turn)
            ended = run(words, place, every[name].call)
            most[name] = max(most[name], ended.megabytes)
            wrong = fault(every[name], place, ended, whole)
            count[name, wrong or ("read" if ended.code == 0 else "refused")] += 1
            count[name, "inputs"] += every[name].at_once
            if wrong:
                goal = kept / f"{name}-{seed}-{place.name}-{wrong}"
                shutil.copytree(place, goal, dirs_exist_ok=True)
                (goal / "command.json").write_text(json.dumps([words, asdict(ended)], indent=1))
                last = ended.said.strip().splitlines()[-1:] or [""]
                print(f"{wrong}: {goal}: {last[0][:200]}", flush=True)
            shutil.rmtree(place)
    shutil.rmtree(here)
    faults = ("crash", "hang", "neighbour", "changed")
    columns = ("inputs", "read", "refused", *faults)
    print(f"{'':10}" + "".join(f"{column:>11}" for column in columns) + "   most MiB")
    for name in turns:
        figures = "".join(f"{count[name, column]:>11}" for column in columns)
        print(f"{name:10}{figures}{most[name]:>11.0f}")
    return sum(count[name, each] for name in turns for each in faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="as image,film; all by default")
    parser.add_argument("--kept", type=Path, default=Path("runs/fuzz"), help="cases at fault")
    told = parser.parse_args()
    wanted = [name for name in told.kinds.split(",") if name]
    sys.exit(campaign(told.minutes, told.seed, wanted, told.kept.resolve()) > 0)
