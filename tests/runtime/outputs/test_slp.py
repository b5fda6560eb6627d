"""SLEAP files, read back by sleap-io."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.outputs.slp import SlpSink

sleap_io = pytest.importorskip("sleap_io")
NAMES = ["nose", "tail", "ear"]


def _detection(track):
    points = np.array([[1.25 + track, 2.5], [30.0, 20.0], [9.0, 8.5]], np.float32)
    return Detection(points, np.array([0.5, 1.0, 0.75], np.float32), (0, 0, 64, 48), track)


def _write(path, source, frames):
    sink = SlpSink(path, NAMES, "cat", (("nose", "tail"),))
    sink.open(source)
    for name, index, tracks in frames:
        image = np.zeros((48, 64, 3), np.uint8)
        sink.write(Frame(name, index, 0.0, image), [_detection(track) for track in tracks])
    sink.close()
    return sleap_io.load_slp(str(path))


def test_video_with_tracks(tmp_path, blob_video):
    source = SimpleNamespace(path=blob_video[0], frame_rate=Fraction(25))
    frames = [("v", 0, [0]), ("v", 1, []), ("v", 5, [0, 12])]
    labels = _write(tmp_path / "l.slp", source, frames)
    assert labels.video.filename == str(blob_video[0].resolve())
    assert labels.skeleton.node_names == NAMES and labels.skeleton.name == "cat"
    assert labels.skeleton.edge_inds == [(0, 1)]
    assert [track.name for track in labels.tracks] == ["0", "12"]
    assert [frame.frame_idx for frame in labels] == [0, 5]
    last = labels[1].instances[1]
    assert last.track.name == "12" and last.score == pytest.approx(0.75)
    np.testing.assert_array_equal(last.numpy(), _detection(12).points)
    np.testing.assert_array_equal(last.points["score"], [0.5, 1, 0.75])


def test_images_are_a_list_of_files(tmp_path):
    source = SimpleNamespace(path=tmp_path, frame_rate=None)
    labels = _write(tmp_path / "l.slp", source, [("a.png", 0, [0]), ("sub/b.png", 7, [0])])
    assert labels.video.filename == [str(tmp_path / "a.png"), str(tmp_path / "sub/b.png")]
    assert [frame.frame_idx for frame in labels] == [0, 1]


def test_nothing_found_is_a_file(tmp_path, blob_video):
    source = SimpleNamespace(path=blob_video[0], frame_rate=Fraction(25))
    assert len(_write(tmp_path / "l.slp", source, [])) == 0
