"""A source and a folder -> the files that detection will write there."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.files import check_output
from lmk.runtime.outputs.formats import About, Output, data_files, format_of, output_files
from lmk.runtime.outputs.overlay_images import MARK, OverlayImageSink
from lmk.runtime.outputs.painter import Style
from lmk.runtime.outputs.sink import Sink
from lmk.runtime.sources import Source


def make_sinks(
    source: Source,
    folder: Path,
    names: Sequence[str],
    formats: Sequence[str],
    force: bool,
    work: Path | None = None,
    style: Style | None = None,
    category: str = "object",
) -> tuple[list[Sink], list[Path]]:
    """Sinks for `formats`, of FORMATS, in `folder`, and the paths they will write.

    Nothing is written before a sink is opened. The overlay is in `style`; what outlives a crash is
    kept in `work`. With `force` the results that are there stay until the new ones are complete;
    then those of them that were not overwritten are removed. Raises UserError when the folder
    holds results (unless force), for another format, and when a package that a format needs is not
    installed. It may lie in the source: the next run leaves out what this one writes.
    """
    about = About(names, category, style or Style(), work)
    about.style.check(names)
    chosen = [format_of(name) for name in dict.fromkeys(formats)]
    outputs = [
        make(folder / file, about)
        for form in chosen
        for file, make in form.makers(source.frame_rate is not None).items()
    ]
    files = [output.path for output in outputs]
    stale = [path for path in data_files(folder) if path.exists()]
    for path in [*files, *stale]:
        check_output(path, force)
    sinks: list[Sink] = [*outputs]
    if stale:  # the folder holds results: the new ones replace all of them or none
        sinks.append(_StaleOutputs(folder, outputs))
        for sink in sinks:
            sink.replaces = True
    return sinks, files


class _StaleOutputs(Sink):
    """Writes nothing; removes at the end what earlier results have and `outputs` have not.

    That is files of the other formats and the pictures in overlay/ that we drew; nothing else in
    the folder.
    """

    def __init__(self, folder: Path, outputs: Sequence[Output]) -> None:
        self._folder, self._outputs = folder, outputs
        [(self._film, self._pictures)] = output_files(folder, ["overlay"])

    def open(self, source: Source) -> None:
        """Nothing yet."""

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Nothing yet."""

    def close(self) -> None:
        """Remove them: the other sinks, which come before, are closed."""
        new = {output.path for output in self._outputs}
        for path in {*data_files(self._folder), self._film} - new:
            with contextlib.suppress(OSError):  # a stale file that stays is no reason to fail
                path.unlink(missing_ok=True)
        for output in self._outputs:
            if isinstance(output, OverlayImageSink):
                new |= {output.path / name for name in output.written}
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
