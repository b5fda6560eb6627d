"""What every output is: a sink takes frames in order, and its file appears whole or not at all."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError, write_error
from lmk.runtime.files import atomic_path
from lmk.runtime.sources import Source


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


class Spool:
    """Keeps every object found on disk, in `folder`; gone with the process, whatever ends it."""

    def __init__(self, folder: Path, num_landmarks: int) -> None:
        values = ("values", np.float32, (num_landmarks, 3))
        self._dtype = np.dtype([("row", np.int64), ("track", np.int32), values])
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def add(self, row: int, detection: Detection) -> None:
        """Keep an object found in frame `row`; rows never fall."""
        record = np.zeros((), self._dtype)
        record["row"], record["track"] = row, detection.track
        record["values"] = np.column_stack([detection.points, detection.scores])
        self._file.write(record.tobytes())

    def read(self) -> NDArray[np.void]:
        """All objects in their order: `row`, `track` and `values` (K,3), x, y, score."""
        self._file.seek(0)
        return np.frombuffer(self._file.read(), self._dtype)

    def close(self) -> None:
        """Let it go; harmless twice."""
        self._file.close()
