"""The Parquet table is that of the CSV, typed, in groups of fixed size."""

import csv
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.outputs import parquet
from lmk.runtime.outputs.parquet import ParquetSink
from lmk.runtime.outputs.tables import CsvSink

NAMES = ["nose", "tail"]
SOURCE = SimpleNamespace(path=Path("/elsewhere/v.mp4"), frame_rate=Fraction(25))


def _write(path, sink_type, num_objects):
    rng = np.random.default_rng(0)
    sink = sink_type(path, NAMES)
    sink.open(SOURCE)
    for index, count in enumerate(num_objects):
        found = [
            Detection(
                rng.normal(50, 9, (2, 2)).astype(np.float32),
                rng.random(2).astype(np.float32),
                (0.5, 1.0, 64.0, 48.0),
                track,
            )
            for track in range(count)
        ]
        sink.write(Frame("v.mp4", index, index / 25, np.zeros((4, 6, 3), np.uint8)), found)
    sink.close()


def test_table_is_that_of_the_csv(tmp_path):
    _write(tmp_path / "a.parquet", ParquetSink, [1, 0, 3])
    _write(tmp_path / "a.csv", CsvSink, [1, 0, 3])
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert table.column_names == list(rows[0]) and table.num_rows == len(rows) == 4
    for row, expected in zip(table.to_pylist(), rows, strict=True):
        assert row.pop("source") == expected.pop("source")
        np.testing.assert_allclose(
            list(row.values()), [float(v) for v in expected.values()], 1e-3, 1e-3
        )


def test_types_and_units_are_told(tmp_path):
    _write(tmp_path / "a.parquet", ParquetSink, [1])
    schema = pyarrow.parquet.read_schema(tmp_path / "a.parquet")
    types = {name: str(schema.field(name).type) for name in ("source", "frame", "time_s", "track")}
    assert types == {"source": "string", "frame": "int64", "time_s": "double", "track": "int32"}
    assert {str(field.type) for field in schema} - set(types.values()) == {"float"}
    assert b"centre of the top-left pixel" in schema.field("nose_x").metadata[b"unit"]
    assert b"seconds" in schema.field("time_s").metadata[b"unit"]


@pytest.mark.parametrize("num_objects", [[], [0, 0], [3, 0, 1, 3], [2, 2]])
def test_groups_are_of_one_size(tmp_path, monkeypatch, num_objects):
    monkeypatch.setattr(parquet, "GROUP_ROWS", 2)
    _write(tmp_path / "a.parquet", ParquetSink, num_objects)
    file = pyarrow.parquet.ParquetFile(tmp_path / "a.parquet")
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sum(sizes) == sum(num_objects) and set(sizes[:-1]) <= {2}
    frames = [n for n, count in enumerate(num_objects) for _ in range(count)]
    assert file.read()["frame"].to_pylist() == frames
