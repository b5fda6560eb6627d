"""The benchmark of training: both loops learn, and its last line is what it found."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lmk.benchmarks.studies import training, training_plain
from lmk.train import augment
from lmk.train.config import AdaptConfig, CoreConfig
from lmk.train.datasets.drawn.drawn import builtin
from lmk.train.loop.compilation import Compiled

pytestmark = pytest.mark.usefixtures("tiny")
CPU = torch.device("cpu")


def test_last_line_is_the_result():
    options = ["--width", "small", "--input-size", "64", "--steps", "1", "--repeats", "2"]
    options += ["--workers", "0", "--threads", "1", "--device", "cpu"]
    done = CliRunner().invoke(training.main, options, catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(done.output.splitlines()[-1])
    for name, batch in (("adapt", 16), ("train_core", 32)):
        rates = found[name]
        assert rates["batch"] == batch and rates["plain_images_per_second"] > 0
        ours = rates["ours"].pop("off")
        assert not rates["ours"]  # nothing was compiled
        assert ours["images_per_second"] > 0 and ours["speed_up"] > 0 and ours["compile_s"] == 0
        assert 0 < sum(ours["operators_percent"].values()) <= 100.5
    assert found["machine"]["versions"]["torch"]


@pytest.mark.parametrize(("kind", "optimizers"), [("adaptation", 2), ("supervision", 1)])
def test_both_loops_step_every_optimiser(kind, optimizers, monkeypatch):
    stepped = []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *_: stepped.append(self))
    both = {"data": "builtin:butterfly", "core_data": "builtin:puppet"}
    loops, _, _ = getattr(training, kind)(CPU, width="small", input_size=64, workers=0, **both)
    loops["off"]()
    assert len(stepped) == optimizers
    loops["plain"]()
    assert len(stepped) == 2 * optimizers


@pytest.mark.parametrize(
    ("kind", "where"),
    [("adaptation", "lmk.train.adapting.adaptation"), ("supervision", "lmk.train.core")],
)
def test_what_could_not_be_compiled_has_no_figures(kind, where, monkeypatch):
    def half(losses_of, batches, models, choice, run):
        if choice == "off":
            return losses_of
        made = Compiled(losses_of, models, print)
        made.failed, made.seconds = choice == "graphs", 3.0
        return made

    monkeypatch.setattr(f"{where}.compiled", half)
    options = {"data": "builtin:butterfly", "core_data": "builtin:puppet", "workers": 0}
    options |= {"width": "small", "input_size": 64, "choices": ("off", "on", "graphs")}
    loops, seconds, _ = getattr(training, kind)(CPU, **options)
    assert list(loops) == ["plain", "off", "on"] and seconds == {"off": 0.0, "on": 3.0}


def test_the_plain_pairs_are_two_views_of_one_image():
    data = builtin("butterfly", 3)
    pairs = training_plain.PlainPairs(
        data, AdaptConfig(input_size=64, rotation=10.0, shift=0.02, scale=0.05)
    )
    first, second, between = pairs[1]
    again = augment.warp(second[None], between[None], 64)[0]
    middle = (..., slice(20, 44), slice(20, 44))
    assert (again[middle] - first[middle]).abs().mean() < 0.04
    assert first.shape == (3, 64, 64) and not torch.equal(first, pairs[1][0])


def test_the_plain_points_lie_where_the_image_shows_them():
    data = builtin("puppet", 2)
    still = CoreConfig(input_size=64, rotation=0.0, scale=0.0, shift=0.0, gain=0.0)
    image, points = training_plain.Labelled(data, still)[0]
    scale = 64 / 160
    expected = (data.samples[0].points + 0.5) * scale - 0.5
    np.testing.assert_allclose(augment.to_pixels(points), expected, atol=1e-4)
    assert image.shape == (3, 64, 64)
