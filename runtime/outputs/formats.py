"""What `--write` can write: an entry a format, with its files and what makes their sinks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmk.runtime.errors import UserError, install_line
from lmk.runtime.outputs.coco import CocoSink
from lmk.runtime.outputs.dlc import DlcCsvSink, DlcHdfSink
from lmk.runtime.outputs.overlay_images import OverlayImageSink
from lmk.runtime.outputs.overlay_video import OverlayVideoSink
from lmk.runtime.outputs.painter import Style
from lmk.runtime.outputs.parquet import ParquetSink
from lmk.runtime.outputs.sink import FileSink
from lmk.runtime.outputs.slp import SlpSink
from lmk.runtime.outputs.tables import CsvSink, JsonlSink
from lmk.runtime.owner import PICTURES, VIDEO

Output = FileSink | OverlayImageSink  # the sinks of results: each has the `path` that it writes


@dataclass(frozen=True)
class About:
    """What a sink may have to know of a run, beside its path."""

    names: Sequence[str]  # of the landmarks
    category: str = "object"
    style: Style = field(default_factory=Style)
    work: Path | None = None  # a folder for what outlives a crash; None: nothing does


Makers = Mapping[str, Callable[[Path, About], Output]]  # of the sink of each file, by its name


@dataclass(frozen=True)
class Format:
    """One choice of `--write`."""

    help: str
    files: Makers
    of_images: Makers | None = None  # in place of `files` where the source is no video
    packages: tuple[str, ...] = ()  # optional modules; an extra of the format's name brings them

    def makers(self, has_frames: bool) -> Makers:
        """Those for a source that is a video, or images."""
        return self.files if has_frames or self.of_images is None else self.of_images


FORMATS = {
    "csv": Format(
        "a row an object and frame",
        {"landmarks.csv": lambda path, of: CsvSink(path, of.names)},
    ),
    "overlay": Format(
        "looking at",
        {VIDEO: lambda path, of: OverlayVideoSink(path, of.names, of.style, of.work)},
        of_images={PICTURES: lambda path, of: OverlayImageSink(path, of.names, of.style, of.work)},
    ),
    "jsonl": Format(
        "a line a frame, also of those without an object",
        {"landmarks.jsonl": lambda path, of: JsonlSink(path, of.names)},
    ),
    "coco": Format(
        "tools that read COCO keypoints",
        {
            "landmarks.coco.json": lambda path, of: CocoSink(
                path, of.names, of.category, of.style.skeleton
            )
        },
    ),
    "parquet": Format(
        "tables of any length",
        {"landmarks.parquet": lambda path, of: ParquetSink(path, of.names)},
        packages=("pyarrow",),
    ),
    "dlc": Format(
        "DeepLabCut and what reads its files",
        {
            "landmarks.dlc.csv": lambda path, of: DlcCsvSink(path, of.names),
            "landmarks.dlc.h5": lambda path, of: DlcHdfSink(path, of.names),
        },
        packages=("pandas", "tables"),
    ),
    "slp": Format(
        "SLEAP",
        {"landmarks.slp": lambda path, of: SlpSink(path, of.names, of.category, of.style.skeleton)},
        packages=("sleap_io",),
    ),
}


def format_of(name: str) -> Format:
    """The format of that name; raises UserError when none is or a package it needs is missing."""
    if name not in FORMATS:
        raise UserError(f"format: got '{name}', expected some of {', '.join(FORMATS)}")
    for module in FORMATS[name].packages:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                f"format {name}: cannot be written without {module} ({error}); {install_line(name)}"
            ) from error
    return FORMATS[name]


def output_files(folder: Path, formats: Sequence[str]) -> list[tuple[Path, ...]]:
    """The files of `formats`: of each tuple one is written, which one depends on the source."""
    files: list[tuple[Path, ...]] = []
    for form in (FORMATS[name] for name in formats):
        if form.of_images is None:
            files += [(folder / file,) for file in form.files]
        else:
            files += [
                (folder / file, folder / other)
                for file, other in zip(form.files, form.of_images, strict=True)
            ]
    return files


def data_files(folder: Path) -> list[Path]:
    """Where results would be; not the overlay, which alone may be a film of anyone's."""
    return [folder / file for name in FORMATS if name != "overlay" for file in FORMATS[name].files]
