"""Detections -> a Parquet table: the columns of the CSV, typed, units in its metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.files import atomic_path
from lmk.runtime.outputs.sink import FileSink, columns, write_errors
from lmk.runtime.sources import Source

if TYPE_CHECKING:
    import pyarrow

GROUP_ROWS = 16384  # rows that are kept in memory, 2 MB of 10 landmarks
_PIXELS = "pixels of the frame; (0, 0) is the centre of the top-left pixel"
_EDGES = "pixels of the frame; (0, 0) is the top-left corner"


class ParquetSink(FileSink):
    """One row per object and frame, as `CsvSink` but unrounded, written in groups as they fill.

    source: string; frame: int64; time_s: float64; track: int32; all others: float32.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        super().__init__(path)
        self._columns = columns(names)

    def begin(self, source: Source, path: Path) -> None:
        """Start the file with its schema."""
        import pyarrow.parquet

        self._schema = _schema(self._columns)
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._keys: list[tuple[str, int, float, int]] = []
        self._values: list[np.ndarray] = []

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add a row for each object of one frame."""
        for each in detections:
            self._keys.append((frame.source, frame.index, frame.time_s, each.track))
            landmarks = np.column_stack([each.points, each.scores])
            self._values.append(np.concatenate([each.box, landmarks.ravel()], dtype=np.float32))
            if len(self._keys) == GROUP_ROWS:
                with write_errors(self.path):
                    self._flush()

    def _flush(self) -> None:
        import pyarrow

        keys: list[Sequence[object]] = list(zip(*self._keys, strict=True)) or [[]] * 4
        values = np.stack(self._values) if self._values else np.empty((0, len(self._columns) - 4))
        arrays = [
            pyarrow.array(column, field.type)
            for column, field in zip([*keys, *values.T], self._schema, strict=True)
        ]
        self._writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self._schema))
        self._keys, self._values = [], []

    def end(self) -> None:
        """Write the last rows and the index."""
        self._flush()
        self._writer.close()

    def drop(self) -> None:
        """Close it."""
        self._writer.close()


def _schema(names: Sequence[str]) -> pyarrow.Schema:
    import pyarrow

    types = {
        "source": pyarrow.string(),
        "frame": pyarrow.int64(),
        "time_s": pyarrow.float64(),
        "track": pyarrow.int32(),
    }
    fields = [
        pyarrow.field(name, types.get(name, pyarrow.float32()), metadata={"unit": _unit(name)})
        for name in names
    ]
    return pyarrow.schema(fields, metadata={"writer": "lmk", "points": _PIXELS, "boxes": _EDGES})


def _unit(column: str) -> str:
    if column == "time_s":
        return "seconds since the first frame"
    if column.startswith("box_"):
        return _EDGES
    if column.endswith(("_x", "_y")):
        return _PIXELS
    return "0 to 1, the higher the surer" if column.endswith("_score") else ""


def join_parquet(parts: Sequence[Path], target: Path) -> None:
    """Write the rows of all `parts`, in their order, into `target`, whose schema is theirs."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(parts[0])
    with (
        atomic_path(target) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        rows = schema.empty_table()
        for part in parts:
            rows = pyarrow.concat_tables([rows, pyarrow.parquet.read_table(part, schema=schema)])
            while rows.num_rows >= GROUP_ROWS:
                writer.write_table(rows.slice(0, GROUP_ROWS), GROUP_ROWS)
                rows = rows.slice(GROUP_ROWS)
        writer.write_table(rows)
