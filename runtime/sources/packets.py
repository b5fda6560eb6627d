"""Open video -> its packets in decoding order, the numbers of their frames, where to resume."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from contextlib import suppress

import av
from av.packet import Packet

_JUMP_S = 1  # time stamps that go back by more begin anew; less is only out of order
_REORDERED = 64  # no codec shows a frame more packets later than it is coded
_VP8_SHOWN = 0x10  # of the first byte: without it the picture is only referred to


def demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Packet]:
    """The stream's packets, without the empty ones, with time stamps that do not jump back.

    They do in recordings joined end to end and broadcasts whose clock was set anew; there they go
    on from the last packet. Raises FFmpegError where the container is damaged beyond reading.
    """
    # AVI stores the order of coding only; what FFmpeg makes of it for reordered frames is wrong.
    is_untimed = container.format.name == "avi" and stream.codec_context.name in ("h264", "hevc")
    latest: int | None = None  # in ticks, like all that follows
    step = shift = 0
    for packet in _demux(container, stream):
        if packet.size == 0:  # a decoder takes it for the end
            continue
        if packet.dts is not None and packet.time_base:
            if latest is not None and packet.dts + shift < latest - _JUMP_S / packet.time_base:
                shift = latest + max(step, 1) - packet.dts
            if latest is not None:
                step = packet.dts + shift - latest
            latest = packet.dts + shift
        if shift:
            packet.dts = None if packet.dts is None else packet.dts + shift
            packet.pts = None if packet.pts is None else packet.pts + shift
        if is_untimed:
            packet.pts = None
        yield packet


def _demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Packet]:
    # When streams have turned up since the file was opened, PyAV may fail at the end.
    with suppress(IndexError):
        yield from container.demux(stream)


def has_picture(packet: Packet) -> bool:
    """Whether a frame is shown for the packet: not if an edit list cuts it off, say."""
    if packet.stream.codec_context.name == "vp8":
        return not packet.is_discard and bool(bytes(packet)[0] & _VP8_SHOWN)
    return not packet.is_discard


class Numbering:
    """Numbers frames by the rank of their time stamp among those of the stream's packets.

    So a packet of which no frame could be decoded leaves a gap. from_key: the stream may have been
    joined half-way, and what lies before its first key frame does not count. A frame without a time
    stamp is the next.
    """

    def __init__(self, from_key: bool = True) -> None:
        self._pending: list[int] = []  # sorted; of packets whose frames have not come yet
        self._from_key = from_key
        self.start: int | None = None  # time stamp of frame 0, once a frame was numbered
        self._next = 0

    @property
    def pending(self) -> int:
        """How many packets were added whose frames have not come."""
        return len(self._pending)

    def add(self, packet: Packet) -> None:
        """Take note of a packet that is about to be decoded."""
        if packet.pts is None or not has_picture(packet):
            return
        if self._from_key and self.start is None and packet.is_keyframe:
            self.start = packet.pts
            del self._pending[: bisect_left(self._pending, packet.pts)]
        if not self._from_key or self.start is None or packet.pts >= self.start:
            insort(self._pending, packet.pts)

    def number(self, pts: int | None) -> int:
        """The number of the next frame that was decoded."""
        if self.start is None and self._pending:
            self.start = self._pending[0]
        rank = 0 if pts is None else bisect_left(self._pending, pts)
        index = self._next + rank
        # Its own packet is done with too, if it is there: decoders may make time stamps up.
        own = rank < len(self._pending) and (pts is None or self._pending[rank] == pts)
        del self._pending[: rank + own]
        self._next = index + 1
        return index


def find_start(packets: Iterator[Packet], index: int, from_key: bool = True) -> int:
    """How many of `packets` need not be decoded for the frames above number `index`.

    That is all before the last key frame but one at or before frame `index`: in streams whose key
    frames are no clean cut (open groups, gradual refresh) the decoder needs one group to be exact.
    """
    times: list[int] = []
    keys: list[tuple[int, int]] = []  # ordinal, time stamp
    for ordinal, packet in enumerate(packets):
        if not has_picture(packet):
            continue
        if packet.pts is None:
            return 0  # frames are then counted, and must all be decoded for that
        if packet.is_keyframe:
            keys.append((ordinal, packet.pts))
        if not from_key or (keys and packet.pts >= keys[0][1]):
            times.append(packet.pts)
        if len(times) > index + _REORDERED:
            break
    times.sort()
    if not times or not keys:
        return 0
    target = times[min(max(index, 0), len(times) - 1)]
    usable = [ordinal for ordinal, pts in keys if pts <= target]
    return usable[-2] if len(usable) > 1 else 0
