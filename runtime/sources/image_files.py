"""Image files -> frames, whatever can be read of them; a file of several pictures is a film."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

from PIL import Image

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.files import printable
from lmk.runtime.images import (
    UnreadableImage,
    image_errors,
    open_image,
    pages_of,
    read_image,
    to_rgb,
)
from lmk.runtime.sources.source import DEFAULT_RATE, Source

_LEAST_MS = 10  # browsers show what is to be shown shorter for _USUAL_MS
_USUAL_MS = 100
_logger = logging.getLogger(__name__)


class ImageSource(Source):
    """Image files as frames, numbered as they are listed.

    What cannot be read is skipped and leaves a gap in the numbers; UserError if it is everything.
    `root` is the one image, or the folder that all of them lie below. unread: lines about what else
    is there and is not read; they are among `skipped`.
    """

    def __init__(self, paths: list[Path], root: Path, unread: Sequence[str] = ()) -> None:
        self.path = root
        resolved = root.resolve()
        self.name = printable((resolved.stem if [root] == paths else resolved.name) or "images")
        self.num_frames = len(paths)
        self.frame_rate = None
        self.time_base = None
        self.size = None
        self._paths = paths
        self._first = 0
        self._unread = list(unread)
        self._skipped: list[str] = []

    @property
    def paths(self) -> list[Path]:
        """All of them, in their order."""
        return list(self._paths)

    @property
    def skipped(self) -> list[str]:
        """See `Source.skipped`."""
        return self._unread + self._skipped

    def resume_after(self, index: int) -> None:
        """See `Source.resume_after`."""
        self._first = index + 1

    def __iter__(self) -> Iterator[Frame]:
        any_read = self._first > 0  # else there would be nothing to resume
        for index in range(self._first, len(self._paths)):
            path = self._paths[index]
            try:
                image = read_image(path)
            except UnreadableImage as error:
                if len(self._paths) == 1:
                    raise
                _logger.debug("skipped %s", error)  # the summary tells
                self._skipped.append(str(error))
                continue
            any_read = True
            name = path.name if path == self.path else path.relative_to(self.path).as_posix()
            yield Frame(printable(name), index, 0.0, image)
        if not any_read:
            raise UserError(
                f"{self.path}: got {len(self._paths)} images none of which can be read "
                f"(the first: {self._skipped[0]}); give whole image files"
            )

    def close(self) -> None:
        """Nothing is held open between frames."""


class PagesSource(Source):
    """The pictures of one file, a stack or an animation, as the frames of a film.

    Animations say how long each is shown; stacks do not, and count as 25 a second. What cannot be
    read is skipped and leaves a gap. Raises UnreadableImage (a UserError).
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, printable(path.resolve().stem)
        self._skipped: list[str] = []
        self._first = 0
        with open_image(path) as image:
            self._pages = pages_of(image)
            shown_ms = [] if image.format == "TIFF" else _durations(image, self._pages)
            image.seek(self._pages[0])
            height, width = to_rgb(image, path).shape[:2]
        self.size = height, width
        self.num_frames = len(self._pages)
        self.time_base = Fraction(1, 1000)
        self.frame_rate = DEFAULT_RATE
        self._times_ms = [round(1000 * n / DEFAULT_RATE) for n in range(self.num_frames)]
        if shown_ms:
            self._times_ms = list(accumulate(shown_ms, initial=0))
            self.frame_rate = Fraction(1000 * self.num_frames, self._times_ms[-1])

    @property
    def skipped(self) -> list[str]:
        """See `Source.skipped`."""
        return list(self._skipped)

    def resume_after(self, index: int) -> None:
        """See `Source.resume_after`."""
        self._first = index + 1

    def __iter__(self) -> Iterator[Frame]:
        label, any_read = printable(self.path.name), self._first > 0
        with open_image(self.path) as image:
            for index in range(self._first, len(self._pages)):
                try:
                    with image_errors(self.path):
                        image.seek(self._pages[index])
                        pixels = to_rgb(image, self.path)
                except UnreadableImage as error:
                    self._skipped.append(f"picture {index + 1} of {error}")
                    continue
                any_read = True
                yield Frame(label, index, self._times_ms[index] / 1000, pixels)
        if not any_read:
            raise UserError(f"{self._skipped[0]}, nor any other; give a whole file")

    def close(self) -> None:
        """The file is closed where its frames end."""


def _durations(image: Image.Image, pages: Sequence[int]) -> list[int]:
    """How long each is shown, in ms."""
    shown = []
    for page in pages:
        image.seek(page)
        image.load()  # some formats know only then
        shown.append(round(image.info.get("duration") or 0))
    return [each if each > _LEAST_MS else _USUAL_MS for each in shown]
