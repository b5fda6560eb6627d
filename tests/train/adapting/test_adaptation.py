"""Adaptation: every method writes a pack, stopped runs go on bit by bit, collapse is told."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.runtime.owner import Owned
from lmk.runtime.regions import Acceptance
from lmk.train.adapting.adaptation import SPACING, Pairs, adapt
from lmk.train.datasets.decoded import decode
from lmk.train.datasets.drawn.drawn import builtin
from lmk.train.judge import find_landmarks
from lmk.train.loop.run import STATE_NAME
from lmk.train.network.category import load_pack
from lmk.train.network.checkpoint import load, load_core, read_header, save_core
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork


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
    if config.method == "projection":  # theta is what the core has, and every W has moved
        core, saved = load_core(core_path)[0].state_dict(), load(state(config), "run")[0]
        kept = {name: value for name, value in saved.items() if name.endswith(".theta")}
        for name, value in kept.items():
            origin = name.removeprefix("model.detector.").removesuffix("theta") + "weight"
            assert torch.equal(value, core[origin]), name
        learnt = [m.projection for m in model.modules() if hasattr(m, "projection")]
        assert all((w - torch.eye(len(w))).abs().max() > 0 for w in learnt)
        assert len(learnt) == len(kept) == {"all": 55, "blocks": 51}[config.scope]
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
    told = Acceptance.from_json(read_header(config.output)["acceptance"])
    assert len(told.weights) == 5 and 0 < told.radius < 1  # what detection tells objects by
    assert "p4" in page.read_text()


@pytest.fixture(scope="module")
def straight(tmp_path_factory, butterflies):
    """Return a function that adapts without a break, once for each configuration."""
    folder, made = tmp_path_factory.mktemp("straight"), {}

    def run(config):
        same = replace(config, output=folder / "pack.safetensors")
        if same not in made:
            output = folder / f"{len(made)}.safetensors"
            made[same] = adapt(replace(config, output=output), butterflies)
        return made[same]

    return run


OURS = {"bend": 0.05, "jitter": 0.2, "identity": 0.1, "average": 0.9, "ramp": 0.5}


@pytest.mark.parametrize(
    ("options", "step"),  # between two previews, and at one
    [({}, 2), ({}, 3), ({"method": "finetune"}, 3), ({"method": "scratch"}, 2), (OURS, 2)],
)
def test_resumed_equals_uninterrupted(
    adapt_config, butterflies, straight, press_ctrl_c, same_weights, monkeypatch, options, step
):
    config = adapt_config(preview_every=3, **options)
    expected = straight(config)
    monkeypatch.setattr("lmk.train.loop.run.LOG_EVERY", 1)
    press_ctrl_c(step)
    with pytest.raises(KeyboardInterrupt):
        adapt(config, butterflies)
    assert read_header(config.output)["step"] == read_header(state(config))["step"] == step
    load_pack(config.output, config.core)
    press_ctrl_c(0)  # never
    adapt(replace(config, resume=True), butterflies)
    same_weights(expected, config.output)
    one, other = read_header(config.output), read_header(expected)
    names = {"output": ""}  # nor does it say that it was resumed
    assert one["sha256"] == other["sha256"]
    assert {**one["config"], **names} == {**other["config"], **names}
    histories = [
        [row | {"seconds": 0} for row in read_header(path.with_suffix("") / STATE_NAME)["history"]]
        for path in (config.output, expected)
    ]
    assert histories[0] == histories[1]  # nor does the record of its looks


def test_the_seed_decides(adapt_config, butterflies, straight):
    one, other = (straight(adapt_config(preview_every=3, seed=seed)) for seed in (0, 1))
    assert read_header(one)["sha256"] != read_header(other)["sha256"]


def test_an_output_that_another_run_writes_is_left_alone(adapt_config, butterflies):
    config = adapt_config()
    with Owned(config.output), pytest.raises(UserError, match="is being written by process"):
        adapt(config, butterflies)
    assert not config.output.exists() and not config.output.with_suffix("").exists()


def test_a_resume_is_of_the_same_options_images_and_core(
    adapt_config, butterflies, tmp_path, core_path
):
    config = adapt_config(core=tmp_path / "core.safetensors", steps=1)
    config.core.write_bytes(core_path.read_bytes())
    adapt(config, butterflies)
    for name, value in (("landmarks", 6), ("separation", 0.5), ("method", "finetune")):
        with pytest.raises(UserError, match=f"--resume: {name} is"):
            adapt(replace(config, resume=True, **{name: value}), butterflies)
    others = replace(butterflies, images=butterflies.images.copy())
    others.images[3] += 1
    with pytest.raises(UserError, match=f"images: {others.names[3]} was changed"):
        adapt(replace(config, resume=True), others)
    core, _ = load_core(core_path)
    core.head.bias.data += 1
    save_core(config.core, core, {})  # trained again, under the same name
    now, then = read_header(config.core)["sha256"], read_header(core_path)["sha256"]
    with pytest.raises(UserError, match=f"{now}.*{then}"):
        adapt(replace(config, resume=True), butterflies)


@pytest.mark.parametrize(
    ("headings", "rotation"),
    [(torch.linspace(0, 6, 40), 180.0), (torch.linspace(-0.5, 0.5, 40), 20.0), (None, 20.0)],
    ids=["in all directions", "upright", "not known"],
)
def test_full_turns_are_learnt_where_the_object_turns(
    adapt_config, butterflies, headings, rotation, capsys
):
    data = replace(butterflies, headings=None if headings is None else headings.numpy())
    adapt(adapt_config(steps=1, rotation=None, equivariance=None), data)
    written = read_header(adapt_config().output)["config"]
    assert written["rotation"] == rotation
    assert written["equivariance"] == (3 if rotation == 180 else 0.3)
    assert ("the object turns" in capsys.readouterr().err) == (rotation == 180)
    adapt(adapt_config(steps=1, rotation=35.0, equivariance=1.0), data)  # unless it is given
    given = read_header(adapt_config().output)["config"]
    assert (given["rotation"], given["equivariance"]) == (35, 1)


def test_landmarks_keep_apart_as_the_size_of_the_object_and_their_number_have_it(
    adapt_config, butterflies
):
    def spacing(data=butterflies, spacing=None, **options):
        config = adapt_config(steps=1, off_object=0.0, spacing=spacing, **options)
        adapt(config, data)
        return read_header(config.output)["config"]["spacing"]

    assert spacing(landmarks=2) == 1  # cell: nothing tells how large it is
    away = np.full(butterflies.images.shape[:3], 9, np.uint8)
    away[:, 10:42, 10:62] = 0
    away[0] = 9  # an object that was not seen
    known = replace(butterflies, away=away)
    assert spacing(known, landmarks=2) == pytest.approx(
        SPACING * math.sqrt(32 * 52) / 4 / math.sqrt(2), abs=0.01
    )
    assert spacing(known, landmarks=20) == 1  # at least
    assert spacing(known, landmarks=2, spacing=0.5) == 0.5  # unless it is given
    unseen = replace(butterflies, away=np.full_like(away, 9))
    assert spacing(unseen, landmarks=2) == 1


def test_what_is_known_of_the_object_is_learnt_from(adapt_config, butterflies):
    size = butterflies.images.shape[1]
    away = np.full((len(butterflies.images), size, size), 60, np.uint8)
    away[:, size // 2 :, size // 2 :] = 0
    shares = []
    for weight in (0.0, 30.0):
        config = adapt_config(steps=25, off_object=weight, lr=1e-2)
        adapt(config, replace(butterflies, away=away))
        model, _ = load_pack(config.output, config.core)
        found = find_landmarks(model, butterflies, np.arange(40))
        shares.append((found > 30).all(axis=2).mean())
    assert shares[1] > shares[0] + 0.3


def test_the_course_of_a_run_is_kept(adapt_config, butterflies):
    config = adapt_config(steps=8, preview_every=1)
    adapt(config, butterflies)
    course = read_header(config.output)["course"]
    assert course["moved_px"] > 0 and abs(course["fallen"]) < 1


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


@pytest.mark.parametrize(
    ("looks", "complaint"), [(True, "is nan.*--resume and a lower --lr"), (False, "holds NaN")]
)
def test_nan_ends_the_run_and_keeps_the_pack(
    adapt_config, butterflies, monkeypatch, looks, complaint
):
    """Whether the run looks at its loss before it saves, or between two looks."""
    config = adapt_config(steps=2)
    adapt(config, butterflies)
    kept = config.output.read_bytes(), state(config).read_bytes()
    more = {"steps": 5}
    if not looks:
        monkeypatch.setattr("lmk.train.loop.run.TrainingRun.log", lambda *_: None)
        more["preview_every"] = 2
    monkeypatch.setattr(
        "lmk.train.adapting.objective.separation", lambda points, _: points.mean() * math.nan
    )
    with pytest.raises(UserError, match=complaint):
        adapt(replace(config, resume=True, **more), butterflies)
    assert (config.output.read_bytes(), state(config).read_bytes()) == kept


def test_preview_and_history(adapt_config, butterflies):
    config = adapt_config(steps=5, preview_every=2)
    assert config.input_size == 128  # but the core is of another
    adapt(config, butterflies)
    assert read_header(config.output)["network"]["input_size"] == 64
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


def test_the_loss_falls_without_a_false_alarm(adapt_config, butterflies, logged, capsys):
    gentle = {"rotation": 5.0, "scale": 0.0, "shift": 0.02, "beta1": 0.5, "clip": 10.0}
    config = adapt_config(steps=50, batch=8, lr=5e-3, **gentle)
    adapt(config, butterflies)
    assert set(logged[0]) == {"pixel", "perceptual", "equivariance", "separation"}
    for name, share in {"pixel": 0.7, "equivariance": 0.9, "separation": 0.6}.items():
        values = [float(step[name]) for step in logged]
        assert sum(values[-10:]) < share * sum(values[:10]), name
    assert "collapsed" not in capsys.readouterr().err


def test_terms_follow_the_weights(adapt_config, butterflies, logged):
    config = adapt_config(steps=1, perceptual="none", equivariance=0.0, separation=0.0)
    adapt(config, butterflies)
    assert set(logged[0]) == {"pixel"}


def test_held_out_images_are_not_trained_on(adapt_config, butterflies, monkeypatch):
    seen = []
    original = Pairs._pairs

    def spy(self, chosen, *drawn):
        seen.append(chosen)
        return original(self, chosen, *drawn)

    monkeypatch.setattr(Pairs, "_pairs", spy)
    adapt(adapt_config(steps=9), butterflies)
    watched, *batches = seen
    assert watched.tolist() == [36, 37, 38, 39]
    assert sorted(torch.cat(batches).tolist()) == list(range(36))  # nine batches of four


def test_the_average_is_what_is_kept(adapt_config, butterflies):
    config = adapt_config(steps=4, average=0.5)
    state = load(adapt(config, butterflies).with_suffix("") / "state.safetensors", "run")[0]
    pack = load(config.output, "pack")[0]
    for name, tensor in pack.items():
        assert torch.equal(tensor, state[f"model.average.{name}"]), name
    assert not torch.equal(pack["head.weight"], state["model.detector.head.weight"])


def test_terms_grow_with_ramp(adapt_config, butterflies, logged):
    for ramp in (0.0, 1.0):
        adapt(adapt_config(steps=2, ramp=ramp, lr=1e-9), butterflies)
    for one, other, share in zip(logged[:2], logged[2:], (0.5, 1.0), strict=True):
        assert other["pixel"] == pytest.approx(float(one["pixel"]), rel=1e-3)
        assert other["equivariance"] == pytest.approx(share * float(one["equivariance"]), rel=1e-3)
