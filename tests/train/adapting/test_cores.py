"""--core auto: each core is tried for a short while, and the run goes on from the better one."""

from dataclasses import replace

import pytest
import torch

from lmk.runtime.errors import UserError
from lmk.runtime.model import read_header, workspace
from lmk.runtime.owner import Owned
from lmk.train.adapting import cores
from lmk.train.adapting.adaptation import adapt
from lmk.train.adapting.cores import is_under_way
from lmk.train.adapting.phases import has_begun
from lmk.train.config import AUTO, EvaluateConfig
from lmk.train.judge import evaluate
from lmk.train.network import load_pack
from lmk.train.network.checkpoint import save_core
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork


@pytest.fixture
def places(tmp_path, monkeypatch, shared_core, core_path):
    """The folder in which `other` was trained, and that of `core`, which ships."""
    runs, zoo = tmp_path / "runs", tmp_path / "zoo"
    runs.mkdir(), zoo.mkdir()
    monkeypatch.setattr(workspace, "RUNS", runs)
    monkeypatch.setattr(workspace, "ZOO", zoo)
    (zoo / "core.safetensors").write_bytes(core_path.read_bytes())
    torch.manual_seed(1)
    save_core(runs / "other.safetensors", LandmarkNetwork(shared_core.config).eval(), {})
    return runs, zoo


@pytest.fixture
def config(adapt_config, tmp_path, places):
    return adapt_config(core=AUTO, steps=20, output=tmp_path / "out/shoes.safetensors")


@pytest.fixture
def tried(monkeypatch):
    """The cores whose trials were judged; the one that ships is the steadier."""
    seen = []

    def wobble(trial, data):
        assert read_header(trial.output)["finished"]
        seen.append(trial.core.stem)
        return {"other": 0.2, "core": 0.1}[trial.core.stem]

    monkeypatch.setattr(cores, "_wobble", wobble)
    return seen


def core_of(config):
    return read_header(config.output)["core_sha256"]


def test_the_steadier_core_is_taken(config, butterflies, places, core_path, tried, capsys):
    adapt(config, butterflies)
    header = read_header(config.output)
    assert tried == ["other", "core"]
    assert core_of(config) == read_header(core_path)["sha256"]
    assert header["config"]["core"] == "core.safetensors"
    assert header["step"] == 16  # a tenth of the budget for each trial
    told = capsys.readouterr().err
    assert f"core: {places[1] / 'core.safetensors'}" in told
    assert "runs/other 20.0%, zoo/core 10.0%" in told


def test_a_resume_goes_on_in_the_trial(
    config, butterflies, tried, press_ctrl_c, monkeypatch, same_weights
):
    adapt(config, butterflies)
    stopped = replace(config, output=config.output.with_stem("stopped"))
    monkeypatch.setattr("lmk.train.loop.run.LOG_EVERY", 1)
    for step in (2, 9):  # at the end of the first trial, and in the run itself
        with monkeypatch.context() as patch:
            press_ctrl_c(step)
            with pytest.raises(KeyboardInterrupt):
                adapt(replace(stopped, resume=step != 2), butterflies)
            patch.undo()
    adapt(replace(stopped, resume=True), butterflies)
    same_weights(config.output, stopped.output)


def test_a_new_run_tries_anew(config, butterflies, tried):
    adapt(config, butterflies)
    adapt(config, butterflies)
    assert tried == ["other", "core"] * 2


def test_of_one_nothing_is_tried(config, butterflies, places, tried):
    (places[0] / "other.safetensors").unlink()
    adapt(config, butterflies)
    assert not tried and read_header(config.output)["step"] == 20


def test_other_inputs_are_left_out_and_equal_ones_once(places, core_path):
    runs, zoo = places
    save_core(zoo / "large.safetensors", LandmarkNetwork(HourglassConfig(14, 16, 128)), {})
    (runs / "again.safetensors").write_bytes((runs / "other.safetensors").read_bytes())
    newest = workspace.newest("core")
    assert cores.candidates() == [newest, zoo / "core.safetensors"]


def test_without_a_run_there_is_nothing_to_resume(config, butterflies, tried):
    with pytest.raises(UserError, match="--resume: no .*expected the state of a run"):
        adapt(replace(config, resume=True), butterflies)
    assert not tried and not has_begun(config.output)


def test_a_chosen_core_that_is_gone_is_told_and_the_run_kept(
    config, butterflies, places, tried, shared_core
):
    adapt(config, butterflies)
    before = config.output.read_bytes()
    torch.manual_seed(2)
    for path in (places[1] / "core.safetensors", places[0] / "more.safetensors"):
        save_core(path, LandmarkNetwork(shared_core.config).eval(), {})
    with pytest.raises(UserError, match="the core with sha256 .* is not there any more"):
        adapt(replace(config, resume=True), butterflies)
    assert config.output.read_bytes() == before and has_begun(config.output)


def test_what_another_run_has_is_not_tried_in(config, butterflies, tried):
    folder = config.output.with_suffix("") / "cores"
    folder.mkdir(parents=True)
    (folder / "core.json").write_text("of the other run")
    with Owned(config.output), pytest.raises(UserError, match="is being written by"):
        adapt(config, butterflies)
    assert not tried and (folder / "core.json").exists()


def test_a_run_is_under_way_from_its_first_trial_on(
    config, butterflies, tried, press_ctrl_c, monkeypatch
):
    assert not is_under_way(config.output)
    monkeypatch.setattr("lmk.train.loop.run.LOG_EVERY", 1)
    with monkeypatch.context() as patch:
        press_ctrl_c(1)
        with pytest.raises(KeyboardInterrupt):
            adapt(config, butterflies)
        patch.undo()
    assert is_under_way(config.output) and not has_begun(config.output)


def test_unsteadiness_is_what_evaluate_says_over_spread(adapt_config, butterflies, monkeypatch):
    config = adapt_config()
    adapt(config, butterflies)
    monkeypatch.setattr(cores, "COLLAPSED_SPREAD", 0.0)
    model, _ = load_pack(config.output, config.core)
    said = evaluate(model, butterflies, EvaluateConfig(rotation=20.0, device="cpu"))
    expected = said["consistency_px"] / said["spread_px"]
    assert cores._wobble(config, butterflies) == pytest.approx(expected, rel=0.05)
    monkeypatch.setattr(cores, "COLLAPSED_SPREAD", 1000.0)  # collapsed ones are the least steady
    assert cores._wobble(config, butterflies) == float("inf")
