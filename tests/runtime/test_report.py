"""What the user reads: file names as they are, numbers that are short, everything once."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from lmk.runtime import commands, terminal
from lmk.runtime.detect import report
from lmk.runtime.errors import UserError
from lmk.runtime.pipeline.summary import STAGES, Outcome, Summary

ODD = "m/[/b] [red]:cat:"


def _summary(frames, skipped=()):
    busy = dict.fromkeys(STAGES, 0.5) | {"run": 1.5}
    return Summary(frames, 2.0, frames / 2, list(skipped), 0.5, busy, objects=frames)


def test_progress_on_a_terminal_takes_any_name(monkeypatch):
    screen = io.StringIO()
    screen_console = Console(file=screen, force_terminal=True, width=120, markup=False, emoji=False)
    monkeypatch.setattr(terminal, "console", lambda: screen_console)
    with terminal.progress(f"detecting in {ODD}", 3) as advance:
        advance(3, None)
    assert ODD in screen.getvalue()


def test_progress_without_a_terminal_takes_any_name(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "_LINE_SECONDS", -1.0)
    with terminal.progress(ODD) as advance:
        advance(1, None)
    assert capsys.readouterr().err.startswith(f"{ODD}: 1 of ?")


def test_summary_counts_and_lists(capsys):
    report.print_summary(_summary(1, [f"{ODD}.png: broken"]))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1 frame in 2.0 s") and lines[-1] == f"skipped: {ODD}.png: broken"
    report.print_summary(_summary(2))
    told = capsys.readouterr().err
    assert told.startswith("2 frames in 2.0 s, 1.0 a second; mean") and "the slowest: run" in told


def test_summary_of_several_objects_a_resumed_and_a_live_run(capsys):
    report.print_summary(replace(_summary(9), objects=12, resumed=4, dropped=3))
    told = capsys.readouterr().err
    assert told.startswith("9 frames (4 of them before) in") and "12 objects, mean score" in told
    assert "dropped: 3 frames" in told


def test_frames_without_any_object_say_what_to_try(capsys):
    report.print_summary(replace(_summary(9), objects=0, mean_score=0.0))
    assert "nothing found: say where it is" in capsys.readouterr().err


def test_an_outcome_is_a_line(capsys):
    report.print_outcome(Outcome(ODD, None, UserError("broken.mp4: cannot be opened")))
    report.print_outcome(Outcome("b", _summary(2, ["b.png: broken"])))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{ODD}: failed: broken.mp4: cannot be opened"
    assert lines[1].startswith("b: 2 frames in") and lines[2] == "skipped: b.png: broken"


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03")])
def test_clock(seconds, words):
    assert terminal.clock(seconds) == words


def test_time_left_counts_what_this_run_does(monkeypatch, capsys):
    clock = iter((100.0, 120.0))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    with terminal.progress("x", 1000, before=990) as advance:
        advance(995, None)
    assert "x: 995 of 1000, 0.2 a second, 0:20 left" in capsys.readouterr().err


@pytest.mark.parametrize(("score", "told"), [(0.2, True), (0.8, False)])
def test_low_scores_point_to_the_box(capsys, score, told):
    report.print_summary(replace(_summary(2), mean_score=score))
    assert ("--roi" in capsys.readouterr().err) is told


@pytest.fixture
def pack(tmp_path):
    header = {
        "kind": "run",
        "category": "[/b]",
        "seconds": 2701.8123,
        "config": {"lr": 0.00123456, "steps": None, "resume": False, "size": [1, 2]},
        "history": [{"step": 1, "pck": 0.1}, {"step": 2, "pck": 0.123456789}],
        "drift": {"crops": 32, "max_px": 5.4321e-05, "pairs": {"a-b": {"max_px": 1.0}}},
    }
    path = tmp_path / "p.safetensors"
    save_file({"x": np.zeros(1, np.float32)}, path, metadata={"lmk": json.dumps(header)})
    return path, header


def test_info_is_short(pack, capsys):
    commands.print_info(pack[0])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines == {
        "kind": "run",
        "category": "[/b]",
        "seconds": "2702",
        "config": "lr 0.001235, steps null, resume false, size (1, 2)",
        "history": "2 entries, the last: step 2, pck 0.1235",
        "drift": "max 5.4e-05 px over 32 crops",
    }


def test_info_as_json_is_whole(pack, model_path, capsys):
    commands.print_info(pack[0], as_json=True)
    assert json.loads(capsys.readouterr().out) == pack[1]
    commands.print_info(model_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["landmark_names"] == ["red", "green", "blue"]


def test_info_of_a_model(model_path, capsys):
    commands.print_info(model_path)
    assert "landmark_names   red, green, blue\n" in capsys.readouterr().out


def test_info_of_a_folder_says_so(tmp_path):
    with pytest.raises(UserError, match=r"got a folder, expected a \.safetensors"):
        commands.print_info(tmp_path)
