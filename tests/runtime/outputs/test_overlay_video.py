"""Frames with what was found -> a video or PNGs of the same form, with the points on them."""

import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from lmk.runtime import files
from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.outputs.overlay_images import OverlayImageSink
from lmk.runtime.outputs.overlay_video import OverlayVideoSink
from lmk.runtime.outputs.painter import Style
from lmk.runtime.sources.open import open_source

NAMES = ("nose", "tail")


def _frame(image, index=0, time_s=0.0, source="v.mp4"):
    return Frame(source, index, time_s, image)


def _detections(*tracks, at=(30.0, 20.0)):
    points = np.array([[1.25, 2.5], at], np.float32)
    scores = np.array([0.5, 1.0], np.float32)
    return [Detection(points, scores, (0.0, 0.0, 64.0, 48.5), track) for track in tracks or (0,)]


def _video(height=48, width=64, time_base=Fraction(1, 1000)):
    """What a sink has to know of a video source."""
    return SimpleNamespace(
        path=Path("/elsewhere/v.mp4"),
        frame_rate=Fraction(25),
        time_base=time_base,
        size=(height, width),
        colours=None,
        start_s=None,
        pixel_aspect=Fraction(1),
    )


def _images():
    return SimpleNamespace(path=Path("/elsewhere"), frame_rate=None, time_base=None, size=None)


def _grey(height=48, width=64):
    return np.full((height, width, 3), 100, np.uint8)


def _written(tmp_path, frames, source=None, **options):
    """Write the frames (frame, detections) and read the overlay back."""
    sink = OverlayVideoSink(tmp_path / "out.mp4", **options)
    sink.open(source or _video())
    for frame, detections in frames:
        sink.write(frame, detections)
    sink.close()
    with open_source(tmp_path / "out.mp4") as written:
        return written, list(written)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63), (2, 2), (1, 1)])
def test_overlay_has_the_size_of_the_source_and_its_points(tmp_path, height, width):
    frames = [(_frame(_grey(height, width), n, n / 25), _detections()) for n in range(4)]
    source, written = _written(tmp_path, frames, _video(height, width))
    even = (height + height % 2, width + width % 2)
    assert source.size == even and source.frame_rate == 25 and len(written) == 4
    if height > 40:
        disc = np.abs(written[0].image[20, 30].astype(int) - 100).max()
        rest = np.abs(written[0].image[40:, 5:15].astype(int) - 100).max()
        assert disc > 40 and rest < 8


def test_overlay_keeps_variable_times(tmp_path):
    ticks = [0, 40, 100, 101, 300, 1000]
    frames = [(_frame(_grey(), n, tick / 1000), _detections()) for n, tick in enumerate(ticks)]
    _, written = _written(tmp_path, frames)
    np.testing.assert_allclose([f.time_s for f in written], np.array(ticks) / 1000, atol=1e-6)


def test_overlay_of_a_picture_every_two_seconds_and_wide_pixels(tmp_path):
    frames = [(_frame(_grey(), n, 2.0 * n), _detections()) for n in range(6)]
    slow = _video()
    slow.frame_rate, slow.pixel_aspect = Fraction(1, 2), Fraction(4, 3)
    source, written = _written(tmp_path, frames, slow)
    assert [frame.time_s for frame in written] == [0, 2, 4, 6, 8, 10]
    assert source.pixel_aspect == Fraction(4, 3)


def test_overlay_survives_repeated_times_and_a_change_of_size(tmp_path):
    pictures = [(0, _grey()), (0, _grey(96, 96)), (0.001, _grey())]
    frames = [(_frame(p, n, time_s), _detections()) for n, (time_s, p) in enumerate(pictures)]
    _, written = _written(tmp_path, frames)
    assert [frame.image.shape for frame in written] == [(48, 64, 3)] * 3


def test_overlay_without_a_frame_is_an_empty_mp4(tmp_path):
    sink = OverlayVideoSink(tmp_path / "out.mp4")
    sink.open(_video())
    sink.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert "mp4" in container.format.name
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_frames_given_are_untouched(tmp_path):
    image = _grey()
    for sink in (OverlayVideoSink(tmp_path / "o.mp4"), OverlayImageSink(tmp_path / "o")):
        sink.open(_video())
        sink.write(_frame(image), _detections())
        sink.close()
        assert (image == 100).all()


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    video = OverlayVideoSink(tmp_path / "out.mp4")
    with pytest.raises(UserError, match="got images, expected a video"):
        video.open(_images())
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(UserError, match="without the encoder libx264; `pip install"):
        video.open(_video())
    images = SimpleNamespace(**(vars(_images()) | {"path": tmp_path}))
    with pytest.raises(UserError, match="in the place of the source"):
        OverlayImageSink(tmp_path).open(images)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: not Linux")
@pytest.mark.parametrize("full", ["work/out/.000000001.00000000.nut", ".out.00000000.mp4"])
def test_full_disk_is_one_line(tmp_path, monkeypatch, full):
    """A temporary file is a link to the device that is always full: real errors, real code."""
    monkeypatch.setattr(files.uuid, "uuid4", lambda: SimpleNamespace(hex="0" * 32))
    sink = OverlayVideoSink(tmp_path / "out.mp4", work=tmp_path / "work")
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    sink.open(_video())
    sink.write(_frame(noise), _detections())
    sink.checkpoint()
    (tmp_path / full).symlink_to("/dev/full")
    with pytest.raises(UserError, match="out.mp4: the disk is full"):
        for index in range(1, 200):
            sink.write(_frame(noise, index, index / 25), _detections())
        sink.close()
    sink.abort()
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert set(left) - {"000000001.nut"} == {"000000000.nut"}


def _walk(count):
    """Frames of noise and an object that walks, from frame 3 on two."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), dtype=np.uint8)
    for index, image in enumerate(noise):
        tracks = (0,) if index < 3 else (0, 1)
        yield _frame(image, index, index / 25), _detections(*tracks, at=(5.0 + 2 * index, 20.0))


def _run(sink, stop=None, replayed=0, chunk=4, count=14):
    sink.open(_video())
    for frame, detections in list(_walk(count))[:stop]:
        if frame.index < replayed:
            blank = np.broadcast_to(np.uint8(0), frame.image.shape)
            sink.replay(_frame(blank, frame.index, frame.time_s), detections)
        else:
            sink.write(frame, detections)
        if (frame.index + 1) % chunk == 0:
            sink.checkpoint()
    return sink


STYLE = Style(trails=5, names=True, skeleton=(NAMES,))
MAKE = {
    "video": lambda path, work: OverlayVideoSink(path.with_suffix(".mp4"), NAMES, STYLE, work),
    "images": lambda path, work: OverlayImageSink(path, NAMES, STYLE, work),
}


def _contents(path):
    """The bytes of the file or files."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path.with_suffix(".mp4")]
    return [(file.name.replace(path.name, ""), file.read_bytes()) for file in found]


@pytest.mark.parametrize("stop", [6, 8])
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_run_that_broke_off_ends_byte_for_byte(tmp_path, make, stop):
    _run(make(tmp_path / "whole", tmp_path / "w1")).close()
    lost = _run(make(tmp_path / "broken", tmp_path / "w2"), stop)  # killed here
    _run(make(tmp_path / "broken", tmp_path / "w2"), replayed=stop // 4 * 4).close()
    assert _contents(tmp_path / "broken") == _contents(tmp_path / "whole")
    assert len(_contents(tmp_path / "whole")) in (1, 14)
    lost.abort()


@pytest.mark.parametrize("ending", ["close", "abort"])
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_what_a_checkpoint_kept_outlives_close_and_abort(tmp_path, make, ending):
    _run(make(tmp_path / "whole", tmp_path / "w1")).close()
    getattr(_run(make(tmp_path / "broken", tmp_path / "w2"), 10), ending)()  # Ctrl-C, or an error
    again = _run(make(tmp_path / "broken", tmp_path / "w2"), replayed=8)
    assert again.replaces is (ending == "close")
    again.close()
    assert _contents(tmp_path / "broken") == _contents(tmp_path / "whole")


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_kept_pictures_that_are_gone_are_told(tmp_path, make):
    _run(make(tmp_path / "o", tmp_path / "w"), 6)
    shutil.rmtree(tmp_path / "w")
    sink = _run(make(tmp_path / "o", tmp_path / "w"), replayed=4)
    with pytest.raises(UserError, match="got .*; run again without --resume"):
        sink.close()
    sink.abort()
    assert not (tmp_path / "o").exists() and not (tmp_path / "o.mp4").exists()


def test_images_are_pngs_under_their_names(tmp_path):
    sink = OverlayImageSink(tmp_path)
    sink.open(_images())
    for name in ("a/pal.gif", "a/pal.gif.png", "a/pal.png", "b/CAT.PNG"):
        sink.write(_frame(_grey(), source=name), _detections())
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
        sink.write(_frame(_grey(), source="cat.png"), _detections())
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
        sink.write(_frame(_grey(), index), _detections())
    sink.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v_000000.png", "v_000001.png"]


def test_images_of_a_folder_have_no_trails(tmp_path):
    sink = OverlayImageSink(tmp_path, NAMES, Style(trails=9))
    sink.open(_images())
    for name, at in (("a.png", (10.0, 40.0)), ("b.png", (60.0, 40.0))):
        sink.write(_frame(_grey(), source=name), _detections(at=at))
    sink.close()
    assert (np.asarray(Image.open(tmp_path / "b.png"))[40, 20:50] == 100).all()
