"""Options on the command line: times with a unit, and several sets of data at once."""

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import lmk
from lmk.commands import cli
from lmk.runtime.errors import UserError
from lmk.train.config import AdaptConfig, CoreConfig
from lmk.train.options import Duration, Sectioned, config_options, make_config


def minutes(text):
    return Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20m", 20), ("90s", 1.5), ("1.5h", 90), ("20", 20), (".5", 0.5), (" 2 m", 2), (3.0, 3)],
)
def test_a_time_is_minutes(text, expected):
    assert minutes(text) == pytest.approx(expected)


@given(st.integers(1, 100_000))
def test_units_agree(count):
    assert minutes(f"{count}h") == pytest.approx(minutes(f"{60 * count}m"))
    assert minutes(f"{count}m") == pytest.approx(minutes(f"{60 * count}s"))
    assert minutes(f"{count}m") == minutes(f"{count}")


@pytest.mark.parametrize("text", ["", "m", "20x", "1h30m", "soon", "nan", "infh", "20 minutes"])
def test_what_is_no_time(text):
    with pytest.raises(click.BadParameter, match=f"got '{text}', expected a time such as 90s"):
        minutes(text)


@pytest.mark.parametrize("config", [CoreConfig, AdaptConfig])
@pytest.mark.parametrize("flag", ["--minutes", "--time-budget"])
def test_both_names_are_the_budget(config, flag):
    made = []

    @click.command()
    @config_options(config)
    def command(**o):
        made.append(make_config(config, o))

    result = CliRunner().invoke(command, [flag, "90s"], catch_exceptions=False)
    assert result.exit_code == 0 and made[0].minutes == 1.5


def test_a_budget_that_is_over_before_it_begins():
    with pytest.raises(UserError, match="--minutes: got -20.0, expected more than 0"):
        run("train-core", "--data", "builtin:puppet", "--time-budget=-20m")


def run(*arguments):
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--data", "b", "--output", "x.safetensors"], "--output: got x.safetensors for several"),
        (["--jobs", "2"], "--jobs: got 2 for one pack, expected several"),
        (["--data", "b", "--join", "--jobs", "2"], "--jobs: got 2 for one pack"),
    ],
)
def test_what_makes_no_sense_with_one_or_with_several(more, complaint):
    with pytest.raises(UserError, match=complaint):
        run("adapt", "--data", "a", *more)


def test_several_are_handed_over_and_a_failure_is_the_exit_code(tmp_path, monkeypatch):
    many = pytest.importorskip("lmk.train.adapting.many")
    monkeypatch.chdir(tmp_path)
    seen = []

    def adapt_many(requests, jobs):
        seen.extend(requests)
        assert jobs == 3
        first, second = requests
        return [
            many.Ended(first.name, "done", "All good.", first.config.output, 7, 1.0),
            many.Ended(second.name, second_state, "no image found"),
        ]

    monkeypatch.setattr("lmk.train.adapting.adapt_many", adapt_many)  # the face that is used
    more = ["--jobs", "3", "--steps", "7", "--crop", "center", "--preset", "paper"]
    second_state = "failed"
    result = run("adapt", "--data", "a", "--data", "b/cups", *more)
    assert result.exit_code == 1
    assert result.stdout == "runs/a.safetensors\n"
    assert "no image found" in result.stderr and "All good." in result.stderr
    assert [c.config.output.name for c in seen] == ["a.safetensors", "cups.safetensors"]
    assert [c.data for c in seen] == ["a", "b/cups"]
    assert all(c.config.steps == 7 and c.config.perceptual == "vgg19" for c in seen)
    assert all(c.crop == "center" for c in seen)
    second_state = "stopped"
    assert run("adapt", "--data", "a", "--data", "b/cups", *more).exit_code == 1  # Abort


def test_several_are_joined_if_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = []
    for start in (0, 40):
        folder = tmp_path / f"part{start}"
        folder.mkdir()
        for number in range(start, start + 20 + start // 4):
            colours = np.random.default_rng(number).integers(0, 255, (6, 6, 3), np.uint8)
            Image.fromarray(colours).resize((64, 64)).save(folder / f"{number}.png")

    def adapt(config, data):
        runs.append((config.output, (data.name, len(data.splits))))
        return config.output

    monkeypatch.setattr("lmk.train.adapting.adapt", adapt)
    both = ["--data", "part0", "--data", "part40", "--join"]
    assert run("adapt", *both).stdout == "runs/part0+part40.safetensors\n"
    run("adapt", *both, "--output", "cups.safetensors")
    lmk.adapt(["part0", tmp_path / "part40"])
    assert [str(output) for output, _ in runs] == [
        "runs/part0+part40.safetensors",
        "cups.safetensors",
        "runs/part0+part40.safetensors",
    ]
    assert {told for _, told in runs} == {("part0+part40", 50)}
    with pytest.raises(
        UserError, match="--output: got a name of 103 letters, .* at most 100; give"
    ):
        run("adapt", "--data", "a" * 51, "--data", "b" * 51, "--join")


def test_options_are_told_in_sections_and_none_is_left_out():
    command = Sectioned(
        "x",
        params=[click.Option([f"--{name}"], help=name) for name in ("a", "b", "c")],
        sections={"First": ("b",), "Second": ("a", "gone")},
    )
    text = command.get_help(click.Context(command))
    places = [text.index(word) for word in ("First:", "--b", "Second:", "--a", "More:", "--c")]
    assert places == sorted(places) and "--help" in text and "gone" not in text
