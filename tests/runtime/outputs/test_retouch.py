"""What is painted is seen; what is not painted stays as the camera saw it."""

import av
import numpy as np
import pytest

from lmk.runtime.detection import Detection
from lmk.runtime.outputs.overlay_video import OverlayVideoSink
from lmk.runtime.outputs.retouch import Retoucher, whole_tiles
from lmk.runtime.sources.open import open_source
from lmk.runtime.sources.pictures import colours_of, matrix_and_range


def _planes(frame):
    return [
        np.frombuffer(memoryview(plane), np.uint8)
        .reshape(-1, plane.line_size)[: plane.height, : plane.width]
        .copy()
        for plane in frame.planes
    ]


@pytest.fixture(params=[(50, 68), (48, 64)])
def frames(request, tmp_path, blob_image, write_video):
    """Four decoded frames; the rows of the first size are no whole number of eight bytes."""
    pictures = [blob_image(*request.param, 30 + index, 24) for index in range(4)]
    with open_source(write_video(tmp_path / "v.mp4", pictures)) as source:
        return list(source)


def test_only_what_is_painted_changes(frames):
    frame = frames[1]
    painted = frame.image.copy()
    painted[11:20, 31:40] = (255, 0, 0)
    before = _planes(frame.native)
    after = _planes(Retoucher()(frame.native, frame.image, painted))
    window = whole_tiles(painted, slice(11, 20), slice(31, 40))
    stale = np.zeros_like(painted)
    stale[window] = painted[window]
    for one, other in zip(
        _planes(Retoucher()(frame.native, frame.image, stale, window)), after, strict=True
    ):
        np.testing.assert_array_equal(one, other)
    changed = [a != b for a, b in zip(before, after, strict=True)]
    assert changed[0][11:20, 31:40].all() and changed[0].sum() == 81
    assert not changed[1][:5].any() and not changed[1][10:].any() and changed[1].any()
    np.testing.assert_array_equal(_planes(frame.native)[0], before[0])  # the decoder's own
    pure = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    red = av.VideoFrame.from_ndarray(pure, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=5, dst_color_range=1
    )
    assert abs(int(after[0][15, 35]) - int(_planes(red)[0][0, 0])) <= 1


def test_nothing_painted_is_a_copy(frames):
    frame = frames[0]
    copy = Retoucher()(frame.native, frame.image, frame.image.copy())
    for ours, theirs in zip(_planes(copy), _planes(frame.native), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("colours", "meant"),
    [((2, 0, 2, 2), (5, 1)), ((1, 2, 1, 1), (1, 2)), ((9, 1, 9, 9), (9, 1))],
)
def test_what_is_not_said_is_601_in_limited_range(colours, meant):
    assert matrix_and_range(colours) == meant


def test_an_overlay_keeps_the_colours_of_its_source(tmp_path, frames, blob_image, write_video):
    path = tmp_path / "v.mp4"
    nothing = Detection(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), (0, 0, 9, 9))
    with open_source(path) as source:
        said = source.colours
        sink = OverlayVideoSink(tmp_path / "o.mp4")
        sink.open(source)
        for frame in source:
            sink.write(frame, [nothing])
        sink.close()
    with open_source(tmp_path / "o.mp4") as overlay:
        assert said is not None and overlay.colours == said
        for ours, theirs in zip(overlay, frames, strict=True):
            assert np.abs(ours.image.astype(int) - theirs.image).mean() < 2
            assert colours_of(ours.native) == said


def test_odd_turned_and_deep_frames_are_not_native(tmp_path, blob_image, write_video):
    pictures = [blob_image(40, 40, 20, 20)] * 2
    turned = write_video(tmp_path / "turned.mp4", pictures, rotation=90)
    deep = write_video(tmp_path / "deep.mkv", pictures, pix_fmt="yuv420p10le")
    for path in (turned, deep):
        with open_source(path) as source:
            assert source.colours is None
            assert all(frame.native is None for frame in source)
