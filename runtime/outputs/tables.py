"""Detections -> files, whole ones or none: the contract of a sink, and what all of them share."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.files import as_cell
from lmk.runtime.outputs.sink import FileSink, columns, number, write_errors
from lmk.runtime.sources import Source


class _TextSink(FileSink):
    """A sink of lines."""

    _file: TextIO

    def begin(self, source: Source, path: Path) -> None:
        """Start the text file; UTF-8, lines end in \\n everywhere."""
        self._file = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115

    def end(self) -> None:
        """Flush."""
        self._file.close()

    def drop(self) -> None:
        """Close it."""
        self._file.close()


class CsvSink(_TextSink):
    """One row per object and frame: `columns`.

    Boxes as x, y, width, height (edges); points in frame pixels, centre of the top-left one (0, 0).
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        super().__init__(path)
        self._header = [as_cell(name) for name in columns(names)]

    def begin(self, source: Source, path: Path) -> None:
        """Start the file with its header."""
        super().begin(source, path)
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(self._header)

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add a row for each object of one frame."""
        with write_errors(self.path):
            self._writer.writerows(_row(frame, detection) for detection in detections)


class JsonlSink(_TextSink):
    """One JSON object per frame, also where nothing was found; units and frames as in the CSV.

    {"source", "frame", "time_s", "size": [height, width], "objects": [{"track",
    "box": [x, y, width, height], "landmarks": {name: [x, y, score]}}]}; null: not a number.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        super().__init__(path)
        self._names = names

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add the line of one frame."""
        line = {
            "source": frame.source,
            "frame": frame.index,
            "time_s": round(frame.time_s, 6),
            "size": list(frame.size),
            "objects": [self._object(detection) for detection in detections],
        }
        with write_errors(self.path):
            self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")

    def _object(self, detection: Detection) -> dict[str, Any]:
        triples = zip(detection.points.tolist(), detection.scores.tolist(), strict=True)
        landmarks = [[number(x, 3), number(y, 3), number(score, 4)] for (x, y), score in triples]
        return {
            "track": detection.track,
            "box": [number(value, 3) for value in detection.box],
            "landmarks": dict(zip(self._names, landmarks, strict=True)),
        }


def _row(frame: Frame, detection: Detection) -> list[Any]:
    row = [as_cell(frame.source), frame.index, f"{frame.time_s:.6f}", detection.track]
    row += [f"{value:g}" for value in detection.box]
    for (x, y), score in zip(detection.points.tolist(), detection.scores.tolist(), strict=True):
        row += [f"{x:.3f}", f"{y:.3f}", f"{score:.4f}"]
    return row
