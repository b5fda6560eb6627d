"""`lmk` from Python: `adapt`, `discover`, `export` do what the commands do, with their options."""

import inspect
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

import lmk
from lmk.export import discovery
from lmk.export.commands import discover_command, export_command
from lmk.runtime.model import read_header, read_model
from lmk.train.commands import AdaptOptions, adapt_command
from lmk.train.network import hourglass


@pytest.fixture
def here(tmp_path, monkeypatch, lmk):
    """A folder of one's own with a core in runs/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(hourglass.WIDTHS, "tiny", 16)
    options = ("--input-size", 64, "--width", "tiny", "--batch", 2, "--steps", 1, "--threads", 1)
    assert lmk("train-core", "--data", "builtin:puppet", *options) == 0
    return tmp_path


def test_from_images_to_a_file_in_three_lines(here, capsys):
    pack = lmk.adapt("builtin:butterfly", landmarks=5, steps=1, batch=2, threads=1, report=False)
    onnx = lmk.export(pack)
    assert (pack, onnx) == (Path("runs/butterfly.safetensors"), Path("runs/butterfly.onnx"))
    assert len(read_header(pack)["landmark_names"]) == 5
    with pytest.raises(lmk.UserError, match="runs/butterfly.onnx: got an output that exists"):
        lmk.export("runs/butterfly.safetensors")
    half = lmk.export(pack, precision="fp16", output="half.onnx")
    assert half == Path("half.onnx") and read_model(half)[1].precision == "fp16"
    assert capsys.readouterr().out == ""  # results are returned; progress is on standard error


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: lmk.adapt("a", landmark=8), TypeError, "adapt: got an option 'landmark', exp.* l"),
        (lambda: lmk.adapt("a", join=True), TypeError, "adapt: got an option 'join'"),
        (lambda: lmk.adapt([]), lmk.UserError, "data: got an empty list"),
        (lambda: lmk.adapt("a", method="magic"), lmk.UserError, "adapt: .*--method.*'magic'"),
        (lambda: lmk.adapt("a", landmarks=1), lmk.UserError, "--landmarks: got 1, expected 2"),
        (lambda: lmk.adapt("nowhere", steps=1), lmk.UserError, "nowhere"),
        (lambda: lmk.discover("a.mp4", find="luck"), lmk.UserError, "discover: .*--find.*'luck'"),
        (lambda: lmk.discover(), lmk.UserError, "discover: .*FILMS"),
        (lambda: lmk.export("x", precision="int2"), lmk.UserError, "export: .*'int2'"),
        (lambda: lmk.export("nobody"), lmk.UserError, "nobody"),
        (lambda: lmk.export("x", batches=[1]), lmk.UserError, "batches: got an option of engines"),
    ],
)
def test_a_wrong_option_is_told_by_its_name(call, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        call()


def test_discover_is_asked_as_the_command_is(tmp_path, monkeypatch):
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(discovery, "discover", lambda *values: asked.append(values) or "made")
    assert lmk.discover("a.mp4", Path("b.mp4"), minutes="90s", objects=2, force=True) == "made"
    ((films, config, search, force),) = asked
    assert films == [Path("a.mp4"), Path("b.mp4")] and force
    assert (config.minutes, config.output) == (1.5, Path("runs/a.safetensors"))
    assert search == discovery.Search("auto", None, 2)


def test_calls_take_the_options_of_the_commands():
    several = {"jobs", "join"}  # in Python a list is joined
    names = {option.name for option in adapt_command.params} - several
    assert set(inspect.signature(lmk.adapt).parameters) == names
    own = [field for field in fields(AdaptOptions) if field.kw_only]
    context = adapt_command.make_context("adapt", ["--data", "x"])
    assert {f.name: f.default for f in own} == {f.name: context.params[f.name] for f in own}
    assert MISSING not in [field.default for field in own]
    for call, command in ((lmk.discover, discover_command), (lmk.export, export_command)):
        context = command.make_context(command.name, ["x"])
        told = inspect.signature(call).parameters
        assert set(told) == set(context.params), command.name
        for name, parameter in told.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                assert parameter.default == context.params[name], name


def test_export_is_a_room_that_can_be_called_however_it_is_come_by():
    program = (
        "import lmk\n"
        "first = lmk.export\n"
        "import lmk.export.graph\n"
        "from lmk import export\n"
        "print(first is lmk.export is export, callable(export), export.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True True lmk.export\n", "")
