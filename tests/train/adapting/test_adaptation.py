"""Adaptation: every method writes a pack, stopped runs go on bit by bit, collapse is told."""

import json
import math
import urllib.error
from dataclasses import replace

import pytest
import torch
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.runtime.owner import Owned
from lmk.train.adapting.adaptation import Pairs, adapt
from lmk.train.datasets.decoded import decode
from lmk.train.datasets.drawn.drawn import builtin
from lmk.train.loop.run import STATE_NAME
from lmk.train.network.category import load_pack
from lmk.train.network.checkpoint import load, load_core, read_header, save_core
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork


def weights(path):
    return load(path, "pack")[0]


def assert_same_weights(first, second):
    expected = weights(second)
    for name, value in weights(first).items():
        assert torch.equal(expected[name], value), name


def state(config):
    return config.output.with_suffix("") / STATE_NAME


METHODS = {
    "projection": {},
    "blocks": {"scope": "blocks"},
    "released": {"scope": "blocks", "train_plain_convs": True},
    "finetune": {"method": "finetune"},
    "finetune-last": {"method": "finetune-last"},
    "projection+finetune": {"method": "projection+finetune"},
    "scratch": {"method": "scratch"},
    "scratch, no core": {"method": "scratch", "core": None, "perceptual": "none"},
}


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_every_method_writes_a_pack(adapt_config, butterflies, core_path, options):
    config = adapt_config(**options, width="small", input_size=64, steps=2)
    assert adapt(config, butterflies) == config.output
    model, header = load_pack(config.output, config.core)
    assert model.config == HourglassConfig(5, 16, 64)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 5, 16, 16)
    last_phase = 1 if config.method == "projection+finetune" else 2
    assert header["category"] == "shoes" and header["step"] == last_phase
    assert header["method"] == config.method and header["scope"] == config.scope
    assert header["landmark_names"] == ["p0", "p1", "p2", "p3", "p4"]
    sha256 = read_header(core_path)["sha256"] if config.core else ""
    assert header["core_sha256"] == sha256
    assert header["config"]["seed"] == 0 and header["config"]["output"] == "shoes.safetensors"


def test_the_end_is_a_page_that_judges(adapt_config, butterflies, capsys):
    config = adapt_config(report=True)
    adapt(config, butterflies)
    page = config.output.with_suffix(".html")
    assert f"See {page}" in capsys.readouterr().err
    assert "p4" in page.read_text()


@pytest.mark.parametrize("scope", ["all", "blocks"])
def test_theta_is_what_the_core_has(adapt_config, butterflies, core_path, scope):
    config = adapt_config(scope=scope)
    adapt(config, butterflies)
    core = load_core(core_path)[0].state_dict()
    model, _ = load_pack(config.output, core_path)
    saved, _ = load(state(config), "run")
    checked = 0
    for name, value in saved.items():
        if name.endswith(".theta"):
            origin = name.removeprefix("model.detector.").removesuffix("theta") + "weight"
            assert torch.equal(value, core[origin]), name
            checked += 1
    assert checked == {"all": 55, "blocks": 51}[scope]
    moved = [
        (m.projection - torch.eye(len(m.projection))).abs().max()
        for m in model.modules()
        if hasattr(m, "projection")
    ]
    assert len(moved) == checked and min(moved) > 0


def test_a_core_of_another_size_gives_the_size(adapt_config, butterflies):
    config = adapt_config(steps=1)
    assert config.input_size == 128
    adapt(config, butterflies)
    assert Image.open(config.output.with_suffix("") / "preview.png").height == 3 * 64
    assert read_header(config.output)["network"]["input_size"] == 64


@pytest.fixture(scope="module")
def straight(tmp_path_factory, butterflies):
    """Return a function that adapts for ten steps without a break."""
    folder, made = tmp_path_factory.mktemp("straight"), {}

    def run(config):
        method = config.method
        if method not in made:
            output = folder / f"{method}.safetensors"
            made[method] = adapt(replace(config, output=output), butterflies)
        return made[method]

    return run


@pytest.mark.parametrize("method", ["projection", "finetune", "scratch"])
@pytest.mark.parametrize("step", [4, 5])  # between two previews, and at one
def test_resumed_equals_uninterrupted(
    adapt_config, butterflies, straight, press_ctrl_c, method, step
):
    config = adapt_config(method=method, steps=10, preview_every=5)
    expected = straight(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmk.train.loop.run.LOG_EVERY", 1)
        press_ctrl_c(step)
        with pytest.raises(KeyboardInterrupt):
            adapt(config, butterflies)
    assert read_header(config.output)["step"] == read_header(state(config))["step"] == step
    load_pack(config.output, config.core)
    press_ctrl_c(0)  # never
    adapt(replace(config, resume=True), butterflies)
    assert_same_weights(expected, config.output)
    assert read_header(config.output)["sha256"] == read_header(expected)["sha256"]


def test_the_seed_decides(adapt_config, butterflies, straight, tmp_path):
    config = adapt_config(steps=10, preview_every=5)
    other = adapt(replace(config, seed=1, output=tmp_path / "b.safetensors"), butterflies)
    assert read_header(other)["sha256"] != read_header(straight(config))["sha256"]


def test_an_output_that_another_run_writes_is_left_alone(adapt_config, butterflies):
    config = adapt_config()
    with Owned(config.output), pytest.raises(UserError, match="is being written by process"):
        adapt(config, butterflies)
    assert not config.output.exists() and not config.output.with_suffix("").exists()


def test_resume_on_a_finished_pack_with_other_images(adapt_config, butterflies):
    adapt(config := adapt_config(), butterflies)
    others = replace(butterflies, images=butterflies.images.copy())
    others.images[3] += 1
    with pytest.raises(UserError, match=f"images: {others.names[3]} was changed"):
        adapt(replace(config, resume=True), others)


def test_resume_with_another_core_names_both(adapt_config, butterflies, tmp_path, core_path):
    core, _ = load_core(core_path)
    core.head.bias.data += 1
    config = adapt_config(core=tmp_path / "core.safetensors")
    first = core_path.read_bytes()
    config.core.write_bytes(first)
    adapt(config, butterflies)
    save_core(config.core, core, {})  # trained again, under the same name
    now, then = read_header(config.core)["sha256"], read_header(core_path)["sha256"]
    with pytest.raises(UserError, match=f"{now}.*{then}"):
        adapt(replace(config, resume=True), butterflies)


@pytest.mark.parametrize("change", [{"landmarks": 6}, {"separation": 0.5}, {"method": "finetune"}])
def test_resume_with_other_options(adapt_config, butterflies, change):
    config = adapt_config(steps=1)
    adapt(config, butterflies)
    with pytest.raises(UserError, match=f"--resume: {next(iter(change))} is"):
        adapt(replace(config, resume=True, **change), butterflies)


@pytest.mark.parametrize("landmarks", [1, 0, -3])
def test_too_few_landmarks(adapt_config, butterflies, landmarks):
    with pytest.raises(UserError, match=f"--landmarks: got {landmarks}, expected 2 or more"):
        adapt(adapt_config(landmarks=landmarks), butterflies)


def test_two_landmarks_of_one_image(adapt_config, tmp_path):
    data = decode(builtin("puppet", 1), 64, "image", tmp_path / "cache")
    config = adapt_config(landmarks=2, steps=1)
    adapt(config, data)
    assert read_header(config.output)["network"]["num_landmarks"] == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"method": "projection"}, "--method projection: needs a core; .*--core"),
        ({"method": "finetune"}, "--method finetune: needs a core; .*--core"),
        ({"method": "scratch"}, "--perceptual core: needs a core; .*--core"),
    ],
)
def test_without_a_core(adapt_config, butterflies, options, complaint):
    config = adapt_config(core=None, width="small", input_size=64, **options)
    with pytest.raises(UserError, match=complaint):
        adapt(config, butterflies)


def test_vgg_without_file_and_network_names_both_cures(adapt_config, butterflies, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(UserError, match="no route.*--vgg FILE.*--perceptual core"):
        adapt(adapt_config(perceptual="vgg19"), butterflies)


def test_nan_ends_the_run_and_keeps_the_pack(adapt_config, butterflies, monkeypatch):
    config = adapt_config(steps=4)
    adapt(config, butterflies)
    kept = config.output.read_bytes(), state(config).read_bytes()
    monkeypatch.setattr(
        "lmk.train.adapting.objective.separation", lambda points: points.mean() * math.nan
    )
    with pytest.raises(UserError, match="is nan.*--resume and a lower --lr"):
        adapt(replace(config, resume=True, steps=8, minutes=None), butterflies)
    assert (config.output.read_bytes(), state(config).read_bytes()) == kept


def test_nan_between_two_looks_at_the_loss_keeps_the_pack(adapt_config, butterflies, monkeypatch):
    config = adapt_config(steps=4)
    adapt(config, butterflies)
    kept = config.output.read_bytes(), state(config).read_bytes()
    monkeypatch.setattr("lmk.train.loop.run.TrainingRun.log", lambda *_: None)
    monkeypatch.setattr(
        "lmk.train.adapting.objective.separation", lambda points: points.mean() * math.nan
    )
    with pytest.raises(UserError, match="holds NaN"):
        adapt(replace(config, resume=True, steps=8, preview_every=2), butterflies)
    assert (config.output.read_bytes(), state(config).read_bytes()) == kept


def test_preview_and_history(adapt_config, butterflies):
    config = adapt_config(steps=5, preview_every=2)
    adapt(config, butterflies)
    folder = config.output.with_suffix("")
    preview = Image.open(folder / "preview.png")
    assert preview.size == (4 * 64, 3 * 64)  # the four held-out images; three rows
    rows = json.loads((folder / "history.json").read_text())
    assert [row["step"] for row in rows] == [2, 4, 5]
    assert all(0 < row["spread"] < 16 for row in rows)
    assert len(list(folder.glob("events*"))) == 1


def test_collapse_is_told(adapt_config, butterflies, tmp_path, capsys):
    core = LandmarkNetwork(HourglassConfig(5, 16, 64))
    with torch.no_grad():  # all maps alike: every landmark is in the middle
        core.bn_last.weight.zero_(), core.bn_last.bias.zero_()
    save_core(tmp_path / "flat.safetensors", core, {})
    config = adapt_config(core=tmp_path / "flat.safetensors", lr=1e-9, steps=1)
    adapt(config, butterflies)
    assert "the landmarks have collapsed (spread 0.0" in capsys.readouterr().err


def test_no_false_alarm(adapt_config, butterflies, capsys):
    # The separation alone pulls the landmarks apart within a few steps.
    config = adapt_config(separation=50.0, steps=25, lr=1e-2, perceptual="none")
    adapt(config, butterflies)
    assert "collapsed" not in capsys.readouterr().err


def test_the_loss_falls(adapt_config, butterflies):
    gentle = {"rotation": 5.0, "scale": 0.0, "shift": 0.02, "beta1": 0.5, "clip": 10.0}
    config = adapt_config(steps=50, batch=8, lr=5e-3, **gentle)
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr(
            "lmk.train.loop.run.TrainingRun.log", lambda run, batch, values: seen.append(values)
        )
        adapt(config, butterflies)
    assert set(seen[0]) == {"pixel", "perceptual", "equivariance", "separation"}
    for name, share in {"pixel": 0.7, "equivariance": 0.9, "separation": 0.6}.items():
        values = [float(step[name]) for step in seen]
        assert sum(values[-10:]) < share * sum(values[:10]), name


def test_terms_follow_the_weights(adapt_config, butterflies):
    config = adapt_config(steps=1, perceptual="none", equivariance=0.0, separation=0.0)
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr(
            "lmk.train.loop.run.TrainingRun.log", lambda run, batch, values: seen.append(values)
        )
        adapt(config, butterflies)
    assert set(seen[0]) == {"pixel"}


def test_held_out_images_are_not_trained_on(adapt_config, butterflies, monkeypatch):
    seen = []
    original = Pairs._pairs

    def spy(self, chosen, draw, mine):
        seen.append(chosen)
        return original(self, chosen, draw, mine)

    monkeypatch.setattr(Pairs, "_pairs", spy)
    adapt(adapt_config(steps=9), butterflies)
    watched, *batches = seen
    assert watched.tolist() == [36, 37, 38, 39]
    assert sorted(torch.cat(batches).tolist()) == list(range(36))  # nine batches of four


def test_every_option_of_ours_resumes_exactly(adapt_config, butterflies, press_ctrl_c, tmp_path):
    ours = {"bend": 0.05, "jitter": 0.2, "identity": 0.1, "average": 0.9, "ramp": 0.5}
    config = adapt_config(steps=6, **ours)
    whole = adapt(replace(config, output=tmp_path / "whole.safetensors"), butterflies)
    press_ctrl_c(3)
    with pytest.raises(KeyboardInterrupt):
        adapt(config, butterflies)
    press_ctrl_c(0)  # never
    adapt(replace(config, resume=True), butterflies)
    assert_same_weights(whole, config.output)


def test_the_average_is_what_is_kept(adapt_config, butterflies):
    config = adapt_config(steps=4, average=0.5)
    state = load(adapt(config, butterflies).with_suffix("") / "state.safetensors", "run")[0]
    pack = load(config.output, "pack")[0]
    for name, tensor in pack.items():
        assert torch.equal(tensor, state[f"model.average.{name}"]), name
    assert not torch.equal(pack["head.weight"], state["model.detector.head.weight"])


def test_terms_grow_with_ramp(adapt_config, butterflies, monkeypatch):
    def losses_of(ramp):
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "lmk.train.loop.run.TrainingRun.log", lambda run, batch, values: seen.append(values)
            )
            adapt(adapt_config(steps=2, ramp=ramp, lr=1e-9), butterflies)
        return seen

    plain, ramped = losses_of(0.0), losses_of(0.5)
    for one, other, share in zip(plain, ramped, (1.0, 1.0), strict=True):
        assert other["pixel"] == pytest.approx(float(one["pixel"]), rel=1e-3)
        assert other["equivariance"] == pytest.approx(share * float(one["equivariance"]), rel=1e-3)
