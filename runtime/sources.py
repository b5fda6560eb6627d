"""Image, folder or video on disk -> frames, whatever can be read of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.images import IMAGE_SUFFIXES, UnreadableImage, read_image

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"}
)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """One picture of a source."""

    source: str  # file name; below a folder that was given, the path relative to it
    index: int  # 0, 1, … over what could be read: no gaps
    time_s: float  # since the first frame of a video; 0 for images
    image: NDArray[np.uint8]  # HWC RGB, upright


class Source(Protocol):
    """Frames in order, to be iterated over once. Also a context manager that closes itself."""

    path: Path  # what was opened
    num_frames: int | None  # what the container says, or None; never to be relied on
    frame_rate: Fraction | None  # frames a second; None for images
    time_base: Fraction | None  # seconds a tick in which the video counts time; None for images
    size: tuple[int, int] | None  # (height, width) of the first frame; None for images

    @property
    def skipped(self) -> list[str]:
        """What could not be read so far, and why: one line per image or kind of damage."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Free the decoder; iteration must have stopped."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class ImageSource(Source):
    """Image files as frames; what cannot be read is skipped, unless it is everything."""

    def __init__(self, paths: list[Path], root: Path) -> None:
        self.path = root
        self.num_frames = len(paths)
        self.frame_rate = None
        self.time_base = None
        self.size = None
        self._paths = paths
        self._skipped: list[str] = []

    @property
    def skipped(self) -> list[str]:
        """See `Source.skipped`."""
        return list(self._skipped)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        for path in self._paths:
            try:
                image = read_image(path)
            except UnreadableImage as error:
                if len(self._paths) == 1:
                    raise
                _logger.debug("skipped %s", error)  # the summary tells
                self._skipped.append(str(error))
                continue
            yield Frame(self._name_of(path), index, 0.0, image)
            index += 1
        if index == 0:
            raise UserError(
                f"{self.path}: got {len(self._paths)} images none of which can be read "
                f"(the first: {self._skipped[0]}); give whole image files"
            )

    def _name_of(self, path: Path) -> str:
        return path.name if path == self.path else path.relative_to(self.path).as_posix()

    def close(self) -> None:
        """Nothing is held open between frames."""


def open_source(spec: Path | str) -> Source:
    """Open an image, a folder of images (recursive, sorted by path) or a video.

    Raises UserError when it is missing, of an unknown kind, empty, or a video of which no frame
    can be decoded.
    """
    path = Path(spec)
    suffix = path.suffix.lower()
    if path.is_dir():
        return ImageSource(_find_images(path), path)
    if not path.exists():
        raise UserError(f"{path}: got no such file or folder; check the path")
    if suffix in IMAGE_SUFFIXES:
        return ImageSource([path], path)
    if suffix in VIDEO_SUFFIXES:
        from lmk.runtime.video import VideoSource  # PyAV loads all of FFmpeg: only for videos

        return VideoSource(path)
    raise UserError(
        f"{path}: got suffix '{suffix}', expected an image ({_listing(IMAGE_SUFFIXES)}), a video "
        f"({_listing(VIDEO_SUFFIXES)}) or a folder of images"
    )


def _find_images(folder: Path) -> list[Path]:
    paths = sorted(
        path
        for path in folder.rglob("*")
        # "._cat.jpg" is what macOS leaves beside cat.jpg: not an image
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )
    if not paths:
        raise UserError(
            f"{folder}: got a folder without images, expected files ending in "
            f"{_listing(IMAGE_SUFFIXES)}"
        )
    return paths


def _listing(suffixes: frozenset[str]) -> str:
    return " ".join(sorted(suffixes))
