"""What the user reads of an evaluation: names as they are, and when not to believe a number."""

import re

import pytest

from lmk.train.judge.table import print_evaluation

ODD = "m/[/b] [red]:cat:"


def make(**values):
    report = {
        "pack": "faces",
        "data": "people",
        "test_images": 30,
        "batch_norm": "eval",
        "crop": "image",
        "leak_free": True,
    }
    report |= {"consistency_px": 1.234, "consistency_still_px": 7.0, "spread_px": 30.0}
    report |= {"consistency_px_each": [0.5, 1.9], "consistency_px_landmarks": [1.9, 0.5]}
    return {**report, "collapsed": False, "collapsed_because": "", **values}


def regressed(**values):
    rows = [
        {"images": n, "repeats": r, "mean_percent": e, "std_percent": s, "mean_shape_percent": 33.3}
        for n, r, e, s in ((10, 7, 22.2, 1.5), (40, 1, 11.1, 0.0))
    ]
    report = make(normaliser="inter-ocular", covered_percent=87.654)
    for name, error in (("forward", 11.1), ("backward", 5.55)):
        report |= {f"{name}_percent": error, f"{name}_mean_shape_percent": 33.3}
        report |= {f"{name}_by_images": rows, f"{name}_images_needed": 1}
    return {**report, **values}


@pytest.fixture
def printed(capsys):
    """Return a function that gives the lines of cells, and what is said on standard error."""

    def read(*reports):
        print_evaluation(reports)
        streams = capsys.readouterr()
        cells = [re.split(r"\s*[│┃]\s*", line.strip("│┃ ")) for line in streams.out.splitlines()]
        return cells, streams

    return read


def test_takes_any_name(printed):
    _, streams = printed(make(pack=ODD, data="[/x]"))
    assert "[/x]: 30 test images" in streams.out and ODD in streams.out
    assert streams.err == ""


def test_every_number_has_its_baseline_beside_it(printed):
    cells, _ = printed(regressed())
    assert ["faces", "1.23", "7.00", "30.00", "87.65", "11.10", "33.30", "5.55", "33.30"] in cells
    assert ["10", "22.20 ± 1.50", "33.30", "22.20 ± 1.50", "33.30"] in cells


def test_a_collapsed_pack_has_no_proud_backward_error(printed):
    because = "the landmarks sit on one blob, within 1.0 px"
    cells, streams = printed(regressed(collapsed=True, collapsed_because=because))
    assert ["faces", "1.23", "7.00", "30.00", "87.65", "11.10", "33.30", "(5.55)", "33.30"] in cells
    assert ["10", "22.20 ± 1.50", "33.30", "(22.20 ± 1.50)", "33.30"] in cells
    assert streams.err.startswith(f"faces: collapsed: {because}; ")


def test_packs_stand_under_one_another_with_their_leak_free_crops(printed):
    other = regressed(crop="object", forward_percent=44.4)
    cells, streams = printed(
        regressed(crop="annotation", leak_free=False, leak_free_variant=other),
        make(pack="unlabelled"),
    )
    first = {row[0]: row[5] for row in cells if len(row) == 9}
    assert first["faces, crop annotation"] == "11.10"
    assert first["faces, crop object"] == "44.40"
    assert ["unlabelled", "1.23", "7.00", "30.00"] in cells
    assert "crop annotation: tells where the points are" in streams.out


def test_a_direction_that_cannot_be_solved_is_said(printed):
    report = regressed(forward_images_needed=21)
    report["forward_by_images"] = report["forward_by_images"][1:]
    cells, streams = printed(report, report)
    assert ["10", "-", "-", "22.20 ± 1.50", "33.30"] in cells
    assert "forward: without ridge 21 training images are needed" in streams.err


def test_landmarks_out_of_sight_and_images_left_out_are_said(printed):
    values = {"consistency_px_landmarks": [0.5, None, None], "consistency_px_each": [0.5]}
    _, streams = printed(regressed(**values, images_incomplete=5, images_without_length=2))
    assert "px of each landmark, ascending: 0.5  and 2 always out of sight" in streams.out
    assert "5 images left out of the regressors: a point is missing" in streams.err
    assert "2 images left out of the regressors: the length to divide by is 0" in streams.err


def test_nothing_in_sight(printed):
    cells, _ = printed(make(consistency_px=None, consistency_still_px=None))
    assert ["faces", "-", "-", "30.00"] in cells


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"consistency_px": 6.9}, "no steadier than points that never move"),
        ({"forward_percent": 33.0}, "forward: no better than the mean shape"),
        ({"backward_percent": 40.0}, "backward: no better than the mean shape"),
        ({"test_images": 7}, "7 test images are few, expected 20 or more"),
    ],
)
def test_numbers_that_tell_nothing_are_called_that(printed, values, words):
    assert printed(regressed())[1].err == ""
    (line,) = printed(regressed(**values))[1].err.splitlines()
    assert line.startswith("faces: ") and words in line


def test_one_choice_of_images_has_no_spread(printed):
    cells, streams = printed(regressed(batch_norm="batch"))
    assert ["40", "11.10", "33.30", "11.10", "33.30"] in cells
    words = " ".join(streams.out.split())  # captions are wrapped
    assert "batch-norm: statistics of each batch" in words
