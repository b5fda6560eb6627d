"""Supervised training: it learns, it stops and goes on bit by bit, it masks what is not known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lmk.runtime.errors import UserError
from lmk.train import augment
from lmk.train.config import CoreConfig
from lmk.train.core import Batches, find_points, heatmap_loss, train_core
from lmk.train.datasets.decoded import decode
from lmk.train.datasets.drawn.drawn import builtin
from lmk.train.datasets.sample import NO_SCHEME, scheme_of
from lmk.train.draws import batch_indices
from lmk.train.judge.regression import pck
from lmk.train.loop.run import STATE_NAME
from lmk.train.network.bottleneck import gaussian_maps
from lmk.train.network.checkpoint import load_core, read_header
from lmk.train.network.hourglass import WIDTHS, HourglassConfig
from lmk.train.split import split_for_training


@pytest.fixture(scope="module")
def straight(tmp_path_factory, puppets):
    """Nine batches an epoch and 14 steps without a break."""
    output = tmp_path_factory.mktemp("straight") / "core.safetensors"
    options = {"width": "small", "input_size": 64, "batch": 4, "steps": 14}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WIDTHS, "small", 16)
        config = CoreConfig(output=output, device="cpu", dtype="fp32", threads=1, **options)
        return train_core(config, puppets)


def test_writes_a_core_that_says_what_it_is(straight, puppets):
    model, header = load_core(straight)
    assert model.config == HourglassConfig(14, 16, 64)
    assert header["landmark_names"] == list(puppets.landmark_names)
    assert (header["step"], header["data"]) == (14, "builtin:puppet")
    assert header["crop_scale"] == 1.5
    assert header["config"]["batch"] == 4


def test_validates_each_epoch_and_at_the_end(straight):
    rows = json.loads((straight.with_suffix("") / "history.json").read_text())
    assert [row["step"] for row in rows] == [9, 14]
    for row in rows:
        assert 0 <= row["pck"] <= 1 and 0 <= row["pck_l_hip"] <= 1


def test_the_seed_is_everything_that_is_random(
    core_config, puppets, straight, tmp_path, same_weights
):
    again = train_core(core_config(steps=14), puppets)
    same_weights(straight, again)
    other = train_core(core_config(steps=14, seed=1, output=tmp_path / "b.safetensors"), puppets)
    assert read_header(other)["sha256"] != read_header(straight)["sha256"]


@pytest.mark.parametrize("step", [5, 9])  # within an epoch, and at the end of one
def test_resumed_equals_uninterrupted(
    core_config, puppets, straight, press_ctrl_c, same_weights, step
):
    config = core_config(steps=14)
    with pytest.MonkeyPatch.context() as patch:
        press_ctrl_c(step)
        with pytest.raises(KeyboardInterrupt):
            train_core(config, puppets)
        patch.undo()
    assert load_core(config.output)[1]["step"] == step  # whole, and finite
    assert read_header(config.output.with_suffix("") / STATE_NAME)["step"] == step
    train_core(replace(config, resume=True), puppets)
    same_weights(straight, config.output)
    rows = json.loads((config.output.with_suffix("") / "history.json").read_text())
    assert [row["step"] for row in rows] == [9, 14]


def test_learns_the_puppet(core_config, tmp_path):
    data = decode(builtin("puppet", 200), 64, "annotation", tmp_path / "cache")
    config = core_config(steps=120, batch=16, lr=5e-3, rotation=15.0, scale=0.1)
    _, held_out = split_for_training(data.name, data.splits, 0)
    batches = Batches(data, np.arange(180), config, torch.device("cpu"))
    images, points = batches(0)

    def judge(model):
        with torch.no_grad():
            loss = heatmap_loss(model(images), points, config)
        truth = data.crop_points(held_out, 64)
        found = find_points(model, data, held_out)
        return float(loss), pck(found, truth, data.scheme.normaliser.lengths(truth))[0]

    untrained = load_core(train_core(replace(config, steps=1), data))[0]
    trained = load_core(train_core(config, data))[0]
    (loss_before, pck_before), (loss_after, pck_after) = judge(untrained), judge(trained)
    assert loss_after < 0.7 * loss_before
    # A point anywhere in the crop is right about one time in ten.
    assert pck_before < 0.2 and pck_after > 0.3


def test_squared_error_as_in_the_paper(core_config, puppets):
    config = core_config(loss="mse", steps=2)
    assert load_core(train_core(config, puppets))[1]["config"]["loss"] == "mse"


def test_unlabelled_data(core_config, butterflies):
    unlabelled = replace(butterflies, scheme=NO_SCHEME, points=butterflies.points[:, :0])
    with pytest.raises(UserError, match="no annotated points, .*`lmk adapt` needs none"):
        train_core(core_config(), unlabelled)


def test_only_held_out_images(core_config, puppets):
    with pytest.raises(UserError, match="builtin:puppet: got images of val and test splits only"):
        train_core(core_config(), replace(puppets, splits=("test",) * 40))


def test_one_image_is_enough_to_run(core_config, tmp_path):
    data = decode(builtin("puppet", 1), 64, "annotation", tmp_path / "cache")
    assert load_core(train_core(core_config(steps=2), data))[1]["step"] == 2


def test_nan_ends_the_run_and_keeps_the_core(core_config, puppets, monkeypatch):
    config = core_config(steps=3)
    train_core(config, puppets)
    kept = config.output.read_bytes(), (config.output.with_suffix("") / STATE_NAME).read_bytes()
    monkeypatch.setattr("lmk.train.core.heatmap_loss", lambda h, p, c: h.mean() * math.nan)
    with pytest.raises(UserError, match="(loss is nan|holds NaN).*--lr"):
        train_core(replace(config, resume=True, steps=9), puppets)
    assert config.output.read_bytes() == kept[0]
    assert (config.output.with_suffix("") / STATE_NAME).read_bytes() == kept[1]


class TestBatches:
    @pytest.fixture
    def still(self, core_config):
        return core_config(rotation=0.0, scale=0.0, shift=0.0, gain=0.0, batch=36)

    def test_images_and_points_agree(self, puppets, core_config):
        """The mean colour about each landmark is the same before and after the warp."""
        config = core_config(batch=36, gain=0.0)
        batches = Batches(puppets, np.arange(36), config, torch.device("cpu"))
        images, points = batches(3)
        assert images.shape == (36, 3, 64, 64) and points.shape == (36, 14, 2)
        pixels = augment.to_pixels(points)
        source = torch.from_numpy(puppets.images[:36]).permute(0, 3, 1, 2).float() / 255
        order = torch.from_numpy(_order(config, 3))
        before = _sample(source[order], torch.from_numpy(puppets.points)[order])
        after = _sample(images, pixels)
        # A mirrored image has its sides swapped.
        twins = list(puppets.scheme.flips)
        distance = (before - after).abs().mean(dim=(1, 2))
        swapped = (before[:, twins] - after).abs().mean(dim=(1, 2))
        near = torch.minimum(distance, swapped)
        assert near.median() < 0.06
        assert 5 < (swapped < distance).sum() < 31  # about a half are mirrored

    def test_without_sides_nothing_is_mirrored(self, puppets, still):
        names = tuple(f"p{i}" for i in range(14))
        batches = Batches(
            replace(puppets, scheme=scheme_of(names)), np.arange(36), still, torch.device("cpu")
        )
        images, points = batches(0)
        order = _order(still, 0)
        expected = torch.from_numpy(puppets.crop_points(order, 64))
        torch.testing.assert_close(augment.to_pixels(points), expected, atol=1e-3, rtol=0)
        crops = torch.from_numpy(puppets.images[order, 8:72, 8:72]).permute(0, 3, 1, 2) / 255
        torch.testing.assert_close(images, crops, atol=1e-4, rtol=0)

    def test_a_step_is_always_the_same(self, puppets, core_config):
        batches = Batches(puppets, np.arange(36), core_config(), torch.device("cpu"))
        for first, second, third in zip(batches(2), batches(2), batches(3), strict=True):
            assert torch.equal(first, second) and not torch.equal(first, third)


def _order(config, step):
    return batch_indices(36, config.batch, step, config.seed).numpy()


def _sample(images, points):
    """Colours (B,P,3) of images (B,3,S,S) at points (B,P,2)."""
    grid = ((2 * points + 1) / images.shape[-1] - 1)[:, None]
    sampled = torch.nn.functional.grid_sample(
        images, grid, padding_mode="border", align_corners=False
    )
    return sampled[:, :, 0].transpose(1, 2)


class TestHeatmapLoss:
    @pytest.mark.parametrize("loss", ["softmax", "mse"])
    def test_is_least_at_the_target(self, core_config, loss):
        config = core_config(loss=loss)
        points = torch.tensor([[[3.0, 5.0], [10.0, 2.0]]])
        perfect = gaussian_maps(points, 16, config.target_sigma)
        if loss == "softmax":
            perfect = perfect.clamp(min=1e-30).log() / 10  # its soft-max is the target
        wrong = perfect.roll(4, dims=3)
        assert heatmap_loss(perfect, points, config) < heatmap_loss(wrong, points, config) * 0.7

    @pytest.mark.parametrize("loss", ["softmax", "mse"])
    @pytest.mark.parametrize("unknown", [math.nan, 100.0, -3.0, 1e9, math.inf])
    def test_unknown_points_count_nothing(self, core_config, loss, unknown):
        config = core_config(loss=loss)
        torch.manual_seed(0)
        maps = torch.randn(1, 2, 16, 16, requires_grad=True)
        known = torch.tensor([[[3.0, 5.0], [unknown, unknown]]])
        value = heatmap_loss(maps, known, config)
        torch.testing.assert_close(value, heatmap_loss(maps[:, :1], known[:, :1], config))
        (gradient,) = torch.autograd.grad(value, maps)
        assert gradient.isfinite().all()
        assert gradient[0, 1].abs().max() == 0 < gradient[0, 0].abs().max()

    def test_nothing_known_is_zero(self, core_config):
        points = torch.full((2, 3, 2), math.nan)
        assert heatmap_loss(torch.randn(2, 3, 16, 16), points, core_config()) == 0


def test_early_epochs_are_kept(core_config, puppets):
    config = core_config(steps=None, epochs=2, keep=(1,))  # nine steps each
    train_core(config, puppets)
    early = config.output.with_stem("core-epoch1")
    assert load_core(early)[1]["step"] == 9 and load_core(config.output)[1]["step"] == 18
    assert not torch.equal(load_core(early)[0].head.weight, load_core(config.output)[0].head.weight)


def test_an_epoch_that_never_comes_cannot_be_kept(core_config, puppets):
    with pytest.raises(UserError, match="--keep: got 5, expected at most the 2 epochs"):
        train_core(core_config(steps=None, epochs=2, keep=(1, 5)), puppets)
