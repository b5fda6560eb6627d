"""Video file -> frames, upright and on time, past what is damaged."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.sources import Frame, Source

_DEFAULT_RATE = Fraction(25)  # of a stream that says nothing about its rate
_MAX_THREADS = 4
_logger = logging.getLogger(__name__)


class VideoSource(Source):
    """The first video stream of a file, decoded by PyAV.

    Rotation metadata is applied (a display matrix that also mirrors is not). Time is that of
    presentation, from the first frame. Corrupt packets are skipped and counted. Raises UserError
    at once when the file has no video stream or no frame of it can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._container = _open(path)
        try:
            self._stream = _video_stream(self._container, path)
            self._stream.thread_type = "AUTO"  # frame threads where the codec has them
            # Each thread holds a frame back, and loses it if the stream ends in a corrupt packet.
            self._stream.thread_count = min(_MAX_THREADS, os.cpu_count() or 1)
            self._num_packets = self._num_frames = self._num_corrupt = 0
            self._notes: list[str] = []
            self._reformatter = VideoReformatter()  # a frame's own is set up anew each time
            self._decoded = self._decode()
            self._first = next(self._decoded, None)
            if self._first is None:
                raise UserError(
                    f"{path}: got {self._num_corrupt} corrupt packets and no frame that can be "
                    "decoded; the file is damaged or not whole, copy it again"
                )
        except BaseException:
            self._container.close()
            raise
        self.num_frames = self._estimate_frames()
        stream = self._stream
        self.frame_rate = _fraction(stream.average_rate or stream.guessed_rate or _DEFAULT_RATE)
        self.time_base = _fraction(stream.time_base or 1 / self.frame_rate)
        turned = self._first.rotation % 180 != 0
        size = (self._first.height, self._first.width)
        self.size = size[::-1] if turned else size

    @property
    def skipped(self) -> list[str]:
        """See `Source.skipped`."""
        corrupt = [f"{self._num_corrupt} corrupt packets"] if self._num_corrupt else []
        return [f"{self.path}: {note}" for note in corrupt + self._notes]

    def __iter__(self) -> Iterator[Frame]:
        if self._first is None:
            raise ValueError(f"{self.path}: a video source can be read once; open it again")
        first, self._first = self._first, None
        start, time_s = first.pts, 0.0
        for index, frame in enumerate(_chain(first, self._decoded)):
            if frame.pts is not None and start is not None:
                time_s = float((frame.pts - start) * self.time_base)
            elif index:  # raw streams carry no time stamps
                time_s += float(1 / self.frame_rate)
            yield Frame(self.path.name, index, time_s, self._upright(frame))
        for line in self.skipped:
            _logger.debug("skipped %s", line)  # the summary tells

    def _upright(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        # One thread: more cost more time than they save on frames of this size.
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise, as np.rot90 counts
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), quarter_turns), np.uint8)

    def close(self) -> None:
        """Close the file."""
        self._decoded.close()
        self._container.close()

    def _decode(self) -> Generator[av.VideoFrame]:
        for packet in self._packets():
            try:
                frames = packet.decode()
            except FFmpegError:
                self._num_corrupt += 1
                if packet.size == 0:  # while it was flushed: PyAV cannot go on with what follows
                    lost = max(0, self._num_packets - self._num_frames - self._num_corrupt)
                    self._notes.append(f"{lost} frames behind the last corrupt packet are lost")
                continue
            self._num_frames += len(frames)
            yield from frames
        promised = self._stream.frames
        if self._num_packets < promised:
            self._notes.append(f"ends after {self._num_packets} of {promised} packets")

    def _packets(self) -> Iterator[av.Packet]:
        """The stream's packets, then the empty one that flushes the decoder."""
        try:
            for packet in self._container.demux(self._stream):
                self._num_packets += packet.size > 0
                yield packet
        except FFmpegError as error:  # of the container: those of the codec are not raised here
            self._notes.append(f"breaks off after {self._num_packets} packets ({error.strerror})")
            flush: av.Packet = av.Packet()
            flush.stream = self._stream
            yield flush

    def _estimate_frames(self) -> int | None:
        stream = self._stream
        if stream.frames:
            return stream.frames
        if not stream.average_rate:
            return None
        rate = _fraction(stream.average_rate)
        if stream.duration and stream.time_base:
            return round(stream.duration * _fraction(stream.time_base) * rate)
        if self._container.duration:
            return round(Fraction(self._container.duration, av.time_base) * rate)
        return None


def _open(path: Path) -> av.container.InputContainer:
    if path.stat().st_size == 0:
        raise UserError(f"{path}: got an empty file, expected a video; copy it again")
    try:
        return av.open(str(path))
    except (FFmpegError, OSError) as error:
        raise UserError(
            f"{path}: cannot be opened as a video ({error.strerror}); "
            "it is damaged, not whole or not a video"
        ) from error


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover of a music file
            return stream
    kinds = sorted({str(stream.type) for stream in container.streams}) or ["nothing"]
    raise UserError(f"{path}: got {', '.join(kinds)} only, expected a video stream")


def _fraction(value: Any) -> Fraction:
    """PyAV 18 gives Fractions, 19 a class of its own."""
    return Fraction(value.numerator, value.denominator)


def _chain(first: av.VideoFrame, rest: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    yield first
    del first  # the frame's picture is not needed while the rest is read
    yield from rest
