"""Video file -> the packets of its sound, on the clock of its pictures, fit for an mp4."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol, cast

import av
from av.error import FFmpegError

# What players expect in an mp4; FFmpeg writes more that few of them read.
_COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_AAC_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_logger = logging.getLogger(__name__)


class Soundtrack:
    """All audio streams of a video file; `start_s`, on the file's clock, becomes time 0.

    Packets are copied as they are, or, of a codec that mp4 players do not know, decoded and encoded
    as AAC. Left out are damaged packets, and sound before the first picture but for one packet. A
    file without pictures or sound has none.
    """

    def __init__(self, path: Path, start_s: Fraction) -> None:
        self._path, self._start = path, start_s
        with av.open(str(path)) as source:
            codecs = [stream.codec_context for stream in source.streams.audio]
            self.codecs = [context.name for context in codecs if context is not None]
        for codec in set(self.codecs) - _COPIED:
            _logger.info("%s: its sound, %s, becomes AAC in the overlay", path, codec)

    def join(self, container: av.container.OutputContainer, end_s: float) -> Iterator[av.Packet]:
        """Add the audio streams to `container`; gives their packets before `end_s`, in order."""
        with av.open(str(self._path)) as source:
            tracks = {
                stream.index: _sound(stream, container, self._start)
                for stream in source.streams.audio
                if stream.codec_context is not None
            }
        return self._packets(tracks, end_s)

    def _packets(self, tracks: dict[int, _Sound], end_s: float) -> Iterator[av.Packet]:
        if not tracks:
            return
        with av.open(str(self._path)) as source:
            for packet in _demux(source, [source.streams[index] for index in tracks]):
                for ready in tracks[packet.stream.index].take(packet):
                    if seconds(ready) < end_s:
                        yield ready


class _Sound(Protocol):
    """Packets of one audio stream of the source -> those of the output."""

    def take(self, packet: av.Packet) -> Iterator[av.Packet]:
        """What `packet`, empty at the end, gives."""
        ...


class _Copied(_Sound):
    def __init__(
        self, stream: av.AudioStream, container: av.container.OutputContainer, start: Fraction
    ) -> None:
        self._stream = container.add_stream_from_template(stream)
        self._shift = round(start / _fraction(stream.time_base))
        self._last: int | None = None

    def take(self, packet: av.Packet) -> Iterator[av.Packet]:
        if packet.dts is None or packet.pts is None or packet.is_corrupt:
            return  # the packet at the end has no time either
        packet.pts, packet.dts = packet.pts - self._shift, packet.dts - self._shift
        grows = self._last is None or packet.dts > self._last  # as the mp4 wants it
        # The one that ends where the pictures begin is kept: decoders need it to get going.
        if grows and packet.pts + (packet.duration or 1) >= 0:
            self._last = packet.dts
            packet.stream = self._stream
            yield packet


class _Encoded(_Sound):
    def __init__(
        self, stream: av.AudioStream, container: av.container.OutputContainer, start: Fraction
    ) -> None:
        context = stream.codec_context
        rate = context.sample_rate if context.sample_rate in _AAC_RATES else 48000
        # By the number of channels: some formats do not say where each is to be heard.
        layout = _AAC_LAYOUTS.get(context.layout.nb_channels, "stereo")
        self._stream = container.add_stream("aac", rate=rate, layout=layout)
        self._shift = start

    def take(self, packet: av.Packet) -> Iterator[av.Packet]:
        try:
            frames = cast("list[av.AudioFrame]", packet.decode())
        except FFmpegError:
            frames = []  # damaged
        for frame in frames:
            if frame.pts is None:
                continue
            frame.pts -= round(self._shift / _fraction(frame.time_base))
            if frame.pts >= 0:
                yield from self._stream.encode(frame)
        if packet.size == 0:
            yield from self._stream.encode(None)


def _sound(
    stream: av.AudioStream, container: av.container.OutputContainer, start: Fraction
) -> _Sound:
    # AVI counts the time of some sound in packets, which nothing else can.
    in_packets = stream.container.format.name == "avi" and stream.codec_context.name == "mp3"
    copied = stream.codec_context.name in _COPIED & container.supported_codecs and not in_packets
    return (_Copied if copied else _Encoded)(stream, container, start)


def _demux(source: av.container.InputContainer, streams: list) -> Iterator[av.Packet]:
    """The packets of the streams, up to where the file breaks off."""
    try:
        yield from source.demux(streams)
    except FFmpegError as error:
        _logger.debug("sound ends early: %s", error)  # the pictures do too: the summary tells


def seconds(packet: av.Packet) -> float:
    """When a packet is to be decoded, by the clock of its stream."""
    assert packet.dts is not None and packet.time_base is not None
    return packet.dts * float(packet.time_base)


def _fraction(value: Fraction | None) -> Fraction:
    """PyAV 18 gives Fractions, 19 a class of its own."""
    assert value is not None
    return Fraction(value.numerator, value.denominator)
