"""What a style adds to the landmarks: trails, lines, names, boxes; files of pairs to join."""

import numpy as np
import pytest

from lmk.runtime.detection import Detection
from lmk.runtime.errors import UserError
from lmk.runtime.outputs.drawing import colour, draw
from lmk.runtime.outputs.painter import Painter, Style, read_skeleton

NAMES = ("nose", "tail")
GREY = 100


def _detection(x, track=0, score=1.0, y=60.0, box=(10.0, 10.0, 300.0, 120.0)):
    points = np.array([[x, y], [x, y + 40]], np.float32)
    return Detection(points, np.full(2, score, np.float32), box, track)


def _paint(style, *frames):
    """The picture of the last frame."""
    painter = Painter(NAMES, style)
    for detections in frames:
        image = np.full((160, 320, 3), GREY, np.uint8)
        painter.paint(image, detections)
    return image


def _changed(image, rows=slice(None), columns=slice(None)):
    return (image[rows, columns] != GREY).any()


def test_without_a_style_only_landmarks():
    found = _detection(100.0)
    plain = np.full((160, 320, 3), GREY, np.uint8)
    np.testing.assert_array_equal(_paint(Style(), [found]), draw(plain, found))


def test_trails_last_as_long_as_told_and_fade():
    frames = [[_detection(x)] for x in (40.0, 80.0, 120.0, 160.0, 200.0)]
    image = _paint(Style(trails=3), *frames)
    line = np.abs(image[60, 20:190].astype(int) - GREY).max(-1)
    assert (line[:50] == 0).all()  # from 40 to 80: four frames ago
    assert 0 < line[80] < line[120] < line[155]
    strongest = image[60, 170].astype(int) - GREY
    assert np.sign(strongest[0]) == np.sign(int(colour(0)[0]) - GREY)


def test_trails_are_of_one_track_and_broken_where_it_was_gone():
    image = _paint(Style(trails=9), [_detection(40.0)], [_detection(160.0, track=1)])
    assert not _changed(image, slice(55, 65), slice(60, 130))
    image = _paint(Style(trails=9), [_detection(40.0)], [], [_detection(160.0)])
    assert not _changed(image, slice(55, 65), slice(60, 130))


def test_replayed_frames_leave_the_same_trails():
    frames = [
        [_detection(40.0 + 30 * n), _detection(60.0, 1, y=20.0)][: 1 + n % 2] for n in range(6)
    ]
    style = Style(trails=4, names=True)
    painter = Painter(NAMES, style)
    for detections in frames[:-1]:
        painter.follow(detections)
    image = np.full((160, 320, 3), GREY, np.uint8)
    painter.paint(image, frames[-1])
    np.testing.assert_array_equal(image, _paint(style, *frames))


@pytest.mark.parametrize(
    ("style", "count"),
    [(Style(), 1), (Style(trails=3, skeleton=(NAMES,)), 1), (Style(names=True), 1), (Style(), 2)],
)
def test_nothing_is_painted_outside_the_reach(style, count):
    painter = Painter(NAMES, style)
    for x in (100.0, 130.0, -4.0, 1e30, 60.0):
        image = np.full((160, 320, 3), GREY, np.uint8)
        found = [_detection(x + 40 * track, track) for track in range(count)]
        found[0].points[1, 0] = np.nan if x == 100 else x
        rows, columns = painter.reach(image, found)
        painter.paint(image, found)
        assert _changed(image[rows, columns]) or x > 1e3
        image[rows, columns] = GREY
        assert not _changed(image)
    assert Painter(NAMES, Style()).reach(image, []) == (slice(0, 0), slice(0, 0))


def test_skeleton_joins_the_pairs_and_fades_with_the_score():
    column = [
        _paint(Style(skeleton=(NAMES,)), [_detection(100.0, score=s)])[80, 100] for s in (0, 1)
    ]
    assert GREY < column[0].min() < column[1].min() == 255
    assert not _changed(_paint(Style(), [_detection(100.0)]), 80)


def test_names_stand_beside_their_landmarks():
    with_names, without = (_paint(Style(names=n), [_detection(100.0)]) for n in (True, False))
    rows, columns = np.nonzero((with_names != without).any(-1))
    assert columns.min() > 100 and columns.max() < 160
    assert (np.abs(rows[rows < 80] - 60) < 12).all() and (np.abs(rows[rows >= 80] - 100) < 12).all()


def test_names_of_points_off_the_image_are_left_out():
    lost = Detection(
        np.array([[np.nan, 5], [900, 50]], np.float32), np.ones(2, np.float32), (0, 0, 90, 90)
    )
    assert not _changed(_paint(Style(names=True, skeleton=(NAMES,), trails=2), [lost], [lost]))


def test_boxes_appear_with_the_second_object_and_stay():
    one, other = _detection(100.0), _detection(200.0, 3, y=30.0, box=(150.0, 5.0, 90.0, 90.0))
    assert not _changed(_paint(Style(), [one]), 10)
    both = _paint(Style(), [one, other])
    assert tuple(both[10, 100]) == colour(0) and tuple(both[5, 200]) == colour(3)
    assert tuple(both[129, 100]) == colour(0) and tuple(both[50, 309]) == colour(0)
    assert not _changed(both, 131) and not _changed(both, slice(None), 310)
    assert tuple(_paint(Style(), [one, other], [one])[10, 100]) == colour(0)


@pytest.mark.parametrize("box", [(-50.0, -50.0, 900.0, 900.0), (400.0, 20.0, 50.0, 50.0)])
def test_boxes_beyond_the_image_do_no_harm(box):
    found = [_detection(100.0, box=box), _detection(200.0, 1, box=box)]
    assert _paint(Style(names=True), found).shape == (160, 320, 3)


def test_skeleton_of_other_landmarks_is_refused():
    with pytest.raises(UserError, match="skeleton: got 'ear', expected a landmark.*nose, tail"):
        Painter(NAMES, Style(skeleton=(("nose", "ear"),)))


def test_negative_trails_are_refused():
    with pytest.raises(UserError, match="trails: got -1, expected 0 or more"):
        Style(trails=-1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.csv", "nose,tail\n\ntail, ear\n"),
        ("s.CSV", "\ufeffnose,tail\ntail,ear"),
        ("s.json", '[["nose", "tail"], ["tail", "ear"]]'),
    ],
)
def test_pairs_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_skeleton(tmp_path / name) == (("nose", "tail"), ("tail", "ear"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.csv", "nose,tail,ear\n", r"got \['nose', 'tail', 'ear'\], expected pairs"),
        ("s.csv", "", "got no pair"),
        ("s.json", "{", "s.json is not JSON"),
        ("s.json", "[" * 100_000, "s.json is not JSON"),
        ("s.json", '{"nose": "tail"}', "expected pairs"),
        ("s.csv", "nose, nose\n", "got 'nose' twice in a pair"),
        ("s.csv", "nose,\udcff\n", "cannot be read"),
        ("s.json", "7", "got 7, expected pairs"),
        ("s.json", "[[1, 2]]", r"got \[1, 2\], expected pairs"),
        ("missing.csv", None, "missing.csv: got no such file, expected pairs"),
    ],
)
def test_what_is_no_list_of_pairs_is_named(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=message):
        read_skeleton(tmp_path / name)
