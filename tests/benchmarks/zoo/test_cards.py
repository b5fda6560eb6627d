"""The cards of what ships say what zoo.json says, and nothing of files that are others."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from click.testing import CliRunner

from lmk.benchmarks.zoo import cards
from lmk.train.network.checkpoint import save

MACHINE = {"cpu": "Abacus 3", "cores": 7, "gpu": None}
NETWORK = {"num_landmarks": 14, "width": 128, "input_size": 64}
REPORT = {
    "test_images": 321,
    "consistency_px": 1.2345,
    "consistency_still_px": 9.876,
    "spread_px": 24.5,
    "collapsed": False,
    "collapsed_because": "",
}
ERRORS = {
    "normaliser": "inter-ocular",
    "covered_percent": 66.666,
    "forward_percent": 11.111,
    "forward_mean_shape_percent": 33.333,
    "backward_percent": 22.222,
    "backward_mean_shape_percent": 44.444,
}
COMMON = {"network": NETWORK, "seconds": 2718.28, "map_images": 200}


@pytest.fixture
def folder(tmp_path):
    """A zoo of a core and a pack: files that hold one number each, and what was measured."""
    import torch

    sha256 = {}
    network = {"num_landmarks": 10, "width": 128, "input_size": 128}
    of_a_pack = {
        "category": "cats",
        "method": "projection",
        "scope": "all",
        "train_plain_convs": False,
        "core_sha256": "",
        "crop_scale": 1.0,
        "landmark_names": [f"p{index}" for index in range(10)],
    }
    for value, (name, kind) in enumerate((("core", "core"), ("cats", "pack"))):
        tensors = {"a": torch.full((1,), float(value))}
        header = {"network": network, **(of_a_pack if kind == "pack" else {})}
        save(tmp_path / f"{name}.safetensors", kind, tensors, header)
        sha256[name] = cards.read_header(tmp_path / f"{name}.safetensors")["sha256"]
    core = {
        "kind": "core",
        "data": ["pose_lspet"],
        "core": None,
        "core_sha256": None,
        "command": "lmk train-core --data pose_lspet --steps 4981",
        "images": 6631,
        "landmarks": 14,
        "steps": 4981,
        "bytes": 3218984,
        "sha256": sha256["core"],
        "machine": MACHINE,
        "accuracy": {"pck": 0.50412, "normaliser": "torso", "test_images": 737},
        "parameters": 1566030,
        **COMMON,
    }
    pack = {
        "kind": "pack",
        "data": ["cat_heads", "builtin:butterfly", "mine"],
        "core": "core",
        "core_sha256": sha256["core"],
        "command": "lmk adapt --data cat_heads --core core.safetensors --steps 1500",
        "images": 5831,
        "landmarks": 10,
        "steps": 1500,
        "bytes": 301234,
        "sha256": sha256["cats"],
        "machine": {**MACHINE, "gpu": "Loom 9000"},
        "remark": "Slower than before.",
        "measures": [{"data": "cat_heads", **REPORT}, {"data": "faces", **REPORT, **ERRORS}],
        "parameters": 1700000,
        **COMMON,
    }
    zoo = {"plan": "cpu", "entries": {"core": core, "cats": pack, "shoes": {"machine": MACHINE}}}
    (tmp_path / "zoo.json").write_text(json.dumps(zoo))
    return tmp_path


def page_of(folder):
    result = CliRunner().invoke(cards.main, [str(folder)])
    assert result.exit_code == 0, result.output
    return (folder / "README.md").read_text()


def known_numbers(value):
    """All numbers of zoo.json, those within its words too."""
    if isinstance(value, dict):
        return {number for each in value.values() for number in known_numbers(each)}
    if isinstance(value, list):
        return {number for each in value for number in known_numbers(each)}
    return {float(text) for text in re.findall(r"\d+(?:\.\d+)?", str(value))}


def test_every_number_of_the_cards_is_in_the_json(folder):
    zoo = json.loads((folder / "zoo.json").read_text())
    page = page_of(folder).removeprefix(cards._INTRODUCTION)
    for what, _ in cards.SOURCES.values():
        page = page.replace(what, "")
    page = page.replace("PCK@0.2", "").replace("px of 128", "")  # what the measures are
    page = re.sub("`[0-9a-f]{12}`", "", page)
    shown = [number.replace(",", "") for number in re.findall(r"\d[\d,]*(?:\.\d+)?", page)]
    known = known_numbers(zoo)
    assert len(shown) > 30
    for text in shown:
        digits = len(text.partition(".")[2])
        assert any(f"{number:.{digits}f}" == text for number in known), text


def test_what_a_card_says(folder):
    core, cats = page_of(folder).split("\n## ")[1:]
    assert "4,981 steps, 2,718 s, on 7 cores of Abacus 3" in core
    assert "PCK@0.2 of the torso 0.504 on 737 images" in core and "citation asked" in core
    assert "pack of 10 landmarks, for [core](#core)" in cats and "on Loom 9000" in cats
    assert "![Where the landmarks of 200 images land](cats.png)" in cats
    assert "Terms: none stated with the copy that was used" in cats
    assert "`builtin:butterfly`: drawn by the package itself" in cats
    assert "`mine`: not known to this card" in cats
    assert "| cat_heads | 321 | 1.23 | 9.88 | 24.50 |  |  |  |  |" in cats
    assert "| faces | 321 | 1.23 | 9.88 | 24.50 | 66.67 | 11.11 | 33.33 | 22.22 | 44.44 |" in cats
    assert cats.endswith("\n\nSlower than before.\n") and "None" not in core
    assert "collapsed" not in cats


def test_a_student_names_its_teacher(folder):
    zoo = json.loads((folder / "zoo.json").read_text())
    shutil.copy(folder / "core.safetensors", folder / "tigers.safetensors")
    sha256 = zoo["entries"]["core"]["sha256"]
    taught = {"name": "tigers", "sha256": sha256, "mean_px": 0.824, "p99_px": 4.57}
    zoo["entries"]["cats"] |= {"core": None, "core_sha256": None, "teacher": taught}
    (folder / "zoo.json").write_text(json.dumps(zoo))
    page = page_of(folder)
    assert (
        "a student of [tigers](#tigers): 0.82 px of 128 from it on average, more than 4.6" in page
    )
    assert "1,700,000 parameters" in page
    shutil.copy(folder / "cats.safetensors", folder / "tigers.safetensors")  # trained anew since
    result = CliRunner().invoke(cards.main, [str(folder)])
    assert result.exit_code == 1 and "tigers.safetensors: got weights" in result.output


def test_a_collapsed_pack_and_an_unknown_machine_are_told(folder):
    zoo = json.loads((folder / "zoo.json").read_text())
    entry = zoo["entries"]["cats"]
    entry["measures"][0] |= {"collapsed": True, "collapsed_because": "they sit on one blob"}
    entry["machine"] = None
    (folder / "zoo.json").write_text(json.dumps(zoo))
    page = page_of(folder)
    assert "cat_heads: collapsed, they sit on one blob." in page
    assert "on a machine that was not recorded" in page


@pytest.mark.parametrize(("name", "other"), [("cats", "core"), ("core", "cats"), ("cats", None)])
def test_a_file_that_is_missing_or_not_the_one_measured(folder, name, other):
    path = folder / f"{name}.safetensors"
    path.unlink() if other is None else shutil.copy(folder / f"{other}.safetensors", path)
    result = CliRunner().invoke(cards.main, [str(folder)])
    assert result.exit_code == 1
    assert f"{name}.safetensors: got weights {'none' if other is None else ''}" in result.output
    assert not (folder / "README.md").exists()


def test_a_folder_without_measures(tmp_path):
    result = CliRunner().invoke(cards.main, [str(tmp_path)])
    assert result.exit_code == 1 and "no such file; make it by train_zoo" in result.output


@pytest.mark.parametrize(("forward", "told"), [(33.0, True), (30.0, False)])
def test_a_pack_that_knows_no_more_than_the_mean_shape_says_so(folder, forward, told):
    zoo = json.loads((folder / "zoo.json").read_text())
    zoo["entries"]["cats"]["measures"][1]["forward_percent"] = forward
    (folder / "zoo.json").write_text(json.dumps(zoo))
    assert ("faces: as good as the mean shape, no better" in page_of(folder)) is told
