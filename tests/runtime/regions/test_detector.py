"""Frame -> boxes, by detectors whose answer is known."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.finder import Finder
from lmk.runtime.regions.choose import RegionMaker, Where
from lmk.runtime.regions.detector import BoxDetector, DetectedBox, DetectorRegion, Letterbox
from lmk.runtime.regions.region import Target
from lmk.runtime.runners import PROVIDERS, open_session

NAMES = "{0: 'dog', 1: 'cat'}"
SIZE = (32, 64)  # of the input: 4 × 8 + 2 × 4 + 1 × 2 = 42 cells
CELLS = 42


def rows(form, found):
    """The table of that form with the boxes (left, top, right, bottom, score, class) in it."""
    if form == "end-to-end":
        table = np.zeros((10, 6), np.float32)
        table[: len(found)] = found
        return table
    table = np.zeros((CELLS if form == "columns" else 3 * CELLS, 6 + (form == "objectness")))
    for row, (left, top, right, bottom, score, number) in zip(table, found, strict=False):
        row[:4] = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        if form == "objectness":
            row[4] = 0.5
        row[len(row) - 2 + number] = score
    return np.float32(table.T if form == "columns" else table)


@pytest.fixture
def write(tmp_path):
    """Write a model that answers with a table, if its input is in [0, 1]; else with nothing."""

    def make(
        table, names=NAMES, kind=TensorProto.FLOAT, shape=(1, 3, *SIZE), outputs=1, given=True
    ):
        nodes = [
            helper.make_node("ReduceMax", ["images"], ["brightest"], keepdims=0),
            helper.make_node("Cast", ["brightest"], ["most"], to=TensorProto.FLOAT),
            helper.make_node("LessOrEqual", ["most", "one"], ["right"]),
            helper.make_node("Cast", ["right"], ["factor"], to=TensorProto.FLOAT),
        ]
        nodes += [
            helper.make_node("Mul", ["table", "factor"], [f"output{n}"]) for n in range(outputs)
        ]
        result = [1, *table.shape] if given else ["batch", "rows", "columns"]
        graph = helper.make_graph(
            nodes,
            "detector",
            [helper.make_tensor_value_info("images", kind, list(shape))],
            [
                helper.make_tensor_value_info(f"output{n}", TensorProto.FLOAT, result)
                for n in range(outputs)
            ],
            [
                numpy_helper.from_array(table[None], "table"),
                numpy_helper.from_array(np.float32(1), "one"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        if names is not None:
            helper.set_model_props(model, {"names": names})
        onnx.save(model, tmp_path / "boxes.onnx")
        return tmp_path / "boxes.onnx"

    return make


FOUND = [(10, 4, 30, 12, 0.9, 1), (11, 4, 31, 12, 0.6, 1), (40, 10, 60, 30, 0.7, 0)]
IMAGE = np.full((64, 128, 3), 200, np.uint8)  # twice the size of the input


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("form", ["columns", "objectness", "end-to-end"])
def test_boxes_are_those_of_the_frame(write, form, given):
    found = BoxDetector(write(rows(form, FOUND), given=given), threads=1)(IMAGE)
    assert [one.label for one in found] == ["cat", "dog"]
    assert found[0].box == pytest.approx((20, 8, 40, 16), abs=1e-3)
    assert found[1].box == pytest.approx((80, 20, 40, 40), abs=1e-3)
    share = 0.5 if form == "objectness" else 1
    assert [one.score for one in found] == pytest.approx([0.9 * share, 0.7 * share])
    assert isinstance(found[0], DetectedBox)


def test_all_classes_of_a_name(write):
    path = write(rows("columns", FOUND), names="{0: 'dog', 1: 'dog'}")  # all of that name
    assert len(BoxDetector(path, classes=["dog"])(IMAGE)) == len(BoxDetector(path)(IMAGE)) > 1


def test_only_what_is_wanted(write):
    path = write(rows("columns", FOUND))
    assert [one.label for one in BoxDetector(path, classes=["dog"])(IMAGE)] == ["dog"]
    assert [one.label for one in BoxDetector(path, classes=["1"])(IMAGE)] == ["cat"]
    assert [one.label for one in BoxDetector(path, score=0.8)(IMAGE)] == ["cat"]
    assert len(BoxDetector(path, iou=1.0)(IMAGE)) == 3
    assert [one.label for one in BoxDetector(path, max_objects=1)(IMAGE)] == ["cat"]
    assert BoxDetector(path, score=1.0)(IMAGE) == []


def test_boxes_in_shares_of_the_input_are_refused(write):
    detector = BoxDetector(write(rows("end-to-end", [(0.1, 0.2, 0.5, 0.9, 0.9, 1)])))
    with pytest.raises(UserError, match="expected pixels of the detector's input, not shares"):
        detector(IMAGE)


def test_boxes_end_at_the_frame(write):
    outside = [(-20, -4, 20, 20, 0.9, 0), (0, 40, 10, 60, 0.8, 0)]
    [found] = BoxDetector(write(rows("columns", outside)))(IMAGE)
    assert found.box == pytest.approx((0, 0, 40, 40), abs=1e-3)


@settings(deadline=None)
@given(*[st.integers(1, 3000)] * 2, *[st.integers(1, 40)] * 2)
def test_a_letterbox_is_undone(height, width, rows, columns):
    box = Letterbox.of((height, width), (32 * rows, 32 * columns))
    top, left = box.corner
    inner = np.float32([[left, top, left + box.inner[1], top + box.inner[0]]])
    np.testing.assert_allclose(box.to_frame(inner), [[0, 0, width, height]], atol=1e-6)
    assert top >= 0 and top + box.inner[0] <= 32 * rows
    assert left >= 0 and left + box.inner[1] <= 32 * columns
    assert box.inner[0] == 32 * rows or box.inner[1] == 32 * columns


def test_a_letterbox_pads_with_grey():
    image = np.full((20, 20, 3), 255, np.uint8)
    inside = Letterbox.of((20, 20), (32, 64))(image)
    assert inside.shape == (1, 3, 32, 64) and inside.dtype == np.float32
    assert (inside[..., 16:48] == 1).all()
    assert inside[..., :16] == pytest.approx(114 / 255) and inside[..., 48:] == pytest.approx(
        114 / 255
    )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"names": "{0: 'cat'}"}, "got an output .* and 1 classes"),
        ({"names": "cat, dog"}, "got class names"),
        ({"names": "[" * 5000}, "got class names"),
        ({"names": "{0: ['cat'], 1: 'dog'}"}, "got class names"),
        ({"names": "{-1: 'cat', 1: 'dog'}"}, "got class names"),
        ({"names": r"{0: 'cat\x1b[2J', 1: 'dog'}"}, "got class names"),
        ({"kind": TensorProto.UINT8}, "got inputs .* expected one, float32"),
        ({"shape": (1, 3, "height", "width")}, "of fixed size"),
        ({"shape": (1, *SIZE, 3)}, "got inputs"),
        ({"outputs": 2}, "got 2 outputs, expected one"),
    ],
)
def test_other_models_are_refused(write, changes, complaint):
    path = write(rows("columns", FOUND), **changes)
    with pytest.raises(UserError, match=complaint) as caught:
        BoxDetector(path)
    assert str(caught.value).startswith(str(path))


def test_files_and_numbers_that_are_wrong(write, tmp_path):
    path = write(rows("columns", FOUND))
    with pytest.raises(UserError, match="got class 'cow', expected dog, cat"):
        BoxDetector(path, classes=["cow"])
    with pytest.raises(UserError, match="got score 2, expected 0 to 1"):
        BoxDetector(path, score=2)
    with pytest.raises(UserError, match="got at most 0 objects"):
        BoxDetector(path, max_objects=0)
    with pytest.raises(UserError, match="device: got 'tpu'"):
        BoxDetector(path, device="tpu")
    with pytest.raises(UserError, match="no.onnx: got no such file"):
        BoxDetector(tmp_path / "no.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    with pytest.raises(UserError, match="bad.onnx: cannot be read as an ONNX model"):
        BoxDetector(tmp_path / "bad.onnx")


def test_a_model_without_names_has_numbers(write):
    path = write(rows("columns", FOUND), names=None)
    assert [one.label for one in BoxDetector(path)(IMAGE)] == ["1", "0"]
    assert [one.label for one in BoxDetector(path, classes=["0"])(IMAGE)] == ["0"]
    with pytest.raises(UserError, match="got class 'cat', expected a number"):
        BoxDetector(path, classes=["cat"])


class Script:
    """A detector that finds in frame after frame what it was told to."""

    def __init__(self, *frames):
        self.frames = list(frames)

    def __call__(self, image):
        return [DetectedBox(box, 0.9, "cat") for box in self.frames.pop(0)]


def frames(count):
    return [Frame("clip", index, index / 25, IMAGE) for index in range(count)]


A, B, C = (0, 0, 20, 20), (50, 0, 20, 20), (80, 30, 20, 20)


def test_numbers_go_with_the_boxes():
    moved = (3, 1, 20, 20)
    region = DetectorRegion(Script([A, B], [B, moved], [C], [A, C]))
    found = [region.targets(frame) for frame in frames(4)]
    assert found[0] == [Target(A, 0), Target(B, 1)]
    assert found[1] == [Target(B, 1), Target(moved, 0)]
    assert found[2] == [Target(C, 2)]
    assert found[3] == [Target(A, 3), Target(C, 2)]
    assert not region.closed


def test_goes_on_where_it_was():
    [frame] = frames(1)
    first = DetectorRegion(Script([A, B]))
    first.targets(frame)
    second = DetectorRegion(Script([B, C]))
    second.restore(json.loads(json.dumps(first.state())))
    assert second.targets(frame) == [Target(B, 1), Target(C, 2)]


@pytest.mark.parametrize(
    ("device", "threads", "expected"),
    [(None, None, "CPU"), ("cpu", 1, "CPU"), ("openvino", 2, "CPU"), ("cuda", 3, "CUDA")],
)
def test_runs_where_and_as_wide_as_the_model(write, monkeypatch, device, threads, expected):
    asked = []

    def session(path, provider, threads):
        asked.append((provider, threads))
        return open_session(path, PROVIDERS["cpu"], threads)

    monkeypatch.setattr("lmk.runtime.regions.detector.open_session", session)
    runner = SimpleNamespace(contract=SimpleNamespace(finding=None))
    RegionMaker(Where(detector=write(rows("columns", FOUND))), Finder(runner, device, threads))
    assert asked == [(f"{expected}ExecutionProvider", threads)]
