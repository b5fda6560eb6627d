"""What every source is: frames in order, with their true numbers and times."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol, Self

from lmk.runtime.detection import Colours, Frame
from lmk.runtime.errors import UserError

_CONTAINERS = ".mp4 .mov .m4v .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .wmv .flv .3gp .ogv .mxf"
_RARER = ".3g2 .asf .divx .insv .nut .vob .f4v .qt .ogm .ivf .rm .rmvb .mod .tod"
_RAW_STREAMS = ".h264 .264 .h265 .hevc .m1v .m2v .mjpeg .mjpg .y4m .dv"
# Of files that are films without looking into them; FFmpeg reads others too.
VIDEO_SUFFIXES = frozenset(f"{_CONTAINERS} {_RARER} {_RAW_STREAMS}".split())
DEFAULT_RATE = Fraction(25)  # of what says nothing about its rate


class Source(Protocol):
    """Frames in order, to be iterated over once. Also a context manager that closes itself."""

    path: Path  # what was opened; of streams and cameras only good for messages
    name: str  # good as a folder name
    is_live: bool = False  # frames come as time passes: can neither be resumed nor wait for long
    num_frames: int | None  # what the container says, or None; never to be relied on
    frame_rate: Fraction | None  # frames a second; None for images
    time_base: Fraction | None  # seconds a tick in which the video counts time; None for images
    size: tuple[int, int] | None  # (height, width) of the first frame; None for images

    colours: Colours | None = None  # of frames that are native
    pixel_aspect: Fraction = Fraction(1)  # width / height of a pixel where it is shown
    start_s: Fraction | None = None  # time 0 on the clock of a file that may have sound

    @property
    def skipped(self) -> list[str]:
        """What could not be read so far, and why: one line per image or kind of damage."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...

    def resume_after(self, index: int) -> None:
        """Before iteration: begin with the first frame whose number is above `index`.

        Numbers, times and pixels are those of an uninterrupted pass. Raises UserError where the
        source can only be read as it comes.
        """
        raise UserError(f"{self.path}: cannot be read again from the start, so not be resumed")

    def skim(self, least: int) -> bool:
        """Before iteration: give key frames alone if there are `least` or more; returns whether.

        Those can be decoded without the others, in a hundredth of the time.
        """
        return False

    def close(self) -> None:
        """Free the decoder; iteration must have stopped."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
