"""Detections -> files of lines, whole or absent, and what all sinks of a file share."""

import csv
import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lmk.runtime import files
from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.outputs.coco import CocoSink
from lmk.runtime.outputs.overlay_video import OverlayVideoSink
from lmk.runtime.outputs.parquet import ParquetSink
from lmk.runtime.outputs.slp import SlpSink
from lmk.runtime.outputs.tables import CsvSink, JsonlSink
from lmk.runtime.regions import parse_roi

NAMES = ["nose", "tail"]


def _frame(image, index=0, time_s=0.0, source="v.mp4"):
    return Frame(source, index, time_s, image)


def _detection(track=0):
    points = np.array([[1.25, 2.5], [30.0, 20.0]], np.float32)
    return Detection(points, np.array([0.5, 1.0], np.float32), (0.0, 0.0, 64.0, 48.5), track)


def _video(path=Path("/elsewhere/v.mp4")):
    """What a sink has to know of a video source."""
    return SimpleNamespace(
        path=path,
        frame_rate=Fraction(25),
        time_base=Fraction(1, 1000),
        size=(48, 64),
        colours=None,
        start_s=None,
        pixel_aspect=Fraction(1),
    )


def _grey(height=48, width=64):
    return np.full((height, width, 3), 100, np.uint8)


def test_csv_has_a_row_per_object_by_name(tmp_path):
    sink = CsvSink(tmp_path / "new" / "out.csv", NAMES)
    sink.open(_video())
    for index, tracks in enumerate([(0,), (), (0, 7)]):
        sink.write(_frame(_grey(), index, index / 25), [_detection(track) for track in tracks])
    sink.close()
    with open(tmp_path / "new" / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("source", "frame", "time_s", "track", "box_x", "box_y", "box_w", "box_h"),
        *("nose_x", "nose_y", "nose_score", "tail_x", "tail_y", "tail_score"),
    ]
    assert [(row["frame"], row["track"]) for row in rows] == [("0", "0"), ("2", "0"), ("2", "7")]
    assert float(rows[2]["time_s"]) == 0.08 and float(rows[0]["box_h"]) == 48.5
    assert float(rows[1]["nose_x"]) == 1.25 and float(rows[1]["tail_score"]) == 1.0


def test_a_name_is_no_formula(tmp_path):
    sink = CsvSink(tmp_path / "out.csv", ["=nose", "tail"])
    sink.open(_video())
    for name in ("=1+1.png", "@x.png", "a=b.png"):
        sink.write(_frame(_grey(), source=name), [_detection()])
    sink.close()
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == ["'=1+1.png", "'@x.png", "a=b.png"]
    assert rows[0].keys() >= {"'=nose_x", "tail_x"}
    region = parse_roi(str(tmp_path / "out.csv"))  # the boxes are found again
    assert len(region.targets(_frame(_grey(), source="=1+1.png"))) == 1


def test_jsonl_has_a_line_per_frame_with_its_objects(tmp_path):
    sink = JsonlSink(tmp_path / "out.jsonl", ["nasé", "tail"])
    sink.open(_video())
    lost = Detection(np.array([[np.nan, 2]] * 2, np.float32), np.ones(2, np.float32), (0, 0, 9, 9))
    for index, found in enumerate([[_detection(), _detection(3)], [], [lost]]):
        sink.write(_frame(_grey(), index, index / 25), found)
    sink.close()
    text = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    first, second, third = (json.loads(line) for line in text.splitlines())
    assert (first["source"], first["frame"], first["size"]) == ("v.mp4", 0, [48, 64])
    assert [each["track"] for each in first["objects"]] == [0, 3]
    assert first["objects"][0]["landmarks"] == {"nasé": [1.25, 2.5, 0.5], "tail": [30, 20, 1]}
    assert first["objects"][0]["box"] == [0, 0, 64, 48.5]
    assert second == {"source": "v.mp4", "frame": 1, "time_s": 0.04, "size": [48, 64]} | {
        "objects": []
    }
    assert third["objects"][0]["landmarks"]["tail"] == [None, 2, 1]  # JSON has no NaN


SINKS = {
    "csv": lambda path: CsvSink(path, NAMES),
    "jsonl": lambda path: JsonlSink(path, NAMES),
    "video": OverlayVideoSink,
    "coco": lambda path: CocoSink(path, NAMES),
    "parquet": lambda path: ParquetSink(path, NAMES),
    "slp": lambda path: SlpSink(path, NAMES),
}


@pytest.mark.parametrize("make", SINKS.values(), ids=SINKS)
def test_abort_leaves_nothing_and_keeps_the_old(tmp_path, make):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    sink = make(path)
    sink.abort()  # before open
    sink.open(_video())
    assert sink.replaces
    sink.write(_frame(_grey()), [_detection()])
    sink.abort()
    sink.abort()
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old"


def test_source_is_never_overwritten(tmp_path):
    with pytest.raises(UserError, match="in the place of the source"):
        CsvSink(tmp_path / "v.mp4", NAMES).open(_video(tmp_path / "v.mp4"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: not Linux")
@pytest.mark.parametrize("make", list(SINKS.values())[:2], ids=list(SINKS)[:2])
def test_full_disk_is_one_line(tmp_path, monkeypatch, make):
    """The temporary file is a link to the device that is always full: real errors, real code."""
    monkeypatch.setattr(files.uuid, "uuid4", lambda: SimpleNamespace(hex="0" * 32))
    (tmp_path / ".out.00000000.txt").symlink_to("/dev/full")
    sink = make(tmp_path / "out.txt")
    with pytest.raises(UserError, match="out.txt: the disk is full"):
        sink.open(_video())
        for index in range(200):
            sink.write(_frame(_grey(), index, index / 25), [_detection()])
        sink.close()
    sink.abort()
    assert list(tmp_path.iterdir()) == []
