"""What the user reads of a detection: numbers that are short, everything once."""

from dataclasses import replace

import pytest

from lmk.runtime.detect import report
from lmk.runtime.errors import UserError
from lmk.runtime.pipeline.summary import STAGES, Outcome, Summary

ODD = "m/[/b] [red]:cat:"


def _summary(frames, skipped=()):
    busy = dict.fromkeys(STAGES, 0.5) | {"run": 1.5}
    return Summary(frames, 2.0, frames / 2, list(skipped), 0.5, busy, objects=frames, found=frames)


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
    report.print_summary(replace(_summary(9), objects=0, found=0, mean_score=0.0))
    assert "nothing found in 100% of 9 frames: say where it is" in capsys.readouterr().err
    report.print_outcome(Outcome("a", replace(_summary(10), found=4)))
    assert "nothing found in 60% of 10 frames" in capsys.readouterr().err
    report.print_summary(replace(_summary(10), found=5))
    assert "nothing found" not in capsys.readouterr().err


def test_an_outcome_is_a_line(capsys):
    report.print_outcome(Outcome(ODD, None, UserError("broken.mp4: cannot be opened")))
    report.print_outcome(Outcome("b", _summary(2, ["b.png: broken"])))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{ODD}: failed: broken.mp4: cannot be opened"
    assert lines[1].startswith("b: 2 frames in") and lines[2] == "skipped: b.png: broken"


@pytest.mark.parametrize(("score", "told"), [(0.2, True), (0.8, False)])
def test_low_scores_point_to_the_box(capsys, score, told):
    report.print_summary(replace(_summary(2), mean_score=score))
    assert ("--roi" in capsys.readouterr().err) is told
