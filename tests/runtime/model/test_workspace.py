"""Inputs that were not named: found past whatever else lies in the folder."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lmk.runtime.errors import UserError
from lmk.runtime.model import workspace
from lmk.runtime.model.weights import read_header


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workspace, "ZOO", tmp_path / "zoo")
    Path("runs").mkdir()
    return Path("runs")


_WHOLE = {
    "category": "toys",
    "method": "projection",
    "scope": "all",
    "train_plain_convs": False,
    "core_sha256": "",
    "crop_scale": 1.0,
    "landmark_names": ["p0"],
    "network": {"num_landmarks": 1, "width": 16, "input_size": 64},
    "sha256": "",
}


def _write(path: Path, age: float = 0.0, **header) -> Path:
    metadata = {"lmk": json.dumps(_WHOLE | header)} if header else None
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


def test_newest_onnx_is_in_fp32_if_there_is_one(runs):
    for age, name in enumerate(["cats-bf16", "cats", "cats-int8"]):
        path = runs / f"{name}.onnx"
        path.write_bytes(b"")
        os.utime(path, (1000 - age, 1000 - age))
    assert workspace.newest("onnx") == runs / "cats.onnx"
    (runs / "cats.onnx").unlink()
    assert workspace.newest("onnx") == runs / "cats-bf16.onnx"


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


def test_a_category_s_pack_is_found_by_its_name(runs, tmp_path):
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    shipped = _write(zoo / "cats.safetensors", kind="pack")
    _write(zoo / "core.safetensors", kind="core")
    _clutter(runs)
    assert workspace.pack_named("cats") == shipped
    mine = _write(runs / "cats.safetensors", kind="pack")
    _write(runs / "cups.safetensors", kind="pack")
    assert workspace.pack_named("cats") == mine
    assert workspace.pack_named("core") is workspace.pack_named("dogs") is None
    assert workspace.pack_names() == {"cats", "cups"}


def test_nothing_is_made_among_what_ships(runs, tmp_path):
    shipped = _write_in(tmp_path / "zoo")
    assert workspace.made_of(shipped, ".onnx") == runs / "cats.onnx"
    assert workspace.made_of(_write_in(tmp_path), "-fp16.onnx") == tmp_path / "cats-fp16.onnx"


def _write_in(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return _write(folder / "cats.safetensors", kind="pack")


def test_the_core_of_people_ships_as_the_default_and_no_pack_does(runs):
    zoo = workspace.ZOO
    zoo.mkdir()
    core = _write(zoo / "core.safetensors", age=9, kind="core")
    _write(zoo / "face-core.safetensors", kind="core")
    for name in ("cats", "shoes"):
        _write(zoo / f"{name}.safetensors", kind="pack")
    assert workspace.newest("core") == core
    for kind in ("pack", "onnx"):
        with pytest.raises(UserError, match="or a category that ships: cats, shoes"):
            workspace.newest(kind)


def test_a_pack_is_picked_by_its_category(runs, capsys):
    workspace.ZOO.mkdir()
    pack = _write(workspace.ZOO / "cats.safetensors", kind="pack")
    assert workspace.pick(Path("cats"), "pack") == pack
    assert f"pack: {pack}" in capsys.readouterr().err.replace("\n", "")
    assert workspace.pick(Path("dogs"), "pack") == Path("dogs")  # whoever reads it says so
    assert workspace.pick(Path("cats"), "onnx") == Path("cats")
    own = _write(Path("cats"), kind="pack")
    assert workspace.pick(Path("cats"), "pack") == own


def test_a_damaged_pack_does_not_give_way_to_the_one_that_ships(runs):
    workspace.ZOO.mkdir()
    _write(workspace.ZOO / "cats.safetensors", kind="pack")
    (runs / "cats.safetensors").write_bytes(b"half of it")
    with pytest.raises(UserError, match="cats.safetensors: truncated"):
        workspace.pack_named("cats")


def test_a_folder_of_its_name_does_not_hide_a_category(runs):
    pack = _write(runs / "toys.safetensors", kind="pack")
    Path("toys").mkdir()
    assert workspace.pick(Path("toys"), "pack") == pack
    Path("others").mkdir()
    assert workspace.pick(Path("others"), "pack") == Path("others")
