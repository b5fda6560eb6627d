"""Numbers of frames, and a video resumed after any of them."""

import itertools
import re
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmk.runtime.errors import UserError
from lmk.runtime.sources import video
from lmk.runtime.sources.open import open_source
from lmk.runtime.sources.packets import Numbering, demux, find_start

COUNT = 24
GROUPS = {"g": "6", "bf": "3"}
TICKS = list(itertools.accumulate([0] + [7, 40, 93, 12, 33] * 5))[:COUNT]


class _Packet:
    """What the numbering looks at of a packet."""

    is_discard = False

    class stream:  # noqa: N801
        class codec_context:  # noqa: N801
            name = "h264"

    def __init__(self, pts, is_keyframe=False):
        self.pts, self.is_keyframe = pts, is_keyframe


def _pictures():
    """Noise that moves: no two frames alike, and each is coded from its neighbours."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32 + 2 * COUNT, 3), np.uint8)
    return [np.ascontiguousarray(noise[:, 2 * n : 2 * n + 32]) for n in range(COUNT)]


CLIPS = {
    "b.mp4": dict(coding=GROUPS),
    "b.avi": dict(coding=GROUPS),
    "open.ts": dict(coding={"x264-params": "open-gop=1:bframes=3:keyint=6:min-keyint=6"}),
    "refresh.mp4": dict(coding={"x264-params": "intra-refresh=1:keyint=6"}),
    "interlaced.mkv": dict(coding={"x264-params": "tff=1:keyint=6:bframes=2"}),
    "mpeg4.avi": dict(codec="mpeg4", coding=GROUPS),
    "mpeg2.mpg": dict(codec="mpeg2video", coding=GROUPS),
    "hidden.webm": dict(
        codec="libvpx",
        coding={"g": "6", "auto-alt-ref": "1", "lag-in-frames": "8", "deadline": "good"},
    ),
    "vfr.mp4": dict(coding=GROUPS, ticks=TICKS),
    "vfr.mkv": dict(coding=GROUPS, ticks=TICKS),
    "intra.avi": dict(codec="mjpeg", pix_fmt="yuvj420p"),
    "raw.h264": dict(coding=GROUPS),
}


@pytest.mark.parametrize("name", CLIPS)
def test_resumed_video_goes_on_as_if_it_had_not_stopped(tmp_path, write_video, name):
    path = write_video(tmp_path / name, _pictures(), **CLIPS[name])
    with open_source(path) as source:
        whole = list(source)
        assert source.skipped == []
    assert [frame.index for frame in whole] == list(range(COUNT))
    seconds = np.array(TICKS) / 1000 if "vfr" in name else np.arange(COUNT) / 25
    np.testing.assert_allclose([frame.time_s for frame in whole], seconds, atol=1e-4)
    for index in range(-1, COUNT):
        with open_source(path) as source:
            source.resume_after(index)
            _assert_equal(list(source), whole[index + 1 :])
            assert source.skipped == []


def test_what_the_first_frame_says_of_its_encoder_holds_for_a_resumed_video(
    tmp_path, write_video, monkeypatch
):
    # It was not coded as it will say: FFmpeg conceals the damage, on several threads by chance.
    monkeypatch.setattr(video, "_MAX_THREADS", 1)
    y, x = np.mgrid[:64, :80]
    wide = 127 + 120 * np.stack([np.sin(x / 7 + y / 9), np.cos(x / 5), np.sin(y / 6)], 2)
    pictures = [wide[:, 3 * (n % 6) :][:, :64].astype(np.uint8) for n in range(COUNT)]
    coding = {"g": "6", "crf": "20"}
    path = write_video(tmp_path / "old.mp4", pictures, pix_fmt="yuv444p", coding=coding)
    # Before build 151 x264 coded such blocks in another way: decoders go by what it says it is.
    path.write_bytes(re.sub(rb"x264 - core \d{3}", b"x264 - core 148", path.read_bytes()))
    with open_source(path) as source:
        whole = list(source)
    assert len(whole) == COUNT
    for index in (11, 17, 20):
        with open_source(path) as source:
            source.resume_after(index)
            _assert_equal(list(source), whole[index + 1 :])


def _assert_equal(frames, others):
    assert [(f.index, f.time_s) for f in frames] == [(f.index, f.time_s) for f in others]
    for frame, other in zip(frames, others, strict=True):
        np.testing.assert_array_equal(frame.image, other.image)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_recordings_joined_end_to_end_go_on(tmp_path, write_video, codec):
    path = write_video(tmp_path / "a.ts", _pictures() * 2, codec=codec, coding=GROUPS)
    path.write_bytes(path.read_bytes() * 2)
    count = 4 * COUNT
    with open_source(path) as source:
        whole = list(source)
    assert [frame.index for frame in whole] == list(range(count))
    np.testing.assert_allclose([f.time_s for f in whole], np.arange(count) / 25, atol=1e-3)
    for index in (3, count // 2 - 1, count // 2 + 10):
        with open_source(path) as source:
            source.resume_after(index)
            _assert_equal(list(source), whole[index + 1 :])


def test_recording_that_starts_between_key_frames(tmp_path, write_video):
    path = write_video(tmp_path / "a.ts", _pictures(), coding={"g": "6", "bf": "0"})
    path.write_bytes(path.read_bytes()[188 * 8 :])  # the first key frame is gone
    with open_source(path) as source:
        frames = list(source)
        assert source.skipped == []
    assert 8 < len(frames) < COUNT
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert frames[0].time_s == 0


def test_corrupt_packets_leave_gaps_also_when_resumed(tmp_path, write_video):
    path = write_video(tmp_path / "v.mov", _pictures(), codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 8] == b"\x89PNG\r\n\x1a\n"]
    for number in (0, 5, 6):
        data[starts[number] : starts[number] + 40] = bytes(40)
    path.write_bytes(data)
    with open_source(path) as source:
        whole = list(source)
    assert [frame.index for frame in whole] == [1, 2, 3, 4, *range(7, COUNT)]
    with open_source(path) as source:
        source.resume_after(4)
        _assert_equal(list(source), whole[4:])


def test_frames_that_the_decoder_patched_up_are_counted(tmp_path, write_video):
    noise = np.random.default_rng(0).integers(0, 256, (96, 96 + COUNT, 3), np.uint8)
    pictures = [np.ascontiguousarray(noise[:, n : n + 96]) for n in range(COUNT)]
    path = write_video(tmp_path / "a.mp4", pictures, coding={"g": "12", "bf": "0"})
    with open_source(path) as source:
        assert len(list(source)) == COUNT and source.skipped == []
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for number in (5, 15):
        start, size = packets[number]
        damage = slice(start + size // 3, start + size // 2)
        data[damage] = b"\xff" * (damage.stop - damage.start)
    path.write_bytes(data)
    with open_source(path) as source:
        assert len(list(source)) == COUNT
        (note,) = source.skipped
    assert "2 frames are damaged" in note and "up to the next key frame" in note
    with open_source(path) as source:
        source.resume_after(12)
        assert len(list(source)) == COUNT - 13
        (note,) = source.skipped
    assert "1 frame is damaged" in note


def test_packets_far_before_the_target_are_passed_over():
    packets = [_Packet(n, n % 10 == 0) for n in range(1000)]
    assert [find_start(iter(packets), index) for index in (0, 10, 25, 499)] == [0, 0, 10, 480]
    without_keys = [_Packet(n) for n in range(100)]
    without_times = [_Packet(None, True) for _ in range(100)]
    assert find_start(iter(without_keys), 50) == find_start(iter(without_times), 50) == 0
    assert find_start(iter([]), 3) == 0


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_number_is_the_rank_whatever_the_order_of_coding(order, lost):
    """Frames come in presentation order once all that are shown before them were coded."""
    numbering = Numbering()
    numbering.add(_Packet(-3))  # before the first key frame: does not count
    numbering.add(_Packet(0, is_keyframe=True))
    for rank in order:
        if rank:
            numbering.add(_Packet(7 * rank + rank % 3))
    shown = [rank for rank in range(12) if rank not in lost]
    assert [numbering.number(7 * rank + rank % 3 if rank else 0) for rank in shown] == shown


def test_frames_without_time_stamps_are_counted():
    numbering = Numbering()
    numbering.add(_Packet(None, is_keyframe=True))
    assert [numbering.number(None) for _ in range(3)] == [0, 1, 2]


def test_empty_packets_are_left_out_and_late_streams_do_no_harm():
    """An empty packet would end the decoder; PyAV trips over streams that turn up later."""

    class _Container:
        format = SimpleNamespace(name="mpegts")

        def demux(self, stream):
            for size in (9, 0, 9):
                yield SimpleNamespace(size=size, pts=None, dts=None)
            raise IndexError

    stream = SimpleNamespace(codec_context=SimpleNamespace(name="h264"))
    assert [packet.size for packet in demux(_Container(), stream)] == [9, 9]


def test_source_that_cannot_be_resumed_says_so():
    from lmk.runtime.sources.source import Source

    class Once(Source):
        path = "pipe"

    with pytest.raises(UserError, match="pipe: cannot be read again"):
        Once().resume_after(3)
