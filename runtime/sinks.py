"""Detections -> files, whole ones or none: the contract of a sink, and what all of them share."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from lmk.runtime.errors import UserError
from lmk.runtime.files import atomic_path, write_error
from lmk.runtime.landmarker import Detection
from lmk.runtime.sources import Frame, Source


class Sink(Protocol):
    """Takes every frame of one source with what was found in it.

    open -> replay … -> write … -> close (the file appears) or abort (nothing appears). All may
    raise UserError; only close and abort may follow one. Calls come from one thread at a time.
    replaces: from open on, whether close takes the place of earlier results.
    """

    replaces: bool = False

    def open(self, source: Source) -> None:
        """Get ready for the frames of `source`."""
        ...

    def replay(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add a frame that an interrupted run had done before its last `checkpoint`.

        Its image has the right shape and no content: a sink of pictures has kept its own.
        """
        self.write(frame, detections)

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add one frame with its objects: none, one or several, one `track` each."""
        ...

    def checkpoint(self) -> None:
        """Make sure that what cannot be replayed survives a crash: always at the same frames."""
        return

    def close(self) -> None:
        """Finish the file under its final name."""
        ...

    def abort(self) -> None:
        """Remove what was written, but not what `checkpoint` kept; harmless at any time."""
        ...


class Pending:
    """A file on its way: `atomic_path` spread over open, close and abort."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._context = atomic_path(path)
        self.temporary = self._context.__enter__()

    def finish(self) -> None:
        """Sync and rename."""
        self._context.__exit__(None, None, None)

    def discard(self) -> None:
        """Remove it."""
        self._context.__exit__(_Discarded, _Discarded(), None)


class _Discarded(Exception):
    """Tells `atomic_path` to remove the file."""


class FileSink(Sink):
    """A sink of one file; what is in it is up to the class: `begin`, `write`, `end`, `drop`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: Pending | None = None

    def open(self, source: Source) -> None:
        """Start the file under a temporary name; raises UserError if it would be the source."""
        check_not_source(self.path, source)
        self.replaces = self.replaces or self.path.exists()
        self._pending = Pending(self.path)
        with write_errors(self.path):
            self.begin(source, self._pending.temporary)

    def close(self) -> None:
        """Write the rest and rename."""
        assert self._pending is not None
        with write_errors(self.path):
            self.end()
        self._pending.finish()
        self._pending = None

    def abort(self) -> None:
        """Remove the temporary file."""
        if self._pending is not None:
            with contextlib.suppress(Exception):  # what broke it may break its end as well
                self.drop()
            self._pending.discard()
            self._pending = None

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """See `Sink.write`."""
        raise NotImplementedError

    def begin(self, source: Source, path: Path) -> None:
        """Open `path` for writing."""
        raise NotImplementedError

    def end(self) -> None:
        """Write what is left and close it."""
        raise NotImplementedError

    def drop(self) -> None:
        """Close whatever is open: the file is not wanted."""
        raise NotImplementedError


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
        self._header = columns(names)

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


def columns(names: Sequence[str]) -> list[str]:
    """The columns of a table with a row per object and frame."""
    header = ["source", "frame", "time_s", "track", "box_x", "box_y", "box_w", "box_h"]
    return header + [f"{name}_{value}" for name in names for value in ("x", "y", "score")]


def number(value: float, digits: int) -> float | None:
    """A rounded number for JSON, which knows neither NaN nor infinity."""
    return round(float(value), digits) if math.isfinite(value) else None


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn a failed write into the UserError that names `path`."""
    try:
        yield
    except OSError as error:  # FFmpeg's "no space left" is one too
        raise write_error(path, error) from error


def check_not_source(output: Path, source: Source) -> None:
    """Raise UserError when the output would take the place of what is being read."""
    if output.resolve() in (source.path.resolve(), source.path.resolve().parent):
        raise UserError(
            f"{output}: got an output in the place of the source, expected another name; "
            "choose one with --output"
        )


def _row(frame: Frame, detection: Detection) -> list[Any]:
    row = [frame.source, frame.index, f"{frame.time_s:.6f}", detection.track]
    row += [f"{value:g}" for value in detection.box]
    for (x, y), score in zip(detection.points.tolist(), detection.scores.tolist(), strict=True):
        row += [f"{x:.3f}", f"{y:.3f}", f"{score:.4f}"]
    return row
