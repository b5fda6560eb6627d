"""Image files -> frames, whatever can be read of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.images import IMAGE_SUFFIXES, UnreadableImage, read_image
from lmk.runtime.sources.source import Source

_logger = logging.getLogger(__name__)


class ImageSource(Source):
    """Image files as frames, numbered as they are listed.

    What cannot be read is skipped and leaves a gap in the numbers; UserError if it is everything.
    `root` is the one image, or the folder that all of them lie below.
    """

    def __init__(self, paths: list[Path], root: Path) -> None:
        self.path = root
        resolved = root.resolve()
        self.name = (resolved.stem if [root] == paths else resolved.name) or "images"
        self.num_frames = len(paths)
        self.frame_rate = None
        self.time_base = None
        self.size = None
        self._paths = paths
        self._first = 0
        self._skipped: list[str] = []

    @property
    def paths(self) -> list[Path]:
        """All of them, in their order."""
        return list(self._paths)

    @property
    def skipped(self) -> list[str]:
        """See `Source.skipped`."""
        return list(self._skipped)

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
            yield Frame(self._name_of(path), index, 0.0, image)
        if not any_read:
            raise UserError(
                f"{self.path}: got {len(self._paths)} images none of which can be read "
                f"(the first: {self._skipped[0]}); give whole image files"
            )

    def _name_of(self, path: Path) -> str:
        return path.name if path == self.path else path.relative_to(self.path).as_posix()

    def close(self) -> None:
        """Nothing is held open between frames."""


def find_images(folder: Path) -> list[Path]:
    """The images below `folder`, sorted by path. Raises UserError when there are none."""
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
            f"{' '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return paths
