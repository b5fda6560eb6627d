"""Landmarks while iterating in Python: in order, in threads, and nothing left behind."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import lmk
from lmk.runtime.errors import UserError
from lmk.runtime.outputs.sink import Sink
from lmk.runtime.pipeline.run import detect
from lmk.runtime.regions.fixed import parse_roi
from lmk.runtime.sources.open import open_source

pytestmark = pytest.mark.usefixtures("started")  # no thread stays


def values(found):
    """Everything about the frames but the images, to be compared."""
    return [
        (each.frame.index, each.frame.time_s, d.track, d.box, d.points.tolist(), d.scores.tolist())
        for each in found
        for d in each.detections
    ]


class Kept(Sink):
    """What the pipeline hands to sinks."""

    def __init__(self):
        self.found = []

    def open(self, source):
        pass

    def write(self, frame, detections):
        self.found.append(lmk.Found(frame, detections))

    def close(self):
        pass


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_it_finds_what_lmk_detect_finds(landmarker, blob_video, batch):
    kept = Kept()
    with open_source(blob_video[0]) as source:
        detect(source, landmarker, parse_roi("center"), [kept])
    found = list(landmarker.stream(blob_video[0], "center", batch=batch))
    assert values(found) == values(kept.found) and len(found) == 24
    assert found[3].frame.image.shape == (80, 96, 3)
    assert np.abs(found[3].detections[0].points[0] - blob_video[1][3]).max() < 1


def test_region_and_open_source(landmarker, blob_video):
    with open_source(blob_video[0]) as source:
        found = list(landmarker.stream(source, parse_roi("10,20,60,50")))
        assert source.size == (80, 96)
    assert {each.detections[0].box for each in found} == {(10, 20, 60, 50)}


def test_smooth_is_for_its_stream_alone(landmarker, blob_video):
    raw = values(landmarker.stream(blob_video[0]))
    smooth = values(landmarker.stream(blob_video[0], smooth=True))
    assert smooth != raw and len(smooth) == 24
    assert values(landmarker.stream(str(blob_video[0]), smooth=True)) == smooth
    assert values(landmarker.stream(blob_video[0], smooth=(0.1, 0.0))) != smooth


def test_eight_threads_share_one_landmarker(landmarker, blob_video):
    expected = values(landmarker.stream(blob_video[0]))
    start, found = threading.Barrier(8), {}

    def work(number):
        start.wait()
        found[number] = values(landmarker.stream(blob_video[0], batch=1 + number % 3))

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(each == expected for each in found.values())


def test_everything_ends_with_the_generator(landmarker, blob_video):
    closed = landmarker.stream(blob_video[0])
    next(closed)
    closed.close()
    forgotten = landmarker.stream(blob_video[0])
    next(forgotten)
    del forgotten
    landmarker.stream(blob_video[0])  # never begun
    for _ in landmarker.stream(blob_video[0]):
        break


def test_boxes_may_be_tuples(landmarker, blob_video):
    found = next(landmarker.stream(blob_video[0], (1, 2, 30, 40.5)))
    assert found.detections[0].box == (1, 2, 30, 40.5)
    tracked = next(landmarker.stream(blob_video[0], "track", start=(10, 10, 40, 40)))
    assert tracked.detections[0].box[2] == 40


def test_ctrl_c_in_the_loop(landmarker, blob_video):
    with pytest.raises(KeyboardInterrupt):
        for found in landmarker.stream(blob_video[0]):
            if found.frame.index == 5:
                signal.raise_signal(signal.SIGINT)


def test_live_skips_frames_while_the_caller_is_busy(landmarker, blob_video):
    indices = []
    for found in landmarker.stream(blob_video[0], live=True):
        indices.append(found.frame.index)
        threading.Event().wait(0.13)  # three frames of this video
    assert indices == sorted(set(indices)) and len(indices) < 24
    assert indices[-1] == 23  # the newest is never lost


def test_an_error_comes_where_it_happens(landmarker, tmp_path, blob_video):
    with pytest.raises(UserError, match="roi: got 'middle'"):
        landmarker.stream(blob_video[0], "middle")
    with pytest.raises(UserError, match="start: got 1,2,3,4, expected it with --roi track or"):
        landmarker.stream(blob_video[0], "full", start="1,2,3,4")
    with pytest.raises(ValueError, match="roi: got a region and start"):
        landmarker.stream(blob_video[0], parse_roi("full"), objects=2)
    with pytest.raises(ValueError, match="batch: got 0"):
        landmarker.stream(blob_video[0], batch=0)
    missing = landmarker.stream(tmp_path / "none.mp4")
    with pytest.raises(UserError, match="none.mp4: got no such file"):
        next(missing)
    with pytest.raises(UserError, match="roi: got 0,0,500,5, expected x,y,w,h within the frame"):
        list(landmarker.stream(blob_video[0], "0,0,500,5"))


_DIES = """
import sys
import lmk


def main():
    landmarker = lmk.load(sys.argv[1])
    stream = landmarker.stream(sys.argv[2], batch=1)
    for found in stream:
        raise RuntimeError("in the middle")

main()
"""


def test_a_program_that_dies_in_the_loop_ends(model_path, blob_video):
    """The generator lives to the end of Python, in the frame of the error."""
    done = subprocess.run(
        [sys.executable, "-c", _DIES, model_path, blob_video[0]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "RuntimeError: in the middle" in done.stderr
