"""Boxes from words, numbers and tables."""

import pytest

from lmk.runtime.boxes import parse_roi
from lmk.runtime.errors import UserError


def test_roi():
    assert parse_roi("full")(480, 640, 0) == (0, 0, 640, 480)
    assert parse_roi("center")(480, 640, 0) == (80, 0, 480, 480)
    assert parse_roi("center")(640, 481, 0) == (0, 79.5, 481, 481)
    assert parse_roi("10, 20.5,30,40")(480, 640, 0) == (10, 20.5, 30, 40)


@pytest.mark.parametrize("text", ["", "middle", "1,2,3", "1,2,3,4,5", "a,b,c,d", "full,1,2,3"])
def test_roi_that_is_none(text):
    with pytest.raises(UserError, match="expected full, center, x,y,w,h or a .csv"):
        parse_roi(text)


@pytest.mark.parametrize("text", ["1,2,0,4", "1,2,3,-4", "1,2,nan,4"])
def test_roi_without_area(text):
    with pytest.raises(UserError, match="width and height above 0"):
        parse_roi(text)


@pytest.mark.parametrize("text", ["0,0,101,10", "-1,0,10,10", "95,0,10,10", "nan,0,5,5"])
def test_roi_outside_the_frame(text):
    with pytest.raises(UserError, match="within the frame of 100×50 pixels"):
        parse_roi(text)(50, 100, 0)


@pytest.fixture
def table(tmp_path):
    def write(text: str):
        path = tmp_path / "boxes.csv"
        path.write_text(text)
        return path

    return write


def test_boxes_move_evenly_between_the_listed_frames_and_stay_outside(table):
    box = parse_roi(str(table("frame,x,y,w,h\n20,30,0,50,60\n10,10,-4,40,60\n")))
    assert box(480, 640, 0) == box(480, 640, 10) == (10, -4, 40, 60)
    assert box(480, 640, 15) == (20, -2, 45, 60)
    assert box(480, 640, 20) == box(480, 640, 99) == (30, 0, 50, 60)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("frame,x,y,w,h\n", "got no box"),
        ("frame,x,y,w\n0,1,2,3\n", "line 2"),
        ("frame,x,y,w,h\n0,1,2,3,4\n5,1,2,nan,4\n", "line 3"),
        ("frame,x,y,w,h\n0,1,2,0,4\n", "line 2"),
        ("frame,x,y,w,h\n0,1,2\n", "line 2"),
    ],
)
def test_tables_that_are_none(table, text, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        parse_roi(str(table(text)))
    assert "\n" not in str(caught.value)


def test_a_table_that_is_absent(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        parse_roi(str(tmp_path / "no.csv"))
