"""Options: what the presets stand for, what the device fills in, what no run can have."""

import math
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from lmk.runtime.errors import UserError
from lmk.train.config import PRESETS, AdaptConfig, CoreConfig, EvaluateConfig, for_device


def test_needs_no_torch():
    code = "import sys, lmk.train.config; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def preset(name):
    return AdaptConfig(output=Path("x.safetensors"), **PRESETS[name])


def test_default_is_the_paper_with_our_terms():
    config = preset("default")
    assert (config.method, config.scope, config.train_plain_convs) == ("projection", "all", False)
    assert (config.equivariance, config.separation, config.relative) == (None, 1.0, True)
    assert for_device(config, "cpu").equivariance == for_device(config, "cuda").equivariance == 0.3
    assert (config.perceptual, config.norm) == ("core", "l1")
    assert (config.lr, config.beta1, config.weight_decay, config.clip) == (1e-3, 0.0, 5e-4, 1.0)


def test_paper():
    config = preset("paper")
    assert (config.equivariance, config.separation, config.relative) == (0.0, 0.0, False)
    assert (config.perceptual, config.norm, config.generator_width) == ("vgg19", "l1", 64)
    assert (config.scope, config.train_plain_convs) == ("all", False)
    assert config.schedule == "step" and config.scale > 0 and config.off_object == 0


def test_released():
    """Every row of the table of contradictions (method-facts, section 0) at once."""
    config = preset("released")
    assert (config.perceptual, config.norm, config.vgg_normalise) == ("vgg16", "mse", False)
    assert (config.generator_width, config.schedule) == (32, "step")
    assert (config.scope, config.train_plain_convs) == ("blocks", True)
    assert (config.scale, config.shift) == (0.0, 0.0) and config.rotation > 0
    assert (config.equivariance, config.separation, config.relative) == (0.0, 0.0, False)


def test_every_option_has_a_help_text():
    for config in (CoreConfig, AdaptConfig, EvaluateConfig):
        assert all(item.metadata["help"] for item in fields(config))


def test_the_device_fills_in_what_was_left_open():
    config = for_device(AdaptConfig(), "cpu")
    assert (config.width, config.batch, config.minutes, config.steps) == ("medium", 16, 20.0, None)
    config = for_device(AdaptConfig(), "cuda")
    assert (config.width, config.batch, config.minutes, config.steps) == ("full", 48, None, 200_000)
    config = for_device(CoreConfig(), "cuda")
    assert (config.width, config.batch, config.minutes, config.steps) == ("full", 32, None, None)


@pytest.mark.parametrize("budget", [{"steps": 7}, {"minutes": 3.0}])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_budget_in_any_unit_is_kept(budget, device):
    config = for_device(AdaptConfig(**budget, batch=3, width="small"), device)
    assert {"steps": config.steps, "minutes": config.minutes} == {
        "steps": None,
        "minutes": None,
        **budget,
    }
    assert (config.batch, config.width) == (3, "small")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"steps": 0}, "--steps: got 0, expected more than 0"),
        ({"lr": math.inf}, "--lr: got inf, expected a finite number"),
        ({"steps": -5}, "--steps: got -5"),
        ({"minutes": -1.0}, "--minutes: got -1.0"),
        ({"batch": 0}, "--batch: got 0"),
        ({"lr": 0.0}, "--lr: got 0.0"),
        ({"lr": float("nan")}, "--lr: got nan"),
        ({"threads": 0}, "--threads: got 0"),
        ({"preview_every": 0}, "--preview-every: got 0"),
        ({"landmarks": 1}, "--landmarks: got 1"),
        ({"landmarks": 0}, "--landmarks: got 0"),
        ({"sigma": 0.0}, "--sigma: got 0.0"),
        ({"spacing": 0.0}, "--spacing: got 0.0, expected 0.1 to 16.0 cells"),
        ({"spacing": 1e10}, "--spacing: got 1"),
        ({"generator_width": 0}, "--generator-width: got 0"),
        ({"scale": -1.0}, "--scale: got -1.0, expected 0 or more"),
        ({"input_size": 100}, "--input-size: got 100, expected a multiple of 64"),
        ({"input_size": 0}, "--input-size: got 0"),
        ({"device": "gpu"}, "--device: got 'gpu'"),
        ({"rotation": 181.0}, "--rotation: got 181.0, expected at most 180 degrees"),
    ],
)
def test_numbers_that_no_run_can_have(options, complaint):
    with pytest.raises(UserError, match=complaint):
        AdaptConfig(**options)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("ramp", 1.5, "at most 1"), ("average", 1.0, "less than 1"), ("jitter", -0.1, "0 or more")],
)
def test_shares_have_bounds(name, value, expected):
    with pytest.raises(UserError, match=f"--{name}: got {value}, expected {expected}"):
        AdaptConfig(**{name: value})
