"""engine_options: what the command line gives, and what no machine can do."""

import click
import pytest
from click.testing import CliRunner

from lmk.export.engine.options import EngineOptions, engine_options, make_options
from lmk.runtime.errors import UserError


@click.command()
@engine_options
def command(**values):
    click.echo(repr(make_options("rtx", values)))


def given(*arguments):
    return CliRunner().invoke(command, arguments)


def test_without_flags_all_is_default():
    assert given().output.strip() == repr(EngineOptions("tensorrt_rtx"))


def test_flags_become_fields():
    flags = "--batches 1,4 --targets 7.5,SM120,sm_89 --level 5 --workspace 256 --no-refit"
    expected = EngineOptions("tensorrt_rtx", (1, 4), ("7.5", "12.0", "8.9"), 5, 256, False)
    assert given(*flags.split()).output.strip() == repr(expected)


@pytest.mark.parametrize("value", ["", "1,,8", "one", "1.5"])
def test_batches_that_are_no_numbers(value):
    result = given("--batches", value)
    assert result.exit_code == 2
    assert f"got '{value}', expected numbers with commas between them" in result.output


@pytest.mark.parametrize(
    "values, message",
    [
        ({"batches": (8, 0)}, r"batches: got \(8, 0\), expected numbers from 1 on"),
        ({"batches": ()}, r"batches: got \(\)"),
        ({"level": 6}, "level: got 6, expected 0 to 5"),
        ({"workspace_mib": 0}, "workspace: got 0 MiB, expected 1 or more"),
    ],
)
def test_impossible_options(values, message):
    with pytest.raises(UserError, match=message):
        EngineOptions("tensorrt_rtx", **values)


def test_onnx_takes_no_options_of_engines():
    assert make_options("onnx", {"batches": None, "level": None}) is None
    with pytest.raises(UserError, match="batches: got an option of engines.*trt or rtx"):
        make_options("onnx", {"batches": (1,), "level": None})


def test_an_engine_is_called_engine(lmk, tmp_path, capsys):
    """Before anything is written: the ONNX file would take the name."""
    output = tmp_path / "x.onnx"
    assert lmk("export", "cats", "--engine", "rtx", "--output", output) == 2
    assert f"got {output}, expected a name ending in .engine; rename it" in capsys.readouterr().err
    assert not output.exists()
