"""The sound of a video goes into its overlay: the same samples at the same time as the pictures."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.outputs.overlay_video import OverlayVideoSink
from lmk.runtime.outputs.soundtrack import Soundtrack
from lmk.runtime.sources.open import open_source

RATE = 16000
PICTURES = 40  # at 20 a second


def _tone(seconds: float) -> np.ndarray:
    """A tone that rises, so that every moment of it differs from the others."""
    time = np.arange(int(RATE * seconds)) / RATE
    return (8000 * np.sin(2 * np.pi * (200 + 150 * time) * time)).astype(np.int16)


@pytest.fixture
def write_clip(tmp_path):
    """Return a function that writes a clip of 2 s with sound, the pictures from `first_s` on."""

    def write(name: str, codec: str, tone=None, first_s=0.0, streams=1) -> Path:
        path = tmp_path / name
        tone = _tone(2.0) if tone is None else tone
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=20, options={"bf": "2"})
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            sounds = [container.add_stream(codec, rate=RATE) for _ in range(streams)]
            for sound in sounds:
                sound.codec_context.layout = "mono"
            for index in range(PICTURES):
                image = np.full((48, 64, 3), 5 * index, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = index + round(20 * first_s), Fraction(1, 20)
                container.mux(video.encode(frame))
            for start in range(0, len(tone), 1024):
                block = tone[None, start : start + 1024]
                for sound in sounds:
                    frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
                    frame.rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
                    container.mux(sound.encode(frame))
            for stream in (video, *sounds):
                container.mux(stream.encode(None))
        return path

    return write


def _overlay(path: Path, stop: int | None = None) -> Path:
    """The overlay of the first frames of a clip."""
    target = path.with_name("overlay.mp4")
    nothing = Detection(np.zeros((1, 2), np.float32), np.ones(1, np.float32), (0, 0, 9, 9))
    with open_source(path) as source:
        sink = OverlayVideoSink(target)
        sink.open(source)
        for frame in source:
            if stop is None or frame.index < stop:
                sink.write(Frame(frame.source, frame.index, frame.time_s, frame.image), [nothing])
        sink.close()
    return target


def _heard(path: Path, stream: int = 0) -> tuple[float, np.ndarray]:
    """When sound begins, in seconds after the first picture, and its samples, as float."""
    with av.open(str(path)) as container:
        first = next(container.decode(video=0)).time
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=stream))
    samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    scale = 1.0 if samples.dtype.kind == "f" else 32768.0
    return frames[0].time - first, samples.astype(float) / scale


def _packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize(("name", "codec"), [("v.mp4", "aac"), ("v.mkv", "aac"), ("v.ts", "aac")])
def test_sound_is_copied_sample_for_sample(write_clip, name, codec):
    path = write_clip(name, codec)
    (start, before), (begins, after) = _heard(path), _heard(_overlay(path))
    before = before[round((begins - start) * RATE) :]  # what sounds before the first picture
    assert 0 <= begins - start < 0.1 and len(before) > 1.8 * RATE
    length = min(len(before), len(after))
    assert abs(len(before) - len(after)) <= 1024
    np.testing.assert_array_equal(before[1024:length], after[1024:length])


def test_mp3_in_avi_whose_time_counts_packets_becomes_aac(write_clip):
    if "libmp3lame" not in av.codecs_available:
        pytest.skip("FFmpeg was built without LAME")
    overlay = _overlay(write_clip("v.avi", "libmp3lame"))
    with av.open(str(overlay)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    _, heard = _heard(overlay)
    assert abs(len(heard) / RATE - 2.0) < 0.1 and np.abs(heard).max() > 0.05


def test_packets_are_not_encoded_again(write_clip):
    path = write_clip("v.mkv", "aac")
    overlay = _packets(_overlay(path))
    assert len(overlay) > 25 and set(overlay) <= set(_packets(path))


@pytest.mark.parametrize(("name", "codec"), [("v.mov", "pcm_s16le"), ("v.mkv", "mp2")])
def test_sound_that_mp4_players_do_not_know_becomes_aac(write_clip, name, codec):
    path = write_clip(name, codec)
    overlay = _overlay(path)
    with av.open(str(overlay)) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"]
    begins, heard = _heard(overlay)
    tone = _tone(2.0) / 32768
    begin = max(0, round(begins * RATE))
    expected = tone[begin : begin + len(heard)]
    heard = heard[: len(expected)]
    middle = slice(4000, 24000)
    assert np.corrcoef(heard[middle], expected[middle])[0, 1] > 0.98


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_stays_with_pictures_that_begin_later(write_clip, codec):
    path = write_clip("v.mkv", codec, _tone(2.5), first_s=0.5)
    begins, heard = _heard(_overlay(path))
    tone = _tone(2.5)[RATE // 2 :] / 32768  # what sounds from the first picture on
    shift = round(begins * RATE)
    assert abs(shift) < 2100
    middle = slice(6000, 24000)
    found = heard[middle.start - shift : middle.stop - shift]
    assert np.corrcoef(found, tone[middle])[0, 1] > 0.98


def test_sound_ends_with_the_pictures(write_clip):
    begins, heard = _heard(_overlay(write_clip("v.mp4", "aac"), stop=20))
    assert begins + len(heard) / RATE == pytest.approx(1.0, abs=0.08)


def test_all_sounds_are_kept(write_clip):
    overlay = _overlay(write_clip("v.mp4", "aac", streams=2))
    with av.open(str(overlay)) as container:
        assert len(container.streams.audio) == 2
    np.testing.assert_array_equal(_heard(overlay, 0)[1], _heard(overlay, 1)[1])


def test_silent_video_has_no_sound(blob_video):
    assert Soundtrack(blob_video[0], Fraction(0)).codecs == []


def test_damaged_sound_does_no_harm(write_clip):
    path = write_clip("v.ts", "aac")
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(data) // 3, len(data), 60):
        data[place] ^= 0xFF
    path.write_bytes(data)
    with open_source(_overlay(path)) as written:
        assert sum(1 for _ in written) > 20
