"""The whole of detect: right rows, whole files, and an end that is clean whatever ends it."""

import csv
import errno
import signal
import threading

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.runtime.outputs.overlay_images import OverlayImageSink
from lmk.runtime.outputs.overlay_video import OverlayVideoSink
from lmk.runtime.outputs.tables import CsvSink
from lmk.runtime.pipeline.run import detect
from lmk.runtime.pipeline.summary import STAGES, Interrupted
from lmk.runtime.regions.fixed import parse_roi
from lmk.runtime.sources.open import open_source

FULL = parse_roi("full")


pytestmark = pytest.mark.usefixtures("started")  # no thread stays


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def sinks(tmp_path, landmarker):
    """Of a table and of an overlay."""
    return [CsvSink(tmp_path / "o.csv", landmarker.names), OverlayVideoSink(tmp_path / "o.mp4")]


class _Broken(CsvSink):
    """Fails at the third frame."""

    def write(self, frame, detections):
        if frame.index == 2:
            raise self.error
        super().write(frame, detections)


@pytest.mark.parametrize("batch_size", [1, 5, 24, 100])
def test_video_to_csv_and_overlay(tmp_path, sinks, landmarker, blob_video, batch_size):
    path, points = blob_video
    seen = []
    with open_source(path) as source:
        summary = detect(source, landmarker, FULL, sinks, batch_size, seen.append)
        size, rate = source.size, source.frame_rate
    rows = _rows(tmp_path / "o.csv")
    found = [(float(row["red_x"]), float(row["red_y"])) for row in rows]
    # Near the borders yuv420p and the crop cost the centroid a little.
    assert len(rows) == 24 and np.abs(np.array(found) - points).max() < 1.0
    assert [int(row["frame"]) for row in rows] == list(range(24))
    np.testing.assert_allclose([float(r["time_s"]) for r in rows], np.arange(24) / 25, atol=1e-6)
    with open_source(path) as source, open_source(tmp_path / "o.mp4") as overlay:
        assert (overlay.size, overlay.frame_rate) == (size, rate)
        for before, after, (x, y) in zip(source, overlay, points, strict=True):
            change = np.abs(after.image.astype(int) - before.image).max(-1)
            assert change[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].max() > 30
    assert summary.frames == 24 == seen[-1] and seen == sorted(seen)
    assert summary.frames_per_second == pytest.approx(24 / summary.seconds)
    assert set(summary.busy_seconds) == set(STAGES) and min(summary.busy_seconds.values()) > 0
    assert summary.skipped == [] and 0 < summary.mean_score < 1


def test_folder_with_a_corrupt_image(tmp_path, landmarker, blob_image):
    folder = tmp_path / "in"
    folder.mkdir()
    sizes = [(40, 60), (90, 50), (64, 64)]
    for index, (height, width) in enumerate(sizes):
        Image.fromarray(blob_image(height, width, 25, 30)).save(folder / f"{index}.png")
    (folder / "1b.jpg").write_bytes(b"broken")
    with open_source(folder) as source:
        sinks = [CsvSink(tmp_path / "o.csv", landmarker.names), OverlayImageSink(tmp_path / "out")]
        summary = detect(source, landmarker, FULL, sinks, 2)
    rows = _rows(tmp_path / "o.csv")
    assert [row["source"] for row in rows] == ["0.png", "1.png", "2.png"]
    assert all(abs(float(row["red_x"]) - 25) < 0.5 for row in rows)
    assert summary.frames == 3 and len(summary.skipped) == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]


def test_odd_size_and_variable_rate(tmp_path, sinks, landmarker, blob_image, write_video):
    ticks = [0, 40, 100, 101, 300, 1000]
    pictures = [blob_image(61, 73, 30 + index, 28) for index in range(6)]
    path = write_video(tmp_path / "v.mkv", pictures, "ffv1", "bgr0", ticks)
    with open_source(path) as source:
        detect(source, landmarker, FULL, sinks, 4)
    times = [float(row["time_s"]) for row in _rows(tmp_path / "o.csv")]
    np.testing.assert_allclose(times, np.array(ticks) / 1000, atol=1e-3)
    with open_source(tmp_path / "o.mp4") as overlay:
        assert overlay.size == (62, 74)
        np.testing.assert_allclose([f.time_s for f in overlay], times, atol=1e-5)


@pytest.mark.parametrize("where", ["while running", "at the end"])
def test_ctrl_c_keeps_what_was_found(tmp_path, sinks, landmarker, blob_video, where):
    path, points = blob_video
    after = 10 if where == "while running" else 24

    def press(num_done):
        if num_done == after:
            signal.raise_signal(signal.SIGINT)

    with open_source(path) as source, pytest.raises(KeyboardInterrupt) as caught:
        detect(source, landmarker, FULL, sinks, 2, press)
    assert isinstance(caught.value, Interrupted) and caught.value.summary.frames == after
    rows = _rows(tmp_path / "o.csv")
    assert len(rows) == after and abs(float(rows[-1]["red_x"]) - points[after - 1][0]) < 1
    with open_source(tmp_path / "o.mp4") as overlay:
        assert sum(1 for _ in overlay) == after
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.csv", "o.mp4"]


@pytest.mark.parametrize("early", [True, False], ids=["while running", "after the last frame"])
def test_ctrl_c_does_not_replace_earlier_results(tmp_path, landmarker, blob_video, early):
    """Sinks of which an earlier file is there keep it, unless the new one is complete."""
    (tmp_path / "o.csv").write_text("yesterday's")

    class Pressing(CsvSink):
        def close(self):  # in the writer's thread; the caller waits for it
            super().close()
            if not early:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                threading.Event().wait(0.1)  # the caller must not go on without the other sink

    def press(num_done):
        if early and num_done == 10:
            signal.raise_signal(signal.SIGINT)

    sinks = [
        Pressing(tmp_path / "o.csv", landmarker.names),
        CsvSink(tmp_path / "new.csv", landmarker.names),
    ]
    with open_source(blob_video[0]) as source, pytest.raises(Interrupted) as caught:
        detect(source, landmarker, FULL, sinks, 2, press)
    assert len(_rows(tmp_path / "new.csv")) == (10 if early else 24)
    if early:
        assert (tmp_path / "o.csv").read_text() == "yesterday's"
        message = "interrupted after 10 frames; the earlier results are untouched"
    else:
        assert len(_rows(tmp_path / "o.csv")) == 24
        message = "interrupted after 24 frames; what was found is kept"
    assert str(caught.value) == message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.csv", "o.csv"]


@pytest.mark.parametrize("error", [RuntimeError("boom"), UserError("disk is full")])
def test_error_in_a_sink_reaches_the_caller(tmp_path, landmarker, blob_video, error):
    broken = _Broken(tmp_path / "broken.csv", landmarker.names)
    broken.error = error
    sinks = [OverlayVideoSink(tmp_path / "o.mp4"), broken]
    with open_source(blob_video[0]) as source, pytest.raises(type(error), match=str(error)):
        detect(source, landmarker, FULL, sinks, 1)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_in_the_middle(tmp_path, landmarker, blob_video):
    sink = CsvSink(tmp_path / "o.csv", landmarker.names)
    (tmp_path / "o.csv").write_text("yesterday's")

    def fill_the_disk(num_done):
        def no_space(rows):
            raise OSError(errno.ENOSPC, "No space left on device")

        sink._writer = type("Full", (), {"writerows": staticmethod(no_space)})

    with open_source(blob_video[0]) as source, pytest.raises(UserError, match="disk is full"):
        detect(source, landmarker, FULL, [sink], 2, fill_the_disk)
    assert (tmp_path / "o.csv").read_text() == "yesterday's"
    assert [p.name for p in tmp_path.iterdir()] == ["o.csv"]


def test_error_in_the_roi_and_in_the_source(tmp_path, landmarker, blob_video):
    sink = CsvSink(tmp_path / "o.csv", landmarker.names)
    with open_source(blob_video[0]) as source, pytest.raises(UserError, match="within the frame"):
        detect(source, landmarker, parse_roi("0,0,500,500"), [sink], 2)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    with open_source(tmp_path / "in") as source, pytest.raises(UserError, match="cannot be read"):
        detect(source, landmarker, FULL, [sink], 2)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_error_in_the_model(tmp_path, landmarker, blob_video, monkeypatch):
    def fail(crops, boxes):
        raise RuntimeError("no model")

    monkeypatch.setattr(landmarker, "locate", fail)
    sink = CsvSink(tmp_path / "o.csv", landmarker.names)
    with open_source(blob_video[0]) as source, pytest.raises(RuntimeError, match="no model"):
        detect(source, landmarker, FULL, [sink], 2)
    assert list(tmp_path.iterdir()) == []


def test_sink_that_does_not_open(tmp_path, landmarker, blob_video):
    (tmp_path / "file").write_text("")
    sinks = [CsvSink(tmp_path / "o.csv", "ab"), CsvSink(tmp_path / "file" / "o.csv", "ab")]
    with (
        open_source(blob_video[0]) as source,
        pytest.raises(UserError, match="file: is a file, expected a folder"),
    ):
        detect(source, landmarker, FULL, sinks, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_frames_alive_are_bounded(tmp_path, landmarker, blob_image):
    """A slow sink holds the decoder back: no more than five batches are ever alive."""
    alive = {"now": 0, "most": 0}

    class Counting:
        path, num_frames, frame_rate, time_base = tmp_path, 60, None, None
        size, skipped = None, []

        def __iter__(self):
            from lmk.runtime.detection import Frame

            for index in range(60):
                alive["now"] += 1
                alive["most"] = max(alive.values())
                yield Frame("x", index, 0.0, blob_image(20, 20, 9, 9))

        def close(self):
            pass

    class Slow(CsvSink):
        def write(self, frame, detections):
            threading.Event().wait(0.005)
            alive["now"] -= 1

    detect(Counting(), landmarker, FULL, [Slow(tmp_path / "o.csv", landmarker.names)], 2)
    assert alive["now"] == 0 and alive["most"] <= 5 * 2 + 1


def test_batch_size_is_checked(landmarker, blob_video):
    with (
        open_source(blob_video[0]) as source,
        pytest.raises(ValueError, match="batch_size: got 0"),
    ):
        detect(source, landmarker, FULL, [], 0)


def test_real_video(tmp_path, sinks, data_root, landmarker):
    with open_source(data_root / "videos" / "face_carphone.mp4") as source:
        summary = detect(source, landmarker, parse_roi("center"), sinks, 8)
        rate = source.frame_rate
    assert summary.frames == 120 == len(_rows(tmp_path / "o.csv"))
    with open_source(tmp_path / "o.mp4") as overlay:
        assert overlay.frame_rate == rate and overlay.num_frames == 120
