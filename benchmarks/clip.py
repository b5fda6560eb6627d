"""A video of any length at 1920×1080, as a camera gives it: texture, motion and noise."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError

_HEIGHT, _WIDTH, _RATE = 1080, 1920, 30
_LOOP = 90  # frames after which the picture comes back
_LONGEST = 3600  # seconds: a gigabyte or so


def clip_seconds(text: str) -> float:
    """The seconds of `long:SECONDS`; raises UserError for what is no length of a clip."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 / _RATE <= seconds <= _LONGEST:  # NaN is not
        raise UserError(
            f"video: got 'long:{text}', expected long:SECONDS with a number above 0 and up "
            f"to {_LONGEST}; give another one"
        )
    return seconds


def write_clip(path: Path, seconds: float) -> Path:
    """Write `seconds` of H.264 at 30 a second, rounded up to whole loops; returns `path`.

    A soft pattern drifts behind a textured disc that circles; a little noise keeps the encoder from
    finding it all too easy. Three seconds are encoded, and their packets repeated.
    """
    count = round(seconds * _RATE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _RATE)
        packets = _encoded(stream, min(count, _LOOP))
        container.start_encoding()
        for start in range(0, count, _LOOP):
            for data, pts, dts, is_key in packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, Fraction(1, _RATE)
                packet.pts, packet.dts, packet.is_keyframe = pts + start, dts + start, is_key
                container.mux(packet)
    return path


def _encoded(stream: av.VideoStream, count: int) -> list[tuple[bytes, int, int, bool]]:
    """Bytes, pts, dts and whether it is a key frame of each packet of the first `count` frames."""
    packets: list[av.Packet] = []
    for index in range(count):
        picture = av.VideoFrame.from_ndarray(_frame(index), format="rgb24")
        picture = picture.reformat(format="yuv420p")
        picture.pts, picture.time_base = index, Fraction(1, _RATE)
        packets += stream.encode(picture)
    packets += stream.encode(None)
    return [(bytes(p), p.pts or 0, p.dts or 0, p.is_keyframe) for p in packets]


def _frame(index: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype(np.float32)
    angle = 2 * np.pi * index / _LOOP
    shift = 80 * np.sin(angle)
    grey = 110 + 50 * np.sin((x + shift) / 70) * np.cos((y - shift) / 90)
    centre = _WIDTH / 2 + 300 * np.cos(angle), _HEIGHT / 2 + 200 * np.sin(angle)
    disc = np.hypot(x - centre[0], y - centre[1]) < 220
    grey = np.where(disc, 180 + 50 * np.sin(x / 9) * np.sin(y / 11), grey)
    noise = np.random.default_rng(index).normal(0, 4, (_HEIGHT, _WIDTH, 3))
    tint = np.array([1.0, 0.9, 0.8], np.float32)
    return np.clip(grey[..., None] * tint + noise, 0, 255).astype(np.uint8)
