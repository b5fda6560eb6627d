"""Videos as they come: odd, turned, of variable rate, damaged, without pictures."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest

from lmk.runtime.errors import UserError
from lmk.runtime.sources import video
from lmk.runtime.sources.open import open_source


def _numbered(count, height=48, width=64):
    """Frames of one grey each, 8 levels apart: which frame it is can be read off it."""
    return [np.full((height, width, 3), 20 + 8 * index, np.uint8) for index in range(count)]


def _numbers(frames):
    return [round((float(frame.image.mean()) - 20) / 8) for frame in frames]


def test_plain_video(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", _numbered(10))
    with open_source(path) as source:
        assert source.size == (48, 64) and source.num_frames == 10
        assert source.frame_rate == Fraction(25)
        frames = list(source)
        assert source.skipped == []
    assert _numbers(frames) == list(range(10))
    assert [frame.index for frame in frames] == list(range(10))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(10) / 25, atol=1e-6)
    assert {frame.source for frame in frames} == {"v.mp4"}


@pytest.mark.parametrize(("height", "width"), [(47, 63), (1, 2), (17, 16)])
def test_odd_sizes(tmp_path, write_video, height, width):
    pictures = _numbered(3, height, width)
    path = write_video(tmp_path / "v.mkv", pictures, codec="ffv1", pix_fmt="bgr0")
    with open_source(path) as source:
        assert source.size == (height, width)
        frames = list(source)
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)


@pytest.mark.parametrize(
    ("name", "ticks"), [("v.mp4", [0, 40, 100, 101, 300, 340, 1000]), ("v.mkv", [5000, 5040, 5080])]
)
def test_times_are_kept_and_start_with_the_first_frame(tmp_path, write_video, name, ticks):
    with open_source(write_video(tmp_path / name, _numbered(len(ticks)), ticks=ticks)) as source:
        frames = list(source)
        with pytest.raises(ValueError, match="open it again"):
            list(source)
        with pytest.raises(ValueError, match="open it again"):
            source.resume_after(1)
    expected = (np.array(ticks) - ticks[0]) / 1000
    np.testing.assert_allclose([f.time_s for f in frames], expected, atol=1e-6)


def test_truncated_video_gives_what_it_has(tmp_path, write_video, caplog):
    caplog.set_level("DEBUG")
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    # The index first, as in a file for the web: it outlives the end.
    whole = write_video(
        tmp_path / "w.mp4", list(noise), options={"movflags": "faststart"}
    ).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    with open_source(path) as source:
        frames = list(source)
        assert 5 < len(frames) < 25
        assert [frame.index for frame in frames] == list(range(len(frames)))
        assert any("of 30 packets" in line for line in source.skipped), source.skipped
    assert "cut.mp4" in caplog.text


def test_corrupt_packets_are_counted_and_numbers_go_on(tmp_path, write_video):
    path = write_video(tmp_path / "v.mov", _numbered(12), codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 8] == b"\x89PNG\r\n\x1a\n"]
    for start in starts[3:5]:
        data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
        assert source.skipped == [f"{path}: 2 corrupt packets, 2 frames lost"]
    assert _numbers(frames) == [0, 1, 2, 5, 6, 7, 8, 9, 10, 11]
    assert [frame.index for frame in frames] == _numbers(frames)  # still those of the whole file
    assert frames[3].time_s == pytest.approx(0.2)


def test_corrupt_packet_near_the_end_is_reported(tmp_path, write_video):
    path = write_video(tmp_path / "v.mov", _numbered(8), codec="png", pix_fmt="rgb24")
    data = path.read_bytes()
    last_but_one = data.rfind(b"\x89PNG", 0, data.rfind(b"\x89PNG"))
    path.write_bytes(data[:last_but_one] + bytes(8) + data[last_but_one + 8 :])
    with open_source(path) as source:
        numbers = _numbers(source)
        assert numbers[:6] == list(range(6))
        missing = 8 - len(numbers)  # 1 or, where the decoder has threads, more
        assert source.skipped[0] == f"{path}: 1 corrupt packets, {missing} frames lost"


def test_video_that_lost_its_index(tmp_path, write_video):
    path = write_video(tmp_path / "v.mp4", _numbered(10))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="v.mp4: cannot be opened as a video"):
        open_source(path)


def test_no_frame_can_be_decoded(tmp_path, write_video):
    path = write_video(tmp_path / "v.mov", _numbered(3), codec="png", pix_fmt="rgb24")
    path.write_bytes(path.read_bytes().replace(b"\x89PNG\r\n\x1a\n", bytes(8)))
    with pytest.raises(UserError, match=r"\d corrupt packets and no frame"):
        open_source(path)


@pytest.mark.parametrize(("content", "message"), [(b"", "empty file"), (b"x" * 999, "cannot be")])
def test_files_that_are_no_video(tmp_path, content, message):
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_source(path)


def test_audio_only(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="a.mp4: got audio only, expected a video stream"):
        open_source(path)


def test_real_videos(data_root):
    for name, count in (("cat_sofa", 87), ("face_carphone", 120)):
        with open_source(data_root / "videos" / f"{name}.mp4") as source:
            assert sum(1 for _ in source) == count == source.num_frames
            assert source.skipped == []


def test_frames_above_8k_are_refused(tmp_path, write_video, monkeypatch):
    path = write_video(tmp_path / "v.mp4", _numbered(3))
    monkeypatch.setattr(video, "MAX_FRAME_PIXELS", 48 * 64 - 1)
    with pytest.raises(UserError, match="got frames of 64×48 pixels, expected at most 3,071"):
        open_source(path)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_damaged_start_keeps_numbers_and_times(tmp_path, write_video, name):
    noise = np.random.default_rng(0).integers(0, 256, (24, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / name, list(noise), coding={"g": "8", "bf": "2"})
    with av.open(str(path)) as container:
        first = next(packet for packet in container.demux(video=0))
        place, size = path.read_bytes().index(bytes(first)), first.size
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    with open_source(path) as source:
        frames = list(source)
        lost = 24 - len(frames)
        assert lost >= 1 and f", {lost} frames lost" in source.skipped[0]
    assert [frame.index for frame in frames] == list(range(lost, 24))
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(lost, 24) / 25, atol=2e-3)


def test_film_cut_short_while_it_is_read(tmp_path, write_video):
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    for name in ("v.mkv", "v.ts", "v.avi", "v.mp4"):
        path = write_video(tmp_path / name, list(noise), codec="mpeg4")
        with open_source(path) as source:
            frames = iter(source)
            next(frames)
            os.truncate(path, path.stat().st_size // 2)
            assert 1 + sum(1 for _ in frames) < 60
            assert source.skipped, name


def test_pixels_that_are_not_square_and_a_second_stream_are_told(tmp_path, caplog):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for stream in streams:
            frame = av.VideoFrame(48, 32, "yuv420p")
            frame.pts = 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    with open_source(path) as source:
        assert source.pixel_aspect == Fraction(4, 3) and len(list(source)) == 1
    assert "v.mp4: the first of 2 video streams is read" in caplog.text
