"""Matlab's files: struct arrays with what may be missing, and files that are something else."""

import sys

import numpy as np
import pytest
from scipy.io import savemat

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.matlab import field, number, read_mat, rows, text


def test_struct_arrays_and_what_may_be_missing(tmp_path, struct):
    people = struct(
        {"name": "a.jpg", "scale": 1.5, "flag": "1", "inner": struct({"x": np.uint8(7)})},
        {"name": None, "scale": None, "flag": None, "inner": None},
    )
    savemat(tmp_path / "a.mat", {"people": people, "none": np.zeros((0, 0))}, do_compression=True)
    first, second = rows(read_mat(tmp_path / "a.mat", "people"))
    assert text(first, "name") == "a.jpg" and text(second, "name") == text(first, "absent") == ""
    assert number(first, "scale") == 1.5 and number(first, "flag") == 1
    assert np.isnan([number(second, "scale"), number(second, "flag"), number(first, "name")]).all()
    assert number(rows(field(first, "inner"))[0], "x") == 7
    assert len(rows(field(second, "inner"))) == len(rows(field(first, "absent"))) == 0
    assert len(rows(read_mat(tmp_path / "a.mat", "none"))) == 0


def test_absent_truncated_and_other_files(tmp_path):
    path, values = tmp_path / "a.mat", np.random.default_rng(0).normal(size=(50, 50))
    savemat(path, {"joints": values}, do_compression=True)
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink()
    for content in (None, b"", half, b"no file of Matlab's", b"MATLAB 5.0 MAT-file" * 20):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.mat: cannot be read as a \.mat file .*it again"):
            read_mat(path, "joints")


def test_another_file(tmp_path):
    savemat(tmp_path / "a.mat", {"gt": np.zeros(3), "hw": np.zeros(2)})
    with pytest.raises(UserError, match="got the variables gt, hw, expected 'joints'"):
        read_mat(tmp_path / "a.mat", "joints")


def test_without_scipy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"scipy is missing.*pip install 'lmk-toolkit\[train\]'"):
        read_mat(tmp_path / "a.mat", "joints")
