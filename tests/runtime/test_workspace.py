"""Inputs that were not named: found past whatever else lies in the folder."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lmk.runtime import workspace
from lmk.runtime.errors import UserError
from lmk.runtime.weights import read_header


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workspace, "ZOO", tmp_path / "zoo")
    Path("runs").mkdir()
    return Path("runs")


def _write(path: Path, age: float = 0.0, **header) -> Path:
    metadata = {"lmk": json.dumps(header)} if header else None
    save_file({"x": np.zeros(1, np.float32)}, path, metadata=metadata)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def _clutter(folder: Path) -> list[Path]:
    """What others leave; all of it newer than what `_write` leaves."""
    corrupt, foreign = folder / "a_corrupt.safetensors", folder / "a_foreign.safetensors"
    corrupt.write_bytes(b"half")
    save_file({"x": np.zeros(1, np.float32)}, foreign)
    (folder / "a_folder.safetensors").mkdir()
    (folder / "a_link.safetensors").symlink_to("nowhere")
    (folder / "a_folder.onnx").mkdir()
    return [corrupt, foreign]


def test_newest_skips_what_is_not_ours_and_says_so(runs, caplog):
    _write(runs / "old.safetensors", age=9, kind="pack")
    pack = _write(runs / "new.safetensors", kind="pack")
    core = _write(runs / "core.safetensors", age=20, kind="core")
    clutter = _clutter(runs)
    with caplog.at_level(logging.WARNING):
        assert workspace.newest("pack") == pack
    assert len(caplog.messages) == 2
    for path in clutter:
        assert any(text.startswith(f"skipped {path}: ") for text in caplog.messages)
    assert workspace.newest("core") == core


def test_newest_onnx_is_the_newest_file(runs):
    _clutter(runs)
    for age, name in enumerate("bac"):
        (runs / f"{name}.onnx").write_bytes(b"anything")
        os.utime(runs / f"{name}.onnx", (1e9 - age, 1e9 - age))
    assert workspace.newest("onnx") == runs / "b.onnx"


def test_nothing_usable_names_the_command(runs):
    _clutter(runs)
    for kind, command in (("pack", "lmk adapt"), ("onnx", "lmk export")):
        with pytest.raises(UserError, match=f"no {kind} in runs/.*`{command}`"):
            workspace.newest(kind)


def test_core_is_found_by_its_digest_past_the_clutter(runs, tmp_path, caplog):
    beside = tmp_path / "elsewhere"
    beside.mkdir()
    pack = _write(beside / "pack.safetensors", kind="pack", core_sha256="abc")
    _clutter(beside)
    _clutter(runs)
    _write(runs / "b.safetensors", kind="core", sha256="another")
    _write(runs / "c.safetensors", kind="core")  # no digest
    with pytest.raises(UserError, match="its core, sha256 abc, is not in"):
        workspace.core_of(pack)
    core = _write(runs / "d.safetensors", kind="core", sha256="abc")
    assert workspace.core_of(pack) == core
    assert workspace.core_of(_write(runs / "e.safetensors", kind="pack")) is None


def test_named_files_still_raise(runs, tmp_path):
    for path in _clutter(runs):
        with pytest.raises(UserError, match="expected a core made by"):
            workspace.core_of(path)
    with pytest.raises(UserError, match="is a folder, expected a core made by"):
        read_header(runs)
    (runs / "a.onnx").write_bytes(b"")
    with pytest.raises(
        UserError, match="a.onnx: is an exported model, expected .* a category pack"
    ):
        read_header(runs / "a.onnx")
