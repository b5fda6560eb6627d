"""projection+finetune: the second phase starts where the first one ended, and resumes exactly."""

from dataclasses import replace

import pytest
import torch

from lmk.train.adapting.adaptation import adapt
from lmk.train.adapting.phases import finetune_phase, handed_on, projection_phase
from lmk.train.network.category import load_pack
from lmk.train.network.checkpoint import load
from lmk.train.network.hourglass import LandmarkNetwork


@pytest.fixture
def config(adapt_config):
    return adapt_config(method="projection+finetune", steps=5)


def test_the_budget_is_shared(config):
    assert (projection_phase(config).steps, finetune_phase(config).steps) == (2, 3)
    timed = replace(config, steps=None, minutes=3.0)
    assert (projection_phase(timed).minutes, finetune_phase(timed).minutes) == (1.5, 1.5)


def test_what_is_handed_on_computes_the_same(config, butterflies, core_path):
    first = projection_phase(config)
    adapt(first, butterflies)
    projected, _ = load_pack(first.output, core_path)
    plain = LandmarkNetwork(projected.config).eval()
    plain.load_state_dict(handed_on(first.output, core_path)["detector"])
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain(images), projected(images), atol=1e-5, rtol=1e-4)


def test_finetuning_starts_from_the_projection(config, butterflies, core_path):
    """At a rate of nearly 0 nothing but batch statistics moves in the second phase."""
    still = replace(config, lr=1e-12)
    adapt(still, butterflies)
    state = handed_on(projection_phase(still).output, core_path)["detector"]
    for name, value in load(still.output, "pack")[0].items():
        if "running" not in name:
            torch.testing.assert_close(value, state[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("step", [1, 2])
def test_interrupted_in_the_second_phase(
    config, butterflies, press_ctrl_c, monkeypatch, same_weights, step
):
    adapt(config, butterflies)
    with monkeypatch.context() as patch:
        other = replace(config, output=config.output.with_stem("other"))
        patch.setattr("lmk.train.loop.run.LOG_EVERY", 1)
        press_ctrl_c(step)  # in the first phase for step 1 of 2, then of the second
        with pytest.raises(KeyboardInterrupt):
            adapt(other, butterflies)
    while True:  # the patched log still interrupts the second phase at the same step
        try:
            adapt(replace(other, resume=True), butterflies)
            break
        except KeyboardInterrupt:
            continue
    same_weights(config.output, other.output)
