"""A source and a folder -> the files that detection will write there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.files import check_output
from lmk.runtime.sinks import CsvSink, OverlayImageSink, OverlayVideoSink, Sink
from lmk.runtime.sources import Source


def make_sinks(
    source: Source, folder: Path, names: Sequence[str], overlay: bool, force: bool
) -> tuple[list[Sink], list[Path]]:
    """Sinks for `folder`/landmarks.csv and, with `overlay`, overlay.mp4 or overlay/; their paths.

    Raises UserError when one exists (unless `force`), or when the folder lies in the source,
    where the next run would take the overlays for its input.
    """
    if source.path.is_dir() and source.path.resolve() in (folder / "x").resolve().parents:
        raise UserError(
            f"{folder}: lies inside the source {source.path}, expected another folder; "
            "give one by --output"
        )
    files = [folder / "landmarks.csv"]
    sinks: list[Sink] = [CsvSink(files[0], names)]
    if overlay:
        is_video = source.frame_rate is not None
        files.append(folder / ("overlay.mp4" if is_video else "overlay"))
        sinks.append((OverlayVideoSink if is_video else OverlayImageSink)(files[1]))
    for file in files:
        check_output(file, force)
    return sinks, files
