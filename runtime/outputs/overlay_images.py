"""Landmarks drawn into pictures, an image file each."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.files import atomic_path
from lmk.runtime.images import IMAGE_SUFFIXES
from lmk.runtime.outputs.painter import Painter, Style
from lmk.runtime.outputs.sink import Sink, check_not_source, write_errors
from lmk.runtime.sources import Source

MARK = ("Software", "lmk")  # in our PNGs: only they are ever cleared away


class OverlayImageSink(Sink):
    """One PNG per image under `path`, each under its own relative name; all appear at close.

    `cat.jpg` gives `cat.jpg.png`, `cat.png` stays, `cat.jpg.png` gives `cat.jpg.png.png`: no name
    is given twice. Frames of a video are numbered. Images have no trails: they are no sequence.
    work: a folder in which pictures outlive a crash, None: a hidden one beside `path`.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str] = (),
        style: Style | None = None,
        work: Path | None = None,
    ) -> None:
        self.path = path
        self.written: set[Path] = set()  # relative to `path`
        self._work = work
        self._names, self._style = names, style or Style()
        self._parts: Path | None = None

    def open(self, source: Source) -> None:
        """Start the folder of the pictures to come."""
        check_not_source(self.path, source)
        self.replaces = self.replaces or self.path.exists()
        self._numbered = source.frame_rate is not None
        style = self._style if self._numbered else replace(self._style, trails=0)
        self._painter = Painter(self._names, style)
        hidden = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}")
        self._parts = self._work / self.path.name if self._work else hidden
        with write_errors(self.path):
            self._parts.mkdir(parents=True, exist_ok=True)

    def replay(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Count a picture that is kept; see `Sink.replay`."""
        self._painter.follow(detections)
        self.written.add(self._name_of(frame))

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Draw and save one frame."""
        assert self._parts is not None
        name, picture, mark = self._name_of(frame), frame.image.copy(), PngInfo()
        self._painter.paint(picture, detections)
        mark.add_text(*MARK)
        with atomic_path(self._parts / name) as path:
            # Level 1: much faster than the default, for slightly larger files.
            Image.fromarray(picture).save(path, compress_level=1, pnginfo=mark)
        self.written.add(name)

    def _name_of(self, frame: Frame) -> Path:
        name = Path(frame.source)
        if self._numbered:
            return name.with_name(f"{name.stem}_{frame.index:06d}.png")
        if name.suffix.lower() == ".png" and Path(name.stem).suffix.lower() not in IMAGE_SUFFIXES:
            return name
        return name.with_name(name.name + ".png")

    def close(self) -> None:
        """Put the pictures into `path`, one by one; what else is in it stays.

        Those in a `work` folder stay there too: a run that was interrupted may go on.
        """
        assert self._parts is not None
        missing = sorted(name for name in self.written if not (self._parts / name).is_file())
        if missing:
            raise UserError(
                f"{self._parts}: got no {missing[0]}, which an earlier run drew; "
                "run again without --resume"
            )
        with write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for name in self.written:
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                _put(self._parts / name, self.path / name, keep=self._work is not None)
        self.abort()

    def abort(self) -> None:
        """Remove the pictures, unless they are in a `work` folder."""
        if self._parts is not None:
            if self._work is None:
                shutil.rmtree(self._parts, ignore_errors=True)
            self._parts = None


def _put(source: Path, target: Path, keep: bool) -> None:
    """Give `source` the name `target`, in place of what has it; with `keep` as a second name."""
    if not keep:
        source.replace(target)
        return
    with atomic_path(target) as temporary:
        try:
            temporary.hardlink_to(source)
        except OSError:  # the file system has no hard links
            shutil.copyfile(source, temporary)
