"""What makes the files that ship, dry: three small steps of everything, in interrupted pieces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lmk.benchmarks import demo
from lmk.benchmarks.zoo import train_zoo
from lmk.benchmarks.zoo.measure import PLANS, Stage, command
from lmk.commands import cli
from lmk.runtime.errors import UserError
from lmk.runtime.model.weights import read_header
from lmk.runtime.regions import Finding
from lmk.train.network.category import load_pack

NAMES = ["core", "face-core", "butterflies", "puppets", "butterflies-fast"]
SCRIPT = Path(train_zoo.__file__).with_suffix(".sh")


def call(folder, *more: str) -> str:
    arguments = ["--work", str(folder / "work"), "--output", str(folder / "out"), *more]
    result = CliRunner().invoke(train_zoo.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()[-1]


@pytest.mark.usefixtures("tiny")
def test_pieces_go_on_where_the_last_one_stopped(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_zoo, "adapt", interrupted)
        assert "call again" in call(tmp_path, "--dry-run")
    out = tmp_path / "out"
    before = (out / "core.safetensors").read_bytes()
    with monkeypatch.context() as patched:  # trained, and stopped before it was measured
        patched.setattr(train_zoo, "_judge", interrupted)
        assert "call again" in call(tmp_path, "--dry-run")
    assert call(tmp_path, "--dry-run", "--minutes", "1h") == "all done"
    assert (out / "core.safetensors").read_bytes() == before

    results = json.loads((out / "zoo.json").read_text())
    assert list(results["entries"]) == NAMES and results["plan"] == "dry"
    for name, entry in results["entries"].items():
        header = read_header(out / f"{name}.safetensors")
        assert entry["sha256"] == header["sha256"] and entry["steps"] == 3
        assert entry["bytes"] == (out / f"{name}.safetensors").stat().st_size
        assert entry["machine"]["versions"]["torch"]
        assert Image.open(out / f"{name}.png").size == (288, 288)
    packs = {name: results["entries"][name] for name in NAMES[2:4]}
    for name, entry in packs.items():
        core = out / f"{entry['core']}.safetensors"
        load_pack(out / f"{name}.safetensors", core)
        assert entry["core_sha256"] == read_header(core)["sha256"]
        assert np.isfinite(entry["measures"][0]["consistency_px"])
    assert [r["data"] for r in packs["butterflies"]["measures"]] == [
        "builtin:butterfly",
        "builtin:puppet",
    ]
    student, header = load_pack(out / "butterflies-fast.safetensors", None)
    taught = results["entries"]["butterflies-fast"]["teacher"]
    assert taught["name"] == "butterflies" and not student.config.skips
    assert taught["sha256"] == read_header(out / "butterflies.safetensors")["sha256"]
    assert taught["mean_px"] == header["teacher"]["mean_px"] > 0
    assert 0 <= results["entries"]["face-core"]["accuracy"]["pck"] <= 1
    assert (out / "previews/puppets.png").exists() and not (out / "previews/core.png").exists()

    brought = tmp_path / "brought/out"  # what is there is measured and not made again
    brought.mkdir(parents=True)
    shutil.copy(out / "core.safetensors", brought)
    monkeypatch.setattr(train_zoo, "train_core", interrupted)
    assert "call again" in call(brought.parent, "--dry-run")
    (entry,) = json.loads((brought / "zoo.json").read_text())["entries"].values()
    assert entry["sha256"] == results["entries"]["core"]["sha256"] and entry["machine"] is None
    with pytest.raises(UserError, match="was made with the plan 'dry', expected 'cpu'"):
        train_zoo.make_all(PLANS["cpu"], tmp_path / "work", brought)


@pytest.mark.usefixtures("tiny")
def test_the_recipes_make_the_same_files(tmp_path, monkeypatch):
    """The line of each card, typed in the folder of the files, gives the same weights."""
    stages = {name: PLANS["dry"].stages[name] for name in ("core", *NAMES[2::2])}
    monkeypatch.setitem(PLANS, "dry", replace(PLANS["dry"], stages=stages))
    monkeypatch.setattr(train_zoo, "_judge", lambda *arguments: None)
    assert call(tmp_path, "--dry-run") == "all done"
    monkeypatch.chdir(tmp_path / "out")
    for name, stage in stages.items():
        full = tmp_path / "work" / f"{name}.safetensors"
        words = command(read_header(full), stage).split()
        more = ["--no-report"] if stage.core else []
        again = CliRunner().invoke(cli, [*words[1:], *more, "--output", f"runs/{name}.safetensors"])
        assert again.exit_code == 0, again.output
        assert read_header(Path("runs") / full.name)["sha256"] == read_header(full)["sha256"]
        shutil.copy(full.name, "runs")  # students learn from what ships


def test_a_recipe_of_before_an_option_names_what_it_was_made_with():
    header = {"kind": "pack", "config": {"steps": 20, "projection_rate": 10.0}}
    words = command(header, Stage(("shoes",), "image", core="core"))
    assert "--no-whiten --projection-rate 10.0" in words
    header["config"]["whiten"] = True
    assert "whiten" not in command(header, Stage(("shoes",), "image", core="core"))


def test_of_films_the_objects_are_learnt(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "FILM_FRAMES", 60)
    monkeypatch.setenv("LMK_DATA", str(tmp_path))
    demo.write_film(tmp_path / "films.mp4")
    crops = train_zoo._decode(("films.mp4",), 64, "image", tmp_path / "work")
    assert crops.finding == Finding("motion") and len(crops.headings) == len(crops.names)
    assert (tmp_path / "work/films-found.png").exists()  # to be looked at


@pytest.mark.parametrize("plan", ["gpu", "cpu"])
def test_every_pack_comes_after_its_core_and_is_judged_elsewhere(plan):
    made = []
    for name, stage in PLANS[plan].stages.items():
        assert {stage.core, stage.teacher} - {None} <= set(made)
        core_data = PLANS[plan].stages[stage.core].data if stage.core else ()
        assert stage.teacher or not set(stage.judged_on) & set(core_data)
        # What is joined is judged set by set, on what `join` has held out of each.
        assert len(stage.data) > 1 or not set(stage.judged_on) & set(stage.data)
        assert stage.judged_on or len(stage.data) == 1 or not (stage.core or stage.teacher)
        made.append(name)


def test_the_script_says_how_to_call_it():
    done = subprocess.run(["sh", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 2 and "DATA WORK OUT" in done.stderr


def test_the_script_fails_when_a_piece_does(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable}
    out = tmp_path / "out"
    out.mkdir()
    (out / "zoo.json").write_text('{"plan": "gpu", "entries": {}}')
    command = ["sh", SCRIPT, tmp_path, tmp_path / "work", out, "--cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "Error: " in done.stderr
    assert "was made with the plan 'gpu'" in done.stderr


@pytest.mark.gpu
def test_dry_run_on_the_gpu(tmp_path):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert call(tmp_path, "--dry-run") == "all done"
