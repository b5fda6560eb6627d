"""Runs that are killed, diverge or fill the memory lose nothing."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from lmk.runtime.errors import UserError
from lmk.train.adapting import adaptation as adaptation
from lmk.train.adapting.adaptation import Adaptation, adapt
from lmk.train.core import train_core
from lmk.train.loop.run import MAX_RETREATS, STATE_NAME, TrainingRun
from lmk.train.network.checkpoint import load

# Killed within the writing of a file, or within a step, at the given count.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from lmk.train.loop import run
from lmk.train.network import hourglass
hourglass.WIDTHS["small"] = 16
run.SAVE_SECONDS = 0.0
from lmk.train.config import AdaptConfig
from lmk.train.adapting import adapt
from lmk.train.datasets import decode
from lmk.train.datasets.drawn import builtin
output, core, cache, where, count = sys.argv[1:]
left = [int(count)]
def deadly(function):
    def counted(*arguments, **options):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return counted
if where == "rename":
    os.replace = deadly(os.replace)
else:
    from lmk.train.loop.descend import Descent
    Descent._accumulate = deadly(Descent._accumulate)
data = decode(builtin("butterfly", 40), 64, "image", Path(cache))
adapt(AdaptConfig(output=Path(output), core=Path(core), landmarks=5, batch=4, steps=6,
                  generator_width=8, device="cpu", dtype="fp32", threads=1, report=False), data)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The pack of the run that is never killed, once it is made."""
    return tmp_path_factory.mktemp("whole") / "whole.safetensors"


@pytest.mark.parametrize(("where", "count"), [("step", 4), ("rename", 9), ("rename", 14)])
def test_killed_and_resumed_is_never_killed(
    adapt_config, butterflies, core_path, tmp_path, same_weights, whole, where, count
):
    config = adapt_config(output=tmp_path / "killed.safetensors")
    arguments = [str(config.output), str(core_path), str(tmp_path / "cache"), where, str(count)]
    ended = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert load(config.output.with_suffix("") / STATE_NAME, "run")[1]["step"] < 6
    adapt(replace(config, resume=True), butterflies)
    if not whole.exists():
        adapt(adapt_config(output=whole), butterflies)
    same_weights(config.output, whole)
    left = [name for name in os.listdir(tmp_path / "killed") if "events" not in name]
    assert {"state.safetensors", "config.json", "history.json", "preview.png"} <= set(left)


def spoil(monkeypatch, at):
    """Put NaN into the head after each step number in `at` (a list; each is used once)."""
    original = Adaptation.step

    def step(self, number):
        losses = original(self, number)
        if number in at:
            at.remove(number)
            with torch.no_grad():
                self.detector.head.weight[0, 0] = float("nan")
        return losses

    monkeypatch.setattr(Adaptation, "step", step)
    monkeypatch.setattr("lmk.train.loop.run.LOG_EVERY", 1)


def test_nan_goes_back_to_the_last_good_state(adapt_config, butterflies, monkeypatch, capsys):
    rates = []
    monkeypatch.setattr("lmk.train.loop.run.SAVE_SECONDS", 0.0)
    spoil(monkeypatch, [3])
    descend = adaptation.Descent.__call__

    def watched(self, batch, losses_of, lr):
        rates.append(lr)
        return descend(self, batch, losses_of, lr)

    monkeypatch.setattr(adaptation.Descent, "__call__", watched)
    config = adapt_config()
    adapt(config, butterflies)
    told = capsys.readouterr().err
    assert "holds NaN or infinity; back to step 3 with 0.5 of the rate" in told
    assert len(rates) == 7 and rates[4] == pytest.approx(rates[3] / 2)
    assert all(value.isfinite().all() for value in load(config.output, "pack")[0].values())
    assert load(config.output.with_suffix("") / STATE_NAME, "run")[1]["retreats"] == 1


def test_gives_up_after_three_and_keeps_everything(adapt_config, butterflies, monkeypatch, capsys):
    monkeypatch.setattr("lmk.train.loop.run.SAVE_SECONDS", 0.0)
    spoil(monkeypatch, [2] * (MAX_RETREATS + 1))
    config = adapt_config()
    with pytest.raises(UserError, match="holds NaN or infinity.*--resume and a lower --lr"):
        adapt(config, butterflies)
    told = capsys.readouterr().err
    assert told.count("back to step 2") == 3 and "0.125 of the rate" in told
    assert "given up" in told
    assert all(value.isfinite().all() for value in load(config.output, "pack")[0].values())
    assert load(config.output.with_suffix("") / STATE_NAME, "run")[1]["step"] == 2


def test_a_loss_that_explodes_goes_back(core_config, puppets, monkeypatch, capsys):
    monkeypatch.setattr("lmk.train.loop.run.LOG_EVERY", 1)
    log, seen = TrainingRun.log, []

    def exploding(self, images, values):
        seen.append(self.step)
        scale = 1e6 if len(seen) == 5 else 1.0
        log(self, images, {name: value * scale for name, value in values.items()})

    monkeypatch.setattr(TrainingRun, "log", exploding)
    train_core(core_config(), puppets)
    assert "back to step 0 with 0.5 of the rate" in capsys.readouterr().err
    assert seen == [1, 2, 3, 4, 5, *range(1, 9)]


def test_out_of_memory_in_the_middle(adapt_config, butterflies, monkeypatch, capsys):
    from lmk.train.adapting import objective

    original, calls = objective.pair_losses, []

    def hungry(*arguments):
        calls.append(len(arguments[3].images))
        if len(calls) >= 3 and calls[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(*arguments)

    monkeypatch.setattr(adaptation, "pair_losses", hungry)
    config = adapt_config()
    adapt(config, butterflies)
    assert calls == [4, 4, 4, *[2] * 8]
    assert "the batch is taken in 2 parts of 2" in capsys.readouterr().err
    assert load(config.output, "pack")[1]["finished"]
