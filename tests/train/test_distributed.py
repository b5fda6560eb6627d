"""Two processes on one machine take the steps that one takes with the same batch."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch

from lmk.runtime.errors import UserError
from lmk.train import distributed
from lmk.train.adapting.adaptation import adapt
from lmk.train.core import train_core
from lmk.train.network.checkpoint import load

# Takes a run after the other from its standard input: to start costs more than all of them.
PROCESS = """
import contextlib, io, json, os, signal, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from lmk.train.loop import run
from lmk.train.network import hourglass
hourglass.WIDTHS["small"] = 16
run.LOG_EVERY = 1
from lmk.train import distributed
from lmk.train.config import AdaptConfig, CoreConfig
from lmk.train.adapting import adapt
from lmk.train.core import train_core
from lmk.train.datasets import decode
from lmk.train.datasets.drawn import builtin
log, stop = run.TrainingRun.log, None
def interrupting(self, images, values):
    log(self, images, values)
    if self.step == stop and os.environ["RANK"] == "1":
        signal.raise_signal(signal.SIGINT)
run.TrainingRun.log = interrupting
with distributed.joined(torch.device("cpu")):
    for line in sys.stdin:
        options = json.loads(line)
        kind, category, crop, stop = (options.pop(n) for n in ("kind", "category", "crop", "stop"))
        options = {n: Path(v) if n in ("output", "core") and v else v for n, v in options.items()}
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(said):
            with distributed.leader_first():
                data = decode(builtin(category, 40), 64, crop, Path(sys.argv[1]))
            try:
                if kind == "core":
                    train_core(CoreConfig(**options), data)
                else:
                    adapt(AdaptConfig(**options), data)
            except KeyboardInterrupt:
                print("interrupted")
        print(json.dumps([printed.getvalue(), said.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def in_two(tmp_path_factory):
    """Return a function that runs a configuration in two processes, as torchrun would.

    It gives what each has printed, on standard output and standard error.
    """
    folder = tmp_path_factory.mktemp("two")
    listening = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port()), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, folder / "cache"],
            env={**os.environ, **listening, "RANK": rank, "LOCAL_RANK": rank},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / rank).open("w"),
            text=True,
        )
        for rank in "01"
    ]

    def run(config, kind, category, crop, stop=None):
        options = {**asdict(config), "kind": kind, "category": category, "crop": crop, "stop": stop}
        for process in processes:
            process.stdin.write(json.dumps(options, default=str) + "\n")
            process.stdin.flush()
        told = []
        for rank, process in enumerate(processes):
            assert select.select([process.stdout], [], [], 400)[0], "no answer"
            line = process.stdout.readline()
            assert line, (folder / str(rank)).read_text()
            told.append(json.loads(line))
        return told

    yield run
    for process in processes:
        process.stdin.close()
    ended = [process.wait(60) for process in processes]
    for process in processes:
        process.stdout.close()
    assert ended == [0, 0], [(folder / rank).read_text() for rank in "01"]


def port():
    """One that is free, and that no other program is given unasked before it is used."""
    for number in range(20_000 + os.getpid() % 10_000, 32_000):  # below those of outgoing calls
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", number))
            return number
    raise OSError("no free port")


def losses(told):
    """Every loss of every step, from the lines of a run."""
    lines = (line.split() for line in told.splitlines() if "images/s" in line)
    return [[float(value) for value in words[3:-7:2]] for words in lines]


@pytest.fixture
def same_in_two(in_two, tmp_path, capsys, monkeypatch):
    """Return a function that trains alone and in two processes, and compares losses and weights."""
    monkeypatch.setattr("lmk.train.loop.run.LOG_EVERY", 1)

    def check(train, make, data, kind, *how, **options):
        # Adam makes a whole step of a gradient that is nothing but rounding: keep the steps small.
        options |= {"steps": 4, "lr": 1e-4}
        one = make(output=tmp_path / "one.safetensors", **options)
        train(one, data)
        alone = losses(capsys.readouterr().err)
        two = make(output=tmp_path / "two.safetensors", **options)
        told = in_two(two, kind, *how)
        assert len(alone) == 4 and all(alone)
        torch.testing.assert_close(losses(told[0][1]), alone, atol=2e-3, rtol=2e-3)
        weights, others = (load(each.output, kind)[0] for each in (one, two))
        assert weights.keys() == others.keys()
        for name, value in weights.items():
            torch.testing.assert_close(others[name], value, atol=2e-4, rtol=2e-3)
        assert not told[1][0] and "step" not in told[1][1]  # only the leader speaks

    return check


def test_a_core(core_config, puppets, same_in_two):
    same_in_two(train_core, core_config, puppets, "core", "puppet", "annotation")


def test_a_category(adapt_config, butterflies, same_in_two):
    """Its first phase is a projection, its second moves everything."""
    options = {"projection_rate": 1.0, "method": "projection+finetune"}
    same_in_two(adapt, adapt_config, butterflies, "pack", "butterfly", "image", **options)


def test_stopped_and_gone_on_with(adapt_config, in_two, tmp_path, same_weights):
    """Ctrl-C in one process stops both after the same step; a resume goes on exactly."""
    whole = adapt_config(output=tmp_path / "whole.safetensors")
    in_two(whole, "pack", "butterfly", "image")
    stopped = adapt_config(output=tmp_path / "stopped.safetensors")
    told = in_two(stopped, "pack", "butterfly", "image", stop=3)
    assert [out for out, _ in told] == ["interrupted\n"] * 2
    assert load(tmp_path / "stopped" / "state.safetensors", "run")[1]["step"] == 3
    in_two(replace(stopped, resume=True), "pack", "butterfly", "image")
    same_weights(whole.output, stopped.output)


def test_alone_nothing_is_shared():
    assert distributed.size() == 1 and distributed.leads()
    assert distributed.share(6) == slice(0, 6)
    assert distributed.agreed([1.0, 2.0]) == [1.0, 2.0] and distributed.any_of(True)
    mask, values = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([2.0, 9.0, 4.0])
    assert distributed.mean_where(values, mask) == 3.0
    assert distributed.mean_where(values, mask * 0) == 0.0


def test_a_batch_that_cannot_be_shared_out(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 2)
    with pytest.raises(UserError, match="--batch: got 5, expected a multiple of the 2 processes"):
        distributed.share(5)
    with pytest.raises(UserError, match="--batch: got 2"):
        distributed.share(2)


def test_shared_batch_norm_is_batch_norm(monkeypatch):
    """With one process' sums it computes what PyTorch's does, forward and backward."""
    monkeypatch.setattr(distributed._Sum, "apply", lambda tensor: tensor)
    torch.manual_seed(0)
    plain, shared = torch.nn.BatchNorm2d(5), distributed.SharedBatchNorm2d(5)
    for norm in (plain, shared):
        torch.nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(1))
    x = torch.randn(4, 5, 6, 6) * 3 + 1
    results = []
    for norm in (plain, shared):
        images = x.clone().requires_grad_()
        norm(images).square().mul(torch.arange(5.0).view(1, 5, 1, 1)).sum().backward()
        results.append([images.grad, norm.weight.grad, norm.running_mean, norm.running_var])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
