"""A source and a folder -> the files that detection will write there."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from pathlib import Path

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError, install_line
from lmk.runtime.files import check_output
from lmk.runtime.outputs.coco import CocoSink
from lmk.runtime.outputs.dlc import DlcCsvSink, DlcHdfSink
from lmk.runtime.outputs.formats import DATA, FORMATS, PACKAGES, data_files
from lmk.runtime.outputs.overlay_images import MARK, OverlayImageSink
from lmk.runtime.outputs.overlay_video import OverlayVideoSink
from lmk.runtime.outputs.painter import Style
from lmk.runtime.outputs.parquet import ParquetSink
from lmk.runtime.outputs.sink import Sink
from lmk.runtime.outputs.slp import SlpSink
from lmk.runtime.outputs.tables import CsvSink, JsonlSink
from lmk.runtime.owner import PICTURES, VIDEO
from lmk.runtime.sources import Source


def make_sinks(
    source: Source,
    folder: Path,
    names: Sequence[str],
    formats: Sequence[str],
    force: bool,
    work: Path | None = None,
    style: Style | None = None,
    append: bool = False,
    category: str = "object",
) -> tuple[list[Sink], list[Path]]:
    """Sinks for `formats`, of FORMATS, in `folder`, and the paths they will write.

    The overlay is overlay.mp4 for a video, overlay/ for images, in `style`; what outlives a crash
    is kept in `work`. With `force`, or `append` for a run that goes on, the results that are there
    stay until the new ones are complete; then those of them that were not overwritten are removed.
    Raises UserError when the folder holds results (unless force or append), for another format, and
    when a package that a format needs is not installed. It may lie in the source: the next run
    leaves out what this one writes.
    """
    style = style or Style()
    style.check(names)
    for name in formats:
        _check_format(name)
    sinks = [
        sink
        for name in dict.fromkeys(formats)
        for sink in _make(name, source, folder, names, style, work, category)
    ]
    files = [sink.folder if isinstance(sink, OverlayImageSink) else sink.path for sink in sinks]
    stale = [path for path in data_files(folder) if path.exists()]
    for path in [*files, *stale]:
        check_output(path, force or append)
    if not stale:
        return list(sinks), files
    all_sinks: list[Sink] = [*sinks, _StaleOutputs(folder, sinks)]
    for sink in all_sinks:  # the folder holds results: the new ones replace all of them or none
        sink.replaces = True
    return all_sinks, files


def output_files(folder: Path, formats: Sequence[str]) -> list[tuple[Path, ...]]:
    """The files of `formats`: of each tuple one is written, which one depends on the source."""
    files: list[tuple[Path, ...]] = []
    for name in formats:
        if name == "overlay":
            files.append((folder / VIDEO, folder / PICTURES))
        else:
            files += [(folder / file,) for file in DATA[name]]
    return files


def _check_format(name: str) -> None:
    """Raise UserError when the format is none of ours, or a package that it needs is missing."""
    if name not in FORMATS:
        raise UserError(f"format: got '{name}', expected some of {', '.join(FORMATS)}")
    modules, extra = PACKAGES.get(name, ((), ""))
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                f"format {name}: cannot be written without {module} ({error}); "
                f"{install_line(extra)}"
            ) from error


_Made = CsvSink | JsonlSink | CocoSink | ParquetSink | DlcCsvSink | DlcHdfSink | SlpSink
_Drawn = OverlayVideoSink | OverlayImageSink


def _make(
    name: str,
    source: Source,
    folder: Path,
    names: Sequence[str],
    style: Style,
    work: Path | None,
    category: str,
) -> list[_Made | _Drawn]:
    if name == "overlay":
        if source.frame_rate is None:
            return [OverlayImageSink(folder / PICTURES, names, style, work)]
        return [OverlayVideoSink(folder / VIDEO, names, style, work)]
    paths = [folder / file for file in DATA[name]]
    if name == "dlc":
        return [DlcCsvSink(paths[0], names), DlcHdfSink(paths[1], names)]
    if name == "coco":
        return [CocoSink(paths[0], names, category, style.skeleton)]
    if name == "slp":
        return [SlpSink(paths[0], names, category, style.skeleton)]
    if name == "parquet":
        return [ParquetSink(paths[0], names)]
    if name == "jsonl":
        return [JsonlSink(paths[0], names)]
    assert name == "csv", name
    return [CsvSink(paths[0], names)]


class _StaleOutputs(Sink):
    """Writes nothing; removes at the end what earlier results have and those of `sinks` have not.

    That is files of the other formats and the pictures in overlay/ that we drew; nothing else in
    the folder.
    """

    def __init__(self, folder: Path, sinks: Sequence[_Made | _Drawn]) -> None:
        self._folder, self._pictures = folder, folder / PICTURES
        self._drawn = [sink for sink in sinks if isinstance(sink, OverlayImageSink)]
        self._new = {sink.path for sink in sinks if not isinstance(sink, OverlayImageSink)}

    def open(self, source: Source) -> None:
        """Nothing yet."""

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Nothing yet."""

    def close(self) -> None:
        """Remove them: the other sinks, which come before, are closed."""
        for path in {*data_files(self._folder), self._folder / VIDEO} - self._new:
            with contextlib.suppress(OSError):  # a stale file that stays is no reason to fail
                path.unlink(missing_ok=True)
        new = {self._pictures / name for sink in self._drawn for name in sink.written}
        # Files before the folders that hold them; a folder with anything else in it stays.
        for path in sorted(self._pictures.rglob("*"), reverse=True) + [self._pictures]:
            with contextlib.suppress(OSError):
                if path.is_dir():
                    path.rmdir()
                elif path not in new and _is_ours(path):
                    path.unlink()

    def abort(self) -> None:
        """Everything stays."""


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return "\0".join(MARK).encode() in file.read(128)  # the first chunk but one of a PNG
