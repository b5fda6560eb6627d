"""Detections -> a file without a name -> an array: for formats that need the whole run at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.landmarker import Detection


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
