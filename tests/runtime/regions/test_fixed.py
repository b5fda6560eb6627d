"""Boxes from words, numbers and tables."""

import numpy as np
import pytest

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.regions.fixed import parse_roi
from lmk.runtime.regions.region import Target


def _at(region, height, width, index, source="v.mp4"):
    blank = np.broadcast_to(np.uint8(0), (height, width, 3))
    return region.targets(Frame(source, index, 0.0, blank))


def _box(text, height, width, index):
    [target] = _at(parse_roi(text), height, width, index)
    return target.box


def test_roi():
    assert _box("full", 480, 640, 0) == (0, 0, 640, 480)
    assert _box("center", 480, 640, 0) == (80, 0, 480, 480)
    assert _box("center", 640, 481, 0) == (0, 79.5, 481, 481)
    assert _box("10, 20.5,30,40", 480, 640, 0) == (10, 20.5, 30, 40)


WORDS = "expected auto, full, center, motion, track, box, x,y,w,h or a .csv"
NO_AREA = "width and height above 0"
OUTSIDE = "within the frame of 100×50 pixels"


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["", "middle", "1,2,3", "1,2,3,4,5", "a,b,c,d", "full,1,2,3"], WORDS),
        (["1,2,0,4", "1,2,3,-4", "1,2,nan,4", "1,2,inf,4", "nan,0,5,5"], NO_AREA),
        (["0,0,101,10", "-1,0,10,10", "95,0,10,10"], OUTSIDE),
        (["no.csv"], "got no such file, expected a CSV of boxes"),
    ],
)
def test_roi_that_is_none(texts, told):
    for text in texts:
        with pytest.raises(UserError, match=told):
            _box(text, 50, 100, 0)


@pytest.fixture
def table(tmp_path):
    def write(text: str):
        path = tmp_path / "boxes.csv"
        path.write_text(text)
        return path

    return write


def test_boxes_move_evenly_between_the_listed_frames_and_stay_outside(table):
    path = str(table("frame,x,y,w,h\n20,30,0,50,60\n10,10,-4,40,60\n"))
    assert _box(path, 480, 640, 0) == _box(path, 480, 640, 10) == (10, -4, 40, 60)
    assert _box(path, 480, 640, 15) == (20, -2, 45, 60)
    assert _box(path, 480, 640, 20) == _box(path, 480, 640, 99) == (30, 0, 50, 60)


def test_several_objects_exist_from_their_first_to_their_last_frame(table):
    rows = "frame,track,x,y,w,h\n4,1,0,0,10,10\n8,1,4,0,10,10\n0,0,50,0,9,9\n6,0,50,6,9,9\n"
    region = parse_roi(str(table(rows)))
    assert _at(region, 99, 99, 2) == [Target((50, 2, 9, 9), 0)]
    assert _at(region, 99, 99, 5) == [Target((50, 5, 9, 9), 0), Target((1, 0, 10, 10), 1)]
    assert _at(region, 99, 99, 8) == [Target((4, 0, 10, 10), 1)]
    assert _at(region, 99, 99, 9) == []


def test_several_sources(table):
    region = parse_roi(str(table("source,frame,x,y,w,h\na.png,0,1,2,3,4\nb.png,0,5,6,7,8\n")))
    assert _at(region, 9, 9, 3, "a.png") == [Target((1, 2, 3, 4))]
    assert _at(region, 9, 9, 0, "b.png") == [Target((5, 6, 7, 8))]
    assert _at(region, 9, 9, 0, "c.png") == []


def test_results_of_an_earlier_detection_are_boxes(table):
    rows = "source,frame,time_s,track,box_x,box_y,box_w,box_h,p0_x\nv.mp4,3,0.1,2,1,2,30,40,9\n"
    assert _at(parse_roi(str(table(rows))), 99, 99, 3) == [Target((1, 2, 30, 40), 2)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("frame,x,y,w,h\n", "got no box"),
        ("frame,x,y,w\n0,1,2,3\n", "expected also h"),
        ("frame,x,y,w,h\n0,1,2,3,4\n5,1,2,nan,4\n", "line 3"),
        ("frame,x,y,w,h\n0,1,2,0,4\n", "line 2"),
        ("frame,x,y,w,h\n0,1,2\n", "line 2"),
        ("frame,x,y,w,h\n0.5,1,2,3,4\n", "line 2.*a whole frame from 0"),
        ("frame,x,y,w,h\n-1,1,2,3,4\n", "line 2.*a whole frame from 0"),
        ("frame,x,y,w,h\n0,1,2,3,4\n0,5,6,7,8\n", "line 3: got frame 0 again.*a column track"),
        ("frame,track,x,y,w,h\n1,2,1,2,3,4\n1,2,1,2,3,4\n", "line 3: got frame 1 again"),
        ("frame,x,y,width,height\n0,1,2,3,4\n", "got the columns frame, .*expected also w, h"),
        *(
            (f"frame,track,x,y,w,h\n4,{track},0,0,10,10\n", f"line 2: got track '{track}', expec")
            for track in ("x", "", "1.5", "-1", "2147483648")
        ),
    ],
)
def test_tables_that_are_none(table, text, complaint):
    with pytest.raises(UserError, match=complaint):
        parse_roi(str(table(text)))
