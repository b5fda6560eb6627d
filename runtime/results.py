"""A source and a folder -> the files that detection will write there."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output
from lmk.runtime.landmarker import Detection
from lmk.runtime.sinks import MARK, CsvSink, OverlayImageSink, OverlayVideoSink, Sink
from lmk.runtime.sources import Frame, Source

_CSV, _VIDEO, _PICTURES = "landmarks.csv", "overlay.mp4", "overlay"


def make_sinks(
    source: Source, folder: Path, names: Sequence[str], overlay: bool, force: bool
) -> tuple[list[Sink], list[Path]]:
    """Sinks for `folder`/landmarks.csv and, with `overlay`, overlay.mp4 or overlay/; their paths.

    With `force` the results that are there stay until the new ones are complete; then those of them
    that were not overwritten are removed. Raises UserError when one exists (unless `force`), or
    when the folder lies in the source, where the next run would take the overlays for its input.
    """
    if source.path.is_dir() and source.path.resolve() in (folder / "x").resolve().parents:
        raise UserError(
            f"{folder}: lies inside the source {source.path}, expected another folder; "
            "give one by --output"
        )
    files = [folder / _CSV]
    sinks: list[Sink] = [CsvSink(files[0], names)]
    if overlay:
        is_video = source.frame_rate is not None
        files.append(folder / (_VIDEO if is_video else _PICTURES))
        sinks.append((OverlayVideoSink if is_video else OverlayImageSink)(files[1]))
    for file in files:
        check_output(file, force)
    if files[0].exists():  # the folder holds results: the new ones replace all of them or none
        sinks.append(_StaleOutputs(folder, list(sinks)))
        for sink in sinks:
            sink.replaces = True
    return sinks, files


class _StaleOutputs(Sink):
    """Writes nothing; removes at the end what earlier results have and those of `sinks` have not.

    That is overlay.mp4 and the pictures in overlay/ that we drew; nothing else in the folder.
    """

    def __init__(self, folder: Path, sinks: Sequence[Sink]) -> None:
        self._video, self._pictures = folder / _VIDEO, folder / _PICTURES
        self._sinks = sinks

    def open(self, source: Source) -> None:
        """Nothing yet."""

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Nothing yet."""

    def close(self) -> None:
        """Remove them: the other sinks, which come before, are closed."""
        if not any(isinstance(sink, OverlayVideoSink) for sink in self._sinks):
            with contextlib.suppress(OSError):  # a stale file that stays is no reason to fail
                self._video.unlink(missing_ok=True)
        new = {
            self._pictures / name
            for sink in self._sinks
            if isinstance(sink, OverlayImageSink)
            for name in sink.written
        }
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
