"""Output tables of YOLO-style networks -> boxes."""

import numpy as np
import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.regions.yolo import Candidates, decode, overlaps, recognise, suppress


@pytest.mark.parametrize(
    ("shape", "size", "form"),
    [
        ((1, 84, 8400), (640, 640), "columns"),
        ((1, 5, 8400), (640, 640), "columns"),
        ((1, 84, 84), (64, 64), "columns"),
        ((1, 84, 5040), (384, 640), "columns"),
        ((1, 25200, 85), (640, 640), "objectness"),
        ((1, 25200, 6), (640, 640), "objectness"),  # one class, and no end-to-end
        ((1, 102000, 85), (1280, 1280), "objectness"),  # with a stride of 64
        ((1, 300, 6), (640, 640), "end-to-end"),
        ((1, 100, 6), (416, 416), "end-to-end"),
    ],
)
def test_forms_are_known_by_their_shapes(shape, size, form):
    assert recognise(shape, size, None, "m.onnx") == form


@pytest.mark.parametrize(
    ("shape", "classes"),
    [
        ((1, 8400, 85), None),  # a box a cell, not decoded
        ((1, 8400, 6), None),
        ((1, 84, 8400), 20),
        ((1, 116, 8000), None),
        ((1000,), None),
        ((2, 84, 8400), None),
        ((1, 25200, 85), 79),
        ((1, 300, 7), None),
    ],
)
def test_other_shapes_are_refused(shape, classes):
    with pytest.raises(UserError, match=r"m.onnx: got an output \(.* expected .* export"):
        recognise(shape, (640, 640), classes, "m.onnx")


def test_tables_are_read():
    columns = np.float32([[[50, 60, 20, 10, 0.1, 0.8]]]).transpose(0, 2, 1)
    objectness = np.float32([[[50, 60, 20, 10, 0.5, 0.2, 0.8]]])
    ends = np.float32([[[40, 55, 60, 65, 0.8, 1]]])
    for output, form, score in [
        (columns, "columns", 0.8),
        (objectness, "objectness", 0.4),
        (ends, "end-to-end", 0.8),
    ]:
        boxes = decode(output, form)
        assert boxes.edges.tolist() == [[40, 55, 60, 65]]
        assert boxes.scores == pytest.approx([score]) and boxes.classes.tolist() == [1]


def test_the_best_of_overlapping_boxes_of_a_class_stays():
    edges = np.float32([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 0, 60, 10]])
    boxes = Candidates(edges, np.float32([0.5, 0.9, 0.4, 0.3]), np.array([0, 0, 1, 0]))
    kept = suppress(boxes, 0.5)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.4, 0.3])
    assert kept.classes.tolist() == [0, 1, 0]
    assert len(suppress(boxes, 1.0)) == 4
    assert len(suppress(boxes[np.zeros(4, bool)], 0.5)) == 0


def test_overlaps():
    others = np.float32([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    assert overlaps(others[0], others).tolist() == pytest.approx([1, 1 / 3, 0])
