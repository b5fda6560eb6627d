"""Video -> frames, upright, numbered and on time, past what is damaged."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.files import printable
from lmk.runtime.sources.medium import Medium, candidates, device_kinds, file_medium, reason_of
from lmk.runtime.sources.packets import Numbering, demux, find_start
from lmk.runtime.sources.pictures import (
    Converter,
    Decoded,
    colours_of,
    deinterlace,
    is_native,
    orientation,
)
from lmk.runtime.sources.source import DEFAULT_RATE, Source

MAX_FRAME_PIXELS = 8192 * 4352  # above 8K a decoder takes gigabytes
# Broadcasts and raw streams may begin half-way; in all other files each packet has its number.
_JOINED_HALF_WAY = frozenset({"mpegts", "mpeg", "h264", "hevc", "mpegvideo", "rtsp", "hls"})
_MAX_THREADS = 4
_logger = logging.getLogger(__name__)


class VideoSource(Source):
    """The first video stream of a medium, decoded by PyAV.

    The display matrix is applied; the aspect ratio of pixels is not, points are in stored pixels.
    Interlaced frames are deinterlaced. Time is that of presentation, from the first frame, whether
    or not that can be decoded. Corrupt packets are skipped and counted, and the frames lost by
    them. Raises UserError at once when there is no video stream, its frames are larger than 8K,
    none can be decoded, or the device asked for by `hwaccel` cannot do it.
    """

    def __init__(self, medium: Medium, hwaccel: str | None = None) -> None:
        self._medium = medium
        self.path = Path(medium.location if medium.is_file else medium.title)
        self.name = medium.name
        self._after = -1  # frames up to this number are not wanted
        self._keys_only = False
        self._device = self._open_on(candidates(hwaccel, medium.can_reopen))
        first = self._first
        count = len(self._container.streams.video)
        if count > 1:
            log = "%s: the first of %d video streams is read"
            _logger.warning(log, medium.title, count)
        self.num_frames = None if self.is_live else self._estimate_frames()
        size = (first.frame.height, first.frame.width)
        self.size = size[::-1] if orientation(first.frame)[0] else size
        self.colours = colours_of(first.frame) if is_native(first.frame) else None
        aspect = self._stream.sample_aspect_ratio
        self.pixel_aspect = _fraction(aspect) if aspect else Fraction(1)
        if self.size != size:
            self.pixel_aspect = 1 / self.pixel_aspect
        if medium.is_file:
            self.start_s = (self._start or 0) * self.time_base
        self._unread: Iterator[Decoded] | None = _chain(first, self._decoded)
        del self._first  # else its picture would be kept to the end

    @property
    def decoder(self) -> str:
        """What decodes: `h264 (cuda)`, `h264 (software, 2 threads)`."""
        context = self._stream.codec_context
        threads = "1 thread" if context.thread_count == 1 else f"{context.thread_count} threads"
        return f"{context.name} ({self._device or f'software, {threads}'})"

    @property
    def skipped(self) -> list[str]:
        """See `Source.skipped`."""
        notes = list(self._notes)
        if self._num_corrupt or self._num_lost:
            lost = max(self._num_corrupt, self._num_lost)
            notes.insert(0, f"{self._num_corrupt} corrupt packets, {lost} frames lost")
        if self._num_patched:
            what = "1 frame is" if self._num_patched == 1 else f"{self._num_patched} frames are"
            patched = "damaged, patched up by the decoder; it shows up to the next key frame"
            notes.append(f"{what} {patched}")
        return [f"{self._medium.title}: {note}" for note in notes]

    def resume_after(self, index: int) -> None:
        """See `Source.resume_after`: from the start, packets are read, but not decoded."""
        if self.is_live or not self._medium.can_reopen:
            raise UserError(
                f"{self._medium.title}: got a stream that is over once it was read, expected a "
                "file to resume; begin anew"
            )
        self._check_unread()
        self.close()
        with self._medium.open() as container:
            stream = _video_stream(container, self._medium.title)
            packets = _until_damage(demux(container, stream))
            num_passed = find_start(packets, index, container.format.name in _JOINED_HALF_WAY)
        self._after = index
        self._open(self._device, num_passed)
        self._unread = self._decoded

    def skim(self, least: int) -> bool:
        """See `Source.skim`."""
        self._check_unread()
        if self.is_live or not self._medium.can_reopen:
            return False
        with self._medium.open() as container:
            packets = demux(container, _video_stream(container, self._medium.title))
            count = sum(packet.is_keyframe for packet in _until_damage(packets))
        self._keys_only = count >= least
        return self._keys_only

    def __iter__(self) -> Iterator[Frame]:
        decoded, self._unread = self._check_unread(), None
        label = printable(self.path.name) if self._medium.is_file else self.name
        converter = Converter()
        for item in decoded:
            if item.index <= self._after or (self._keys_only and not item.frame.key_frame):
                continue
            try:
                image = converter.convert(item.frame)
            except (FFmpegError, OSError, MemoryError):
                self._num_corrupt += 1
                continue
            native = item.frame if is_native(item.frame) else None
            yield Frame(label, item.index, item.time_s, image, native)
        if converter.odd_matrix is not None:
            self._notes.append(f"colour matrix {converter.odd_matrix} is taken for BT.601")
        for line in self.skipped:
            _logger.debug("skipped %s", line)  # the summary tells

    def close(self) -> None:
        """Close the medium."""
        self._decoded.close()
        self._container.close()

    def _check_unread(self) -> Iterator[Decoded]:
        if self._unread is None:
            raise ValueError(f"{self.path}: a video source can be read once; open it again")
        return self._unread

    def _open_on(self, devices: list[str | None]) -> str | None:
        """Open on the first of the devices that gives a frame; returns which."""
        for device in devices:
            try:
                self._open_first(device)
                return device
            except UserError as error:
                if device is None:
                    raise
                cause = error.__cause__
                reason = reason_of(cause) if isinstance(cause, Exception) else "no frame"
        if self._medium.can_reopen:  # raises if it is not for the device
            self._open_first(None)
            self.close()
        raise UserError(
            f"{self._medium.title}: cannot be decoded on {devices[-1]} ({reason}), expected one of "
            f"{' '.join(device_kinds())} that is in this machine; leave it out to use the processor"
        )

    def _open_first(self, device: str | None) -> None:
        self._start: int | None = None  # time stamp of frame 0
        self._has_started = False
        self._open(device, 0)
        try:
            first = next(self._decoded, None)
        except BaseException:
            self.close()
            raise
        if first is None:
            self.close()
            raise UserError(
                f"{self._medium.title}: got {self._num_corrupt} corrupt packets and no frame that "
                f"can be decoded; {self._medium.cure}"
            )
        self._first = first

    def _open(self, device: str | None, num_passed: int) -> None:
        """Open the medium to decode all but its first `num_passed` packets."""
        self._container = self._medium.open(device)
        try:
            self._stream = stream = _video_stream(self._container, self._medium.title)
            self.is_live = self._medium.is_live(self._container)
            # Frame threads where the codec has them. Each holds a frame back: it would come late,
            # and is lost if the stream ends in a corrupt packet.
            stream.thread_type = "SLICE" if self.is_live else "AUTO"
            # Of a stream whose frames grow half-way, too.
            stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
            threads = min(_MAX_THREADS, os.cpu_count() or 1)
            stream.thread_count = threads if device is None else 1
        except BaseException:
            self._container.close()
            raise
        rate = stream.average_rate or stream.guessed_rate or DEFAULT_RATE
        self.frame_rate: Fraction = _fraction(rate)
        self.time_base: Fraction = _fraction(stream.time_base or 1 / self.frame_rate)
        self._num_passed, self._num_packets = num_passed, 0
        self._num_lost = self._num_corrupt = self._num_patched = 0
        self._last = self._after  # number of the last frame that came or is not wanted
        self._notes: list[str] = []
        self._numbering = Numbering(self._container.format.name in _JOINED_HALF_WAY)
        self._num_bytes = self.path.stat().st_size if self._medium.is_file else 0
        self._decoded = deinterlace(self._decode())

    def _decode(self) -> Generator[Decoded]:
        for packet in self._packets():
            try:
                frames = packet.decode()
            except (FFmpegError, OSError):
                self._num_corrupt += 1
                continue
            for frame in frames:
                yield self._numbered(frame)
        if self._num_corrupt:  # else what has not come has no picture
            self._num_lost += self._numbering.pending
        promised = self._stream.frames
        if self._num_packets < promised:
            self._notes.append(f"ends after {self._num_packets} of {promised} packets")
        elif self._medium.is_file and self.path.stat().st_size < self._num_bytes:
            self._notes.append("became shorter while it was read")

    def _numbered(self, frame: av.VideoFrame) -> Decoded:
        index = self._numbering.number(frame.pts)
        self._num_lost += max(0, index - self._last - 1)
        self._last = max(self._last, index)
        self._num_patched += frame.is_corrupt and index > self._after
        if not self._has_started:
            known = [pts for pts in (self._numbering.start, frame.pts) if pts is not None]
            self._start, self._has_started = min(known, default=None), True
        if frame.pts is None or self._start is None:  # raw streams carry no time stamps
            return Decoded(frame, index, float(index / self.frame_rate))
        return Decoded(frame, index, float((frame.pts - self._start) * self.time_base))

    def _packets(self) -> Iterator[Packet]:
        """The packets to decode, then the empty one that flushes the decoder."""
        has_begun = False
        try:
            for packet in demux(self._container, self._stream):
                self._num_packets += 1
                self._numbering.add(packet)
                # The first key frame is decoded whatever is passed: only there does x264, or Xvid,
                # say which version it is, and decoders know what each got wrong.
                is_first = packet.is_keyframe and not has_begun
                has_begun |= packet.is_keyframe
                if is_first or (
                    self._num_packets > self._num_passed
                    and (packet.is_keyframe or not self._keys_only)
                ):
                    yield packet
        except (FFmpegError, OSError) as error:  # of the container: the codec's are caught above
            self._notes.append(f"breaks off after {self._num_packets} packets ({reason_of(error)})")
        flush: Packet = Packet()
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


def _until_damage(packets: Iterator[Packet]) -> Iterator[Packet]:
    with suppress(FFmpegError, OSError):  # told of when the frames are read
        yield from packets


def holds_video(path: Path) -> bool:
    """Whether the file at `path` can be opened as a video; nothing of it is decoded."""
    try:
        medium = file_medium(path)
        with medium.open() as container:
            _video_stream(container, medium.title)
        return True
    except (UserError, OSError):
        return False


def _video_stream(container: av.container.InputContainer, title: str) -> av.VideoStream:
    # Those with the flag are the covers of music files.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    for stream in streams[:1]:
        if stream.codec_context is None:
            raise UserError(f"{title}: got a codec that this PyAV has no decoder for; convert it")
        height, width = stream.codec_context.height, stream.codec_context.width
        if width * height > MAX_FRAME_PIXELS:
            raise UserError(
                f"{title}: got frames of {width}×{height} pixels, expected at most "
                f"{MAX_FRAME_PIXELS:,} pixels; shrink it"
            )
        return stream
    kinds = sorted({str(stream.type) for stream in container.streams}) or ["nothing"]
    raise UserError(f"{title}: got {', '.join(kinds)} only, expected a video stream")


def _fraction(value: Any) -> Fraction:
    """PyAV 18 gives Fractions, 19 a class of its own."""
    return Fraction(value.numerator, value.denominator)


def _chain(first: Decoded, rest: Iterator[Decoded]) -> Iterator[Decoded]:
    yield first
    del first  # the frame's picture is not needed while the rest is read
    yield from rest
