"""DeepLabCut tables, read as its ecosystem reads them."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.outputs import dlc
from lmk.runtime.outputs.dlc import DlcCsvSink, DlcHdfSink

pandas = pytest.importorskip("pandas")
pytest.importorskip("tables")
NAMES = ["nose", "tail"]


def _detection(index, track):
    points = np.array([[index + 0.25, 100 * track + 2.5], [30.0, 20.0]], np.float32)
    return Detection(points, np.array([0.5, 1.0], np.float32), (0, 0, 64, 48), track)


def _write(tmp_path, frames, rate=Fraction(25), names=NAMES):
    """Write frames {index or name: tracks}; the two files."""
    for sink in (DlcCsvSink(tmp_path / "l.dlc.csv", names), DlcHdfSink(tmp_path / "l.h5", names)):
        sink.open(SimpleNamespace(path=Path("/elsewhere"), frame_rate=rate))
        for number, (key, tracks) in enumerate(frames.items()):
            frame = Frame(str(key), key if rate else number, 0.0, np.zeros((4, 6, 3), np.uint8))
            sink.write(frame, [_detection(number, track) for track in tracks])
        sink.close()
    return tmp_path / "l.dlc.csv", tmp_path / "l.h5"


def _read(csv_path, hdf_path, header):
    """Both as DeepLabCut, movement and keypoint-moseq read them."""
    table = pandas.read_hdf(hdf_path)
    from_csv = pandas.read_csv(csv_path, header=header, index_col=0)
    pandas.testing.assert_frame_equal(from_csv, table, rtol=1e-6, check_dtype=False)
    return table


def test_one_object_has_three_levels(tmp_path):
    table = _read(*_write(tmp_path, {0: [5], 1: [], 2: [5]}), [0, 1, 2])
    assert table.columns.names == ["scorer", "bodyparts", "coords"] and table.shape == (3, 6)
    assert table.columns[:3].to_list() == [("lmk", "nose", c) for c in ("x", "y", "likelihood")]
    values = table.to_numpy().reshape(3, -1, 3)  # as keypoint-moseq does
    np.testing.assert_array_equal(values[2], [[2.25, 502.5, 0.5], [30, 20, 1]])
    assert np.isnan(values[1]).all()


def test_several_objects_have_four_levels(tmp_path):
    table = _read(*_write(tmp_path, {0: [0, 1], 1: [1], 2: [0, 1]}), [0, 1, 2, 3])
    assert table.columns.names == ["scorer", "individuals", "bodyparts", "coords"]
    for number, individual in enumerate(["individual1", "individual2"]):
        one = table.xs(individual, axis=1, level="individuals").to_numpy().reshape(3, -1, 3)
        np.testing.assert_array_equal(one[2, 0], [2.25, 100 * number + 2.5, 0.5])
        assert np.isnan(one[1]).all() == (number == 0)


def test_a_file_name_is_no_formula_in_the_csv(tmp_path):
    csv_path, hdf_path = _write(tmp_path, {"=1+1.png": [0], "a.png": [0]}, None, ["-nose", "tail"])
    table, from_csv = pandas.read_hdf(hdf_path), pandas.read_csv(csv_path, header=[0, 1, 2])
    assert table.index.to_list() == ["=1+1.png", "a.png"]
    assert from_csv.iloc[:, 0].to_list() == ["'=1+1.png", "a.png"]
    assert table.columns[0][1] == from_csv.columns[1][1] == "-nose"  # readers look it up


@pytest.mark.parametrize("first", [[], [3]])
def test_first_frame_is_a_row_even_if_empty(tmp_path, first):
    assert len(_read(*_write(tmp_path, {0: first, 1: [3]}), [0, 1, 2])) == 2


def test_frames_that_could_not_be_read_are_empty_rows(tmp_path):
    table = _read(*_write(tmp_path, {1: [0], 4: [0]}), [0, 1, 2])
    assert table.index.to_list() == list(range(5))
    assert np.isfinite(table.to_numpy()).all(axis=1).tolist() == [False, True, False, False, True]


def test_images_are_called_by_their_files(tmp_path):
    frames = {"a.png": [0], "sub/ünlong name.png": [0]}
    table = _read(*_write(tmp_path, frames, rate=None), [0, 1, 2])
    assert table.index.to_list() == list(frames)


def test_object_found_again_needs_no_new_columns(tmp_path):
    """Tracks that follow each other share an individual; those at the same time do not."""
    frames = {0: [0], 1: [0, 1], 2: [1], 3: [1, 2], 4: [2, 3]}
    table = _read(*_write(tmp_path, frames), [0, 1, 2, 3])
    second = table[("lmk", "individual2", "nose", "y")].tolist()
    first = table[("lmk", "individual1", "nose", "y")].tolist()
    np.testing.assert_array_equal(first, [2.5, 2.5, np.nan, 202.5, 202.5])
    np.testing.assert_array_equal(second, [np.nan, 102.5, 102.5, 102.5, 302.5])


def test_chunks_make_one_table(tmp_path, monkeypatch):
    frames = {index: [0] if index % 3 else [0, 1] for index in range(11)}
    whole = _read(*_write(tmp_path, frames), [0, 1, 2, 3])
    monkeypatch.setattr(dlc, "_CHUNK", 4)
    pandas.testing.assert_frame_equal(_read(*_write(tmp_path, frames), [0, 1, 2, 3]), whole)


def test_more_objects_than_hdf5_can_name_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"got \d+ objects in one frame.*leave the format dlc out"):
        _write(tmp_path, {0: range(1000)})


def test_no_frame_gives_a_table_without_rows(tmp_path):
    csv_path, _ = _write(tmp_path, {})
    assert csv_path.read_text().splitlines()[0].startswith("scorer,lmk")
