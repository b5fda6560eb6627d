"""Decoding on a device: that asked for or none; here the device is never there."""

import numpy as np
import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.sources import medium
from lmk.runtime.sources.medium import candidates
from lmk.runtime.sources.open import open_source


@pytest.fixture
def path(tmp_path, write_video):
    return write_video(tmp_path / "v.mkv", [np.zeros((32, 32, 3), np.uint8)] * 4, codec="ffv1")


def test_processor_unless_asked():
    assert candidates(None, True) == [None]


def test_auto_tries_every_kind_then_the_processor(monkeypatch):
    monkeypatch.setattr(medium, "device_kinds", lambda: ["cuda", "vaapi"])
    assert candidates("auto", True) == ["cuda", "vaapi", None]
    assert candidates("auto", False) == [None]  # a pipe can be opened once
    assert candidates("vaapi", False) == ["vaapi"]


def test_unknown_kind_names_the_known(monkeypatch, path):
    monkeypatch.setattr(medium, "device_kinds", lambda: ["cuda", "vaapi"])
    with pytest.raises(UserError, match=r"hwaccel: got 'gpu', expected auto .*\(cuda vaapi\)"):
        open_source(path, hwaccel="gpu")


def test_device_that_cannot_decode_it_is_refused(path):
    """No device decodes FFV1 in any FFmpeg."""
    for kind in medium.device_kinds():
        with pytest.raises(UserError, match=f"v.mkv: cannot be decoded on {kind} .*processor"):
            open_source(path, hwaccel=kind)


def test_auto_says_what_it_took(path):
    with open_source(path, hwaccel="auto") as source:
        assert source.decoder.startswith("ffv1 (software, ")
        assert len(list(source)) == 4


def test_damaged_file_is_not_blamed_on_the_device(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"x" * 999)
    for kind in medium.device_kinds():
        with pytest.raises(UserError, match="v.mp4: cannot be opened as a video"):
            open_source(tmp_path / "v.mp4", hwaccel=kind)


@pytest.mark.gpu
def test_frames_from_the_gpu_are_those_of_the_processor(tmp_path, write_video):
    """NVDEC is exact: H.264 leaves nothing open."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 160, 256, 3), np.uint8)
    path = write_video(tmp_path / "v.mp4", list(noise))
    try:
        on_gpu = open_source(path, hwaccel="cuda")
    except UserError as error:
        pytest.skip(str(error))
    with on_gpu, open_source(path) as on_processor:
        assert on_gpu.decoder == "h264 (cuda)"
        for frame, other in zip(on_gpu, on_processor, strict=True):
            assert (frame.index, frame.time_s) == (other.index, other.time_s)
            assert np.abs(frame.image.astype(int) - other.image).max() <= 2  # NV12, not YUV 4:2:0
