"""Detections -> files that are whole or absent, and say so when the disk is full."""

import csv
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from lmk.runtime import files
from lmk.runtime.errors import UserError
from lmk.runtime.landmarker import Detection
from lmk.runtime.sinks import CsvSink, OverlayImageSink, OverlayVideoSink
from lmk.runtime.sources import Frame, open_source


def _frame(image, index=0, time_s=0.0, source="v.mp4"):
    return Frame(source, index, time_s, image)


def _detection():
    points = np.array([[1.25, 2.5], [30.0, 20.0]], np.float32)
    return Detection(points, np.array([0.5, 1.0], np.float32), (0.0, 0.0, 64.0, 48.5))


def _video(height=48, width=64, time_base=Fraction(1, 1000)):
    """What a sink has to know of a video source."""
    return SimpleNamespace(
        path=Path("/elsewhere/v.mp4"),
        frame_rate=Fraction(25),
        time_base=time_base,
        size=(height, width),
    )


def _images():
    return SimpleNamespace(path=Path("/elsewhere"), frame_rate=None, time_base=None, size=None)


def _grey(height=48, width=64):
    return np.full((height, width, 3), 100, np.uint8)


def test_csv_has_a_row_per_frame_by_name(tmp_path):
    sink = CsvSink(tmp_path / "new" / "out.csv", ["nose", "tail"])
    sink.open(_video())
    for index in range(3):
        sink.write(_frame(_grey(), index, index / 25), _detection())
    sink.close()
    with open(tmp_path / "new" / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("source", "frame", "time_s", "box_x", "box_y", "box_w", "box_h"),
        *("nose_x", "nose_y", "nose_score", "tail_x", "tail_y", "tail_score"),
    ]
    assert [row["frame"] for row in rows] == ["0", "1", "2"]
    assert float(rows[2]["time_s"]) == 0.08 and float(rows[0]["box_h"]) == 48.5
    assert float(rows[1]["nose_x"]) == 1.25 and float(rows[1]["tail_score"]) == 1.0


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63), (2, 2), (1, 1)])
def test_overlay_has_the_size_of_the_source_and_its_points(tmp_path, height, width):
    path = tmp_path / "out.mp4"
    sink = OverlayVideoSink(path)
    sink.open(_video(height, width))
    for index in range(4):
        sink.write(_frame(_grey(height, width), index, index / 25), _detection())
    sink.close()
    with open_source(path) as source:
        frames = list(source)
        even = (height + height % 2, width + width % 2)
        assert source.size == even and source.frame_rate == 25 and len(frames) == 4
    if height > 40:
        disc = np.abs(frames[0].image[20, 30].astype(int) - 100).max()
        rest = np.abs(frames[0].image[40:, 5:15].astype(int) - 100).max()
        assert disc > 40 and rest < 8


def test_overlay_keeps_variable_times(tmp_path):
    ticks = [0, 40, 100, 101, 300, 1000]
    sink = OverlayVideoSink(tmp_path / "out.mp4")
    sink.open(_video())
    for index, tick in enumerate(ticks):
        sink.write(_frame(_grey(), index, tick / 1000), _detection())
    sink.close()
    with open_source(tmp_path / "out.mp4") as source:
        np.testing.assert_allclose([f.time_s for f in source], np.array(ticks) / 1000, atol=1e-6)


def test_overlay_survives_repeated_times_and_a_change_of_size(tmp_path):
    sink = OverlayVideoSink(tmp_path / "out.mp4")
    sink.open(_video())
    for index, (time_s, image) in enumerate([(0, _grey()), (0, _grey(96, 96)), (0.001, _grey())]):
        sink.write(_frame(image, index, time_s), _detection())
    sink.close()
    with open_source(tmp_path / "out.mp4") as source:
        assert [frame.image.shape for frame in source] == [(48, 64, 3)] * 3


def test_overlay_of_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="got images, expected a video"):
        OverlayVideoSink(tmp_path / "out.mp4").open(_images())


def test_missing_encoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(UserError, match="without the encoder libx264; `pip install"):
        OverlayVideoSink(tmp_path / "out.mp4").open(_video())


def test_source_is_never_overwritten(tmp_path):
    path = tmp_path / "v.mp4"
    source = SimpleNamespace(**(vars(_video()) | {"path": path}))
    with pytest.raises(UserError, match="in the place of the source"):
        OverlayVideoSink(path).open(source)
    images = SimpleNamespace(**(vars(_images()) | {"path": tmp_path}))
    with pytest.raises(UserError, match="in the place of the source"):
        OverlayImageSink(tmp_path).open(images)


@pytest.mark.parametrize(
    "make", [lambda path: CsvSink(path, ["a", "b"]), OverlayVideoSink], ids=["csv", "video"]
)
def test_abort_leaves_nothing_and_keeps_the_old(tmp_path, make):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    sink = make(path)
    sink.abort()  # before open
    sink.open(_video())
    sink.write(_frame(_grey()), _detection())
    sink.abort()
    sink.abort()
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: not Linux")
@pytest.mark.parametrize(
    "make", [lambda path: CsvSink(path, ["a", "b"]), OverlayVideoSink], ids=["csv", "video"]
)
def test_full_disk_is_one_line(tmp_path, monkeypatch, make):
    """The temporary file is a link to the device that is always full: real errors, real code."""
    monkeypatch.setattr(files.uuid, "uuid4", lambda: SimpleNamespace(hex="0" * 32))
    (tmp_path / ".out.00000000.mp4").symlink_to("/dev/full")
    sink = make(tmp_path / "out.mp4")
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with pytest.raises(UserError, match="out.mp4: the disk is full"):
        sink.open(_video())
        for index in range(200):
            sink.write(_frame(noise, index, index / 25), _detection())
        sink.close()
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_images_are_pngs_under_their_names(tmp_path):
    sink = OverlayImageSink(tmp_path)
    sink.open(_images())
    for name in ("a/pal.gif", "a/pal.gif.png", "a/pal.png", "b/CAT.PNG"):
        sink.write(_frame(_grey(), source=name), _detection())
    sink.close()
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert written == ["a/pal.gif.png", "a/pal.gif.png.png", "a/pal.png"]
    drawn = np.asarray(Image.open(tmp_path / "b/CAT.PNG"))
    assert drawn.shape == (48, 64, 3) and (drawn[20, 30] != 100).any()


@pytest.mark.parametrize("existing", [True, False])
def test_images_appear_at_close_or_not_at_all(tmp_path, existing):
    folder = tmp_path / "overlay"
    if existing:
        folder.mkdir()
        (folder / "cat.png").write_bytes(b"old")
    for end in ("abort", "close"):
        sink = OverlayImageSink(folder)
        sink.abort()  # before open
        sink.open(_images())
        assert sink.replaces is existing
        sink.write(_frame(_grey(), source="cat.png"), _detection())
        assert folder.exists() is existing
        assert not existing or (folder / "cat.png").read_bytes() == b"old"
        getattr(sink, end)()
        assert [path.name for path in tmp_path.iterdir()] == ["overlay"] * (
            existing or end == "close"
        )
    assert Image.open(folder / "cat.png").size == (64, 48)


def test_images_of_a_video_are_numbered(tmp_path):
    sink = OverlayImageSink(tmp_path)
    sink.open(_video())
    for index in range(2):
        sink.write(_frame(_grey(), index), _detection())
    sink.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v_000000.png", "v_000001.png"]
