"""Decoded frames -> upright RGB pictures: deinterlaced, in the right colours, turned."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np
from av.error import BlockingIOError as NeedsMore
from av.error import EOFError as NoMore
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from lmk.runtime.detection import Colours

_BT601, _UNKNOWN = 5, 2  # numbers of FFmpeg for matrices; unknown ones are taken for BT.601
_LIMITED_RANGE = 1

# AVColorSpace that FFmpeg's scaler converts: RGB, BT.709, unknown, FCC, BT.601 twice, 240M, BT.2020
_KNOWN_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
_UNKNOWN_MATRIX = 2  # taken as BT.601, as FFmpeg and OpenCV do


@dataclass(frozen=True)
class Decoded:
    """A frame as the decoder gives it."""

    frame: av.VideoFrame
    index: int  # see Frame
    time_s: float


def deinterlace(decoded: Generator[Decoded]) -> Generator[Decoded]:
    """Make whole pictures of interlaced frames, at an unchanged rate; others stay as they are."""
    weave: _Deinterlacer | None = None
    for item in decoded:
        if weave is not None and weave.layout != _layout(item.frame):
            yield from weave.push(None)
            weave = None
        if weave is None and item.frame.interlaced_frame:
            weave = _Deinterlacer(item.frame)
        if weave is None:
            yield item
        else:
            yield from weave.push(item)
    if weave is not None:
        yield from weave.push(None)


class _Deinterlacer:
    """FFmpeg's filter bwdif for frames of one layout: as many come out as go in, one later."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self.layout = _layout(frame)
        self._graph = Graph()
        self._waiting: deque[Decoded] = deque()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        bwdif = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        self._graph.link_nodes(source, bwdif, self._graph.add("buffersink")).configure()

    def push(self, item: Decoded | None) -> Iterator[Decoded]:
        """Give it the next frame, None after the last; yields those that are done."""
        if item is not None:
            self._waiting.append(item)
        self._graph.vpush(None if item is None else item.frame)
        while self._waiting:
            try:
                frame = self._graph.vpull()
            except (NeedsMore, NoMore):
                return
            yield replace(self._waiting.popleft(), frame=frame)


def _layout(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


class Converter:
    """Converts frames to HWC uint8 RGB pixels; `odd_matrix` tells of colours it had to guess."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()  # a frame's own is set up anew each time
        self.odd_matrix: int | None = None

    def convert(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The frame's picture, upright, alpha laid over white.

        Range and matrix of the colours are those the frame names. Raises FFmpegError or OSError
        when FFmpeg cannot convert it.
        """
        if frame.colorspace not in _KNOWN_MATRICES:
            if frame.colorspace != 3:  # reserved
                self.odd_matrix = frame.colorspace
            frame.colorspace = _UNKNOWN_MATRIX
        has_alpha = any(component.is_alpha for component in frame.format.components)
        form = "rgba" if has_alpha else "rgb24"
        # One thread: more cost more time than they save on frames of this size.
        converted = self._reformatter.reformat(frame, format=form, threads=1)
        pixels = np.asarray(converted.to_ndarray(), np.uint8)
        return turn_upright(_over_white(pixels) if has_alpha else pixels, orientation(frame))


def _over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    white = Image.new("RGBA", (rgba.shape[1], rgba.shape[0]), "white")
    return np.asarray(Image.alpha_composite(white, Image.fromarray(rgba)).convert("RGB"))


# Swap rows and columns first, then flip the rows, flip the columns.
Orientation = tuple[bool, bool, bool]
# By quarter turns, counter-clockwise.
_TURNS: tuple[Orientation, ...] = (
    (False, False, False),
    (True, True, False),
    (False, True, True),
    (True, False, True),
)


def orientation(frame: av.VideoFrame) -> Orientation:
    """How to bring a frame upright, from its display matrix: to the nearest quarter turn."""
    try:
        # A frame's own `side_data` and the frame hold each other: with its decoder's buffers it
        # would stay until Python's collector comes by.
        extras: Any = SideDataContainer  # whose stub does not know that it takes a frame
        matrix = extras(frame)["DISPLAYMATRIX"]
    except KeyError:
        return _TURNS[0]
    except ValueError:  # PyAV gives none when there is also a kind that it does not know
        return _TURNS[round(frame.rotation / 90) % 4]
    # x' = a·x + c·y and y' = b·x + d·y, in 16.16 fixed point
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    return (True, b < 0, c < 0) if abs(b) > abs(a) else (False, d < 0, a < 0)


def is_native(frame: av.VideoFrame) -> bool:
    """Whether an overlay may keep its planes: yuv420p, upright, even in size, colours known."""
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    plain = frame.format.name == "yuv420p" and frame.colorspace in _KNOWN_MATRICES
    return even and plain and orientation(frame) == _TURNS[0]


def turn_upright(pixels: NDArray[np.uint8], how: Orientation) -> NDArray[np.uint8]:
    """Apply an orientation to HWC pixels; the result is contiguous."""
    swap, flip_rows, flip_columns = how
    if swap:
        pixels = pixels.transpose(1, 0, 2)
    rows = slice(None, None, -1 if flip_rows else 1)
    columns = slice(None, None, -1 if flip_columns else 1)
    return np.ascontiguousarray(pixels[rows, columns], np.uint8)


def colours_of(frame: av.VideoFrame) -> Colours:
    """What a frame says of its colours: matrix, range, primaries and curve, as FFmpeg's numbers."""
    return (
        int(frame.colorspace),
        int(frame.color_range),
        int(frame.color_primaries),
        int(frame.color_trc),
    )


def matrix_and_range(colours: Colours) -> tuple[int, int]:
    """The matrix and range that stand for these, where they say nothing."""
    matrix, bounds = colours[:2]
    return (_BT601 if matrix == _UNKNOWN else matrix), bounds or _LIMITED_RANGE
