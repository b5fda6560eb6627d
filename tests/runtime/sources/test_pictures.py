"""Colours, orientation and interlacing of decoded frames, down to known pixels."""

import gc

import av
import numpy as np
import pytest

from lmk.runtime.sources.open import open_source
from lmk.runtime.sources.pictures import Converter, turn_upright

COLOURS = ((220, 30, 30), (30, 220, 30), (30, 30, 220), (255, 255, 255), (0, 0, 0), (90, 120, 60))
# AVColorSpace: weights of red and blue in the luma, by the standards' texts
MATRICES = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}


def _planes(rgb, red, blue, is_full, bits):
    """Y, Cb, Cr of a colour by the defining equations."""
    r, g, b = (value / 255 for value in rgb)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    one = 2 ** (bits - 8)
    if is_full:
        top = 256 * one - 1
        return [round(top * y), *(round(128 * one + top * c) for c in (cb, cr))]
    return [round((16 + 219 * y) * one), *(round((128 + 224 * c) * one) for c in (cb, cr))]


def _flat(values, form):
    frame = av.VideoFrame(16, 16, form)
    for plane, value in zip(frame.planes, values, strict=True):
        is_wide = "10" in form
        item = int(value).to_bytes(2, "little") if is_wide else bytes([value])
        plane.update(item * (plane.buffer_size // len(item)))
    return frame


@pytest.mark.parametrize("form", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colours_by_matrix_and_range(matrix, is_full, form):
    for rgb in COLOURS:
        planes = _planes(rgb, *MATRICES[matrix], is_full, 10 if "10" in form else 8)
        frame = _flat(planes, form)
        frame.colorspace, frame.color_range = matrix, 2 if is_full else 1
        pixel = Converter().convert(frame)[8, 8].astype(int)
        assert np.abs(pixel - rgb).max() <= 3, (rgb, pixel)


def test_unknown_matrix_is_told():
    frame = _flat([81, 90, 240], "yuv444p")
    frame.colorspace = 8  # YCgCo
    converter = Converter()
    assert converter.convert(frame).shape == (16, 16, 3)
    assert converter.odd_matrix == 8


def test_grey_and_palette():
    assert (Converter().convert(_flat([77], "gray")) == 77).all()
    frame = av.VideoFrame(16, 16, "pal8")
    indices, palette = frame.planes
    indices.update(bytes([1]) * indices.buffer_size)
    colours = np.zeros((256, 4), np.uint8)
    colours[1] = 30, 20, 10, 255  # as B, G, R, A
    palette.update(colours.tobytes())
    assert (Converter().convert(frame) == (10, 20, 30)).all()


def test_alpha_is_laid_over_white():
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:8] = 100, 50, 0, 255
    pixels[8:] = 100, 50, 0, 0
    picture = Converter().convert(av.VideoFrame.from_ndarray(pixels, format="rgba"))
    assert (picture[:8] == (100, 50, 0)).all() and (picture[8:] == 255).all()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_display_matrix(tmp_path, write_video, rotation, mirrored):
    """The fixture's matrix turns counter-clockwise, then mirrors."""
    stored = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    shown = np.rot90(stored, rotation // 90)
    shown = shown[:, ::-1] if mirrored else shown
    path = tmp_path / "v.mov"
    write_video(
        path, [stored] * 2, codec="png", pix_fmt="rgb24", rotation=rotation, mirrored=mirrored
    )
    with open_source(path) as source:
        assert source.size == shown.shape[:2]
        for frame in source:
            np.testing.assert_array_equal(frame.image, shown)


def test_orientation_in_words():
    pixels = np.arange(24).reshape(2, 4, 3).astype(np.uint8)
    assert turn_upright(pixels, (True, True, False)).shape == (4, 2, 3)
    np.testing.assert_array_equal(turn_upright(pixels, (True, True, False)), np.rot90(pixels))
    np.testing.assert_array_equal(turn_upright(pixels, (True, False, True)), np.rot90(pixels, 3))
    assert turn_upright(pixels, (False, True, True)).flags.c_contiguous


def _combed(number, height=64, width=96):
    """A bar whose odd lines were recorded half a frame later, 4 pixels further."""
    picture = np.full((height, width, 3), 20, np.uint8)
    left = 8 + 8 * number
    picture[::2, left : left + 16] = 220
    picture[1::2, left + 4 : left + 20] = 220
    return picture


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_interlaced_frames_lose_their_combs(tmp_path, write_video, pix_fmt):
    pictures = [_combed(number) for number in range(8)]
    coding = {"x264-params": "tff=1", "crf": "4"}
    path = write_video(tmp_path / "v.mkv", pictures, pix_fmt=pix_fmt, coding=coding)
    with open_source(path) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(8))  # the rate stays
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(8) / 25, atol=1e-6)
    for frame, picture in zip(frames[1:-1], pictures[1:-1], strict=True):
        assert _comb(frame.image) < 0.3 * _comb(picture)
        changes = np.abs(frame.image.astype(int) - picture).mean(axis=(1, 2))
        assert min(changes[::2].mean(), changes[1::2].mean()) < 4  # the first field stays


def _comb(picture):
    """Mean difference between a line and the mean of those beside it."""
    grey = picture.astype(float).mean(axis=2)
    return np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean()


def test_size_may_change_half_way(tmp_path, write_video):
    parts = []
    for height, width in ((48, 64), (32, 80)):
        pictures = [np.full((height, width, 3), 90, np.uint8)] * 6
        parts.append(write_video(tmp_path / "part.h264", pictures).read_bytes())
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(parts))
    with open_source(path) as source:
        assert source.size == (48, 64)
        frames = list(source)
    assert [frame.image.shape[:2] for frame in frames] == [(48, 64)] * 6 + [(32, 80)] * 6
    assert [frame.index for frame in frames] == list(range(12))


def test_frames_go_when_they_are_no_longer_held(tmp_path, write_video):
    """Each holds pictures of its decoder: in a circle they would wait for Python's collector."""
    path = write_video(tmp_path / "v.mp4", [np.zeros((32, 32, 3), np.uint8)] * 9)

    def frames():
        return {id(o) for o in gc.get_objects() if isinstance(o, av.VideoFrame)}

    gc.collect()
    gc.disable()
    try:
        before = frames()
        with open_source(path) as source:
            assert sum(frame.image.sum() == 0 for frame in source) == 9
        del source
        assert frames() <= before
    finally:
        gc.enable()
