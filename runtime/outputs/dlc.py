"""Detections -> a DeepLabCut table, as CSV or HDF5: a row per frame, columns per object."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.files import as_cell
from lmk.runtime.outputs.sink import FileSink, Spool, write_errors
from lmk.runtime.sources import Source

if TYPE_CHECKING:
    import pandas

SCORER = "lmk"
KEY = "df_with_missing"  # DeepLabCut's own name of its table in HDF5
_COORDS = ("x", "y", "likelihood")
_CHUNK = 4096  # frames
_HEADER_BYTES = 60_000  # HDF5 keeps the names of the columns in one message of at most 64 KiB


class _DlcSink(FileSink):
    """The table of all frames from 0 on: columns scorer, bodyparts, coords (x, y, likelihood).

    Points in frame pixels, the centre of the top-left one (0, 0), as DeepLabCut's labels;
    likelihood is the landmark's score. The index is the frame's number for a video (a frame that
    could not be read is there, empty) and the file's name for images. Where several objects are in
    one frame, `individuals` follows scorer: a track keeps its individual, and when it has ended the
    next one takes it, so that an object that was lost and found again needs no further columns.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        super().__init__(path)
        self._names = list(names)

    def begin(self, source: Source, path: Path) -> None:
        """Start the spool: how many individuals there are is known at the end."""
        self._is_video = source.frame_rate is not None
        self._temporary, self._most = path, 1
        self._index: list[str] = []
        self._num_rows = 0
        self._spool = Spool(path.parent, len(self._names))

    def write(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Add one frame; raises UserError for more objects at once than HDF5 has room for."""
        if len(detections) > self._most:
            self._most = len(detections)
            self._check_columns()
        row = frame.index if self._is_video else self._num_rows
        self._num_rows = row + 1
        if not self._is_video:
            self._index.append(frame.source)
        with write_errors(self.path):
            for detection in detections:
                self._spool.add(row, detection)

    def _check_columns(self) -> None:
        size = len(pickle.dumps(self._columns(self._most).to_list(), 0))
        if size > _HEADER_BYTES:
            raise UserError(
                f"{self.path}: got {self._most} objects in one frame, more than a DeepLabCut table "
                "has room for; leave the format dlc out"
            )

    def _columns(self, num_individuals: int) -> pandas.MultiIndex:
        import pandas

        individuals = [f"individual{number}" for number in range(1, num_individuals + 1)]
        levels = {"scorer": [SCORER], "individuals": individuals, "bodyparts": self._names}
        if num_individuals == 1:
            del levels["individuals"]
        levels["coords"] = list(_COORDS)
        return pandas.MultiIndex.from_product(levels.values(), names=levels.keys())

    def _chunks(self) -> Iterator[pandas.DataFrame]:
        import pandas

        found = self._spool.read()
        slots = _slots(found["row"], found["track"])
        num_individuals = int(slots.max(initial=0)) + 1
        columns = self._columns(num_individuals)
        index: Any = self._index if not self._is_video else np.arange(self._num_rows)
        for start in range(0, max(self._num_rows, 1), _CHUNK):
            stop = min(start + _CHUNK, self._num_rows)
            part = slice(*np.searchsorted(found["row"], [start, stop]))
            table = np.full((stop - start, len(columns)), np.nan)
            values = table.reshape(stop - start, num_individuals, len(self._names), 3)
            values[found["row"][part] - start, slots[part]] = found["values"][part]
            yield pandas.DataFrame(table, pandas.Index(index[start:stop]), columns)

    def end(self) -> None:
        """Write the table."""
        self.save(self._temporary, self._chunks())
        self._spool.close()

    def drop(self) -> None:
        """Let the spool go."""
        self._spool.close()

    def save(self, path: Path, chunks: Iterator[pandas.DataFrame]) -> None:
        """Write the chunks of the table, one below the other."""
        raise NotImplementedError


class DlcCsvSink(_DlcSink):
    """The table as CSV, a header line per level, as DeepLabCut writes it.

    File names that a spreadsheet would run are quoted, as by `CsvSink`. Names of landmarks are not:
    readers look them up in the header.
    """

    def save(self, path: Path, chunks: Iterator[pandas.DataFrame]) -> None:
        """See `_DlcSink.save`; 7 digits are all that float32 has."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            for number, chunk in enumerate(chunks):
                # Not empty fields: pandas would take a first row of them for names of the index.
                options = {"na_rep": "NaN", "float_format": "%.7g", "lineterminator": "\n"}
                if not self._is_video:
                    chunk.index = chunk.index.map(as_cell)
                chunk.to_csv(file, header=number == 0, **options)


class DlcHdfSink(_DlcSink):
    """The table as HDF5 by PyTables, under the key that DeepLabCut uses."""

    def save(self, path: Path, chunks: Iterator[pandas.DataFrame]) -> None:
        """See `_DlcSink.save`; raises UserError when HDF5 cannot write, as on a full disk."""
        import pandas
        from tables.exceptions import HDF5ExtError

        longest = max(map(len, map(str.encode, self._index)), default=0)
        try:
            with pandas.HDFStore(path, "w") as store:
                for chunk in chunks:
                    if chunk.empty:
                        continue  # HDF5 has no table of no rows
                    store.put(
                        KEY,
                        chunk,
                        format="table",
                        append=True,
                        index=False,  # as track_times: it would carry the time of its making
                        track_times=False,
                        min_itemsize={"index": longest} if longest else None,
                    )
        except HDF5ExtError as error:
            raise UserError(
                f"{self.path}: cannot be written by HDF5; check the free space and the folder's "
                "permissions"
            ) from error


def _slots(rows: NDArray[np.int64], tracks: NDArray[np.int32]) -> NDArray[np.int64]:
    """(N,) which individual each object is: the first that is free while its track lasts."""
    numbers, first, inverse = np.unique(tracks, return_index=True, return_inverse=True)
    last = np.zeros(len(numbers), np.int64)
    np.maximum.at(last, inverse, rows)
    slot_of = np.zeros(len(numbers), np.int64)
    busy_until: list[int] = []  # of each slot
    for track in np.argsort(first, kind="stable"):
        start = rows[first[track]]
        free = (slot for slot, until in enumerate(busy_until) if until < start)
        slot = next(free, len(busy_until))
        busy_until[slot : slot + 1] = [int(last[track])]
        slot_of[track] = slot
    return slot_of[inverse]
