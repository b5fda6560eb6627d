"""COCO key points: read back by COCO's own library and by our layout for training."""

import contextlib
import io
import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.outputs.coco import CocoSink
from lmk.train.datasets.layouts.coco import open_coco

NAMES = ("nose", "tail", "ear")


def _detection(track=0, low=False, lost=False):
    points = np.array([[1.25 + track, 2.5], [30.0, 20.0], [9.0, 8.5]], np.float32)
    if lost:
        points[2] = np.nan
    scores = np.array([0.9, 0.1 if low else 0.8, 0.7], np.float32)
    return Detection(points, scores, (-2.0, 1.0, 40.0, 30.5), track)


def _write(path, frames, rate=None):
    sink = CocoSink(path, NAMES, "cat", (("nose", "tail"), ("tail", "ear")))
    sink.open(SimpleNamespace(path=Path("/elsewhere"), frame_rate=rate))
    for index, (name, found) in enumerate(frames):
        sink.write(Frame(name, index, index / 25, np.zeros((48, 64, 3), np.uint8)), found)
    sink.close()
    return json.loads(path.read_text(encoding="utf-8"))


def test_coco_reads_it(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    frames = [("v.mp4", [_detection(), _detection(4)]), ("v.mp4", []), ("v.mp4", [_detection(4)])]
    _write(tmp_path / "l.coco.json", frames, Fraction(25))
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress
        read = coco.COCO(tmp_path / "l.coco.json")
    (category,) = read.loadCats(read.getCatIds(catNms=["cat"]))
    assert category["keypoints"] == list(NAMES) and category["skeleton"] == [[1, 2], [2, 3]]
    images = read.loadImgs(read.getImgIds())
    assert [(image["width"], image["height"]) for image in images] == [(64, 48)] * 3
    assert [image["file_name"] for image in images] == [f"v_{n:06d}.png" for n in range(3)]
    assert images[2]["video"] == "v.mp4" and images[2]["frame"] == 2
    found = read.loadAnns(read.getAnnIds(imgIds=[images[0]["id"]]))
    assert [each["track_id"] for each in found] == [0, 4]
    assert found[1]["keypoints"] == [5.25, 2.5, 2, 30, 20, 2, 9, 8.5, 2]
    assert found[0]["bbox"] == [-2, 1, 40, 30.5] and found[0]["area"] == 1220
    assert read.getAnnIds(imgIds=[images[1]["id"]]) == []


def test_our_own_layout_reads_it(tmp_path):
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    frames = [("a.png", [_detection(), _detection(2)]), ("sub/b.png", [_detection(lost=True)])]
    _write(tmp_path / "landmarks.coco.json", frames)
    dataset = open_coco(tmp_path)
    assert dataset.landmark_names == NAMES and len(dataset.samples) == 3
    points = {(s.name, float(s.points[0, 0])): s.points for s in dataset.samples}
    np.testing.assert_array_equal(points["a.png", 3.25], _detection(2).points)
    np.testing.assert_array_equal(points["sub/b.png", 1.25], _detection(lost=True).points)


def test_visibility_and_scores(tmp_path):
    (each,) = _write(tmp_path / "c.json", [("a.png", [_detection(low=True, lost=True)])])[
        "annotations"
    ]
    assert each["keypoints"][2::3] == [2, 1, 0] and each["keypoints"][6:] == [0, 0, 0]
    assert each["num_keypoints"] == 2 and each["scores"] == [0.9, 0.1, 0.7]


def test_a_run_without_a_frame_is_valid(tmp_path):
    content = _write(tmp_path / "c.json", [])
    assert content["images"] == content["annotations"] == []
