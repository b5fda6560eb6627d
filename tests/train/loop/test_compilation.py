"""A compiled step is the plain step; where compiling fails the run says so and goes on."""

from __future__ import annotations

import copy
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lmk.runtime.errors import UserError
from lmk.train import draws
from lmk.train.adapting.adaptation import Adaptation
from lmk.train.adapting.pairs import Pairs
from lmk.train.core import Batches, Supervision, train_core
from lmk.train.loop import compilation as module
from lmk.train.loop.compilation import compiled
from lmk.train.loop.descend import Descent
from lmk.train.network import hourglass
from lmk.train.network.checkpoint import load_core
from lmk.train.network.projection import ProjectedConv2d
from lmk.train.split import split_indices

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Told(list):
    """A run that is never entered, and what it was told."""

    steps, minutes = 10**6, None

    @property
    def monitor(self):
        return SimpleNamespace(say=self.append)


@pytest.fixture
def traced(monkeypatch):
    """Capture graphs, forward and backward, but run them operator by operator: seconds faster."""
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(module, "BACKEND", counter)
    return counter


def network():
    """A projected convolution and a batch-norm, and the losses of both."""
    torch.manual_seed(0)
    layers = ProjectedConv2d(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)
    model = nn.Sequential(*layers)

    def losses(images, wanted):
        found = model(images)
        return {"fit": (found - wanted).square().mean(), "size": found.abs().mean()}

    return model, losses


def batch(count=4):
    draw = torch.Generator().manual_seed(count)
    return torch.rand(count, 3, 8, 8, generator=draw), torch.rand(count, 2, 6, 6, generator=draw)


def gradients(model, losses):
    parameters = list(model.parameters())
    return torch.autograd.grad(sum(losses.values()), parameters)


def assert_same_step(plain, faster, model, batch, **near):
    """Losses, gradients and statistics of batch-norms, from the same weights."""
    twin = copy.deepcopy(model.state_dict())
    expected = plain(*batch)
    wanted = gradients(model, expected)
    after = copy.deepcopy(model.state_dict())
    model.load_state_dict(twin)
    got = faster(*batch)
    found = gradients(model, got)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, **near)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, **near)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, after[name], **near)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_by_inductor_is_the_plain_step():
    model, losses = network()
    told = Told()
    faster = compiled(losses, lambda _: batch(), {"net": model}, "on", told)
    assert len(told) == 1 and told[0].startswith("compiled the step for 4 images in ")
    assert_same_step(losses, faster, model, batch(), rtol=1e-4, atol=1e-5)


def test_a_rehearsal_leaves_no_trace(traced):
    model, losses = network()
    model[1](torch.randn(4, 8, 5, 5))  # statistics that are not those of the beginning
    before = copy.deepcopy(model.state_dict())
    compiled(losses, lambda _: batch(), {"net": model}, "on", Told())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_is_compiled_once_for_each_size(traced):
    model, losses = network()
    faster = compiled(losses, lambda _: batch(), {"net": model}, "on", told := Told())
    for count in (4, 4, 2, 2, 4, 2):
        faster(*batch(count))
    assert traced.frame_count == 2
    assert [line.split(" in ")[0] for line in told] == [
        "compiled the step for 4 images",
        "compiled the step for 2 images",
    ]


def failing(when):
    """A backend that cannot compile, the graph forward or the one backward."""

    def broken(graph, inputs):
        raise RuntimeError("No working C++ compiler found\nin config.cpp.cxx")

    def fine(graph, inputs):
        return graph.forward

    return aot_autograd(
        fw_compiler=broken if when == "forward" else fine,
        bw_compiler=broken if when == "backward" else fine,
    )


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_a_failure_is_said_once_and_the_plain_step_taken(monkeypatch, when):
    counter = CompileCounterWithBackend(failing(when))
    monkeypatch.setattr(module, "BACKEND", counter)
    model, losses = network()
    faster = compiled(losses, lambda _: batch(), {"net": model}, "on", told := Told())
    assert len(told) == 1 and "\n" not in told[0]
    assert told[0].startswith("warning: compiling failed, training goes on without: ")
    assert told[0].endswith("No working C++ compiler found")
    assert_same_step(losses, faster, model, batch(), rtol=0, atol=0)
    for count in (4, 2, 4):
        faster(*batch(count))
    assert len(told) == 1 and counter.frame_count == 1


def test_an_error_of_the_losses_is_their_own(traced):
    model, _ = network()

    def wrong(images, wanted):
        return {"fit": (model(images) - images).mean()}

    faster = compiled(wrong, lambda _: batch(), {"net": model}, "on", told := Told())
    with pytest.raises(RuntimeError, match="size of tensor a") as caught:
        faster(*batch())
    assert len(told) == 1 and "dynamo" not in type(caught.value).__module__


def test_out_of_memory_halves_the_batch_and_compiles_again(traced):
    model, losses = network()
    room = [4]

    @torch.compiler.disable
    def allocate(images):
        if len(images) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def hungry(images, wanted):
        allocate(images)
        return losses(images, wanted)

    told = Told()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    descend = Descent({"net": model}, {"net": optimizer}, None, told.append)
    faster = compiled(hungry, lambda _: batch(8), {"net": model}, "on", told)
    for _ in range(3):
        descend(batch(8), faster, 0.1)
    room[0] = 2
    faster = compiled(hungry, lambda _: batch(2), {"net": model}, "on", told)
    descend(batch(8), faster, 0.1)
    assert [line.split(" in ")[0] for line in told] == [
        "out of memory: the batch is taken",
        "compiled the step for 4 images",
        "compiled the step for 2 images",
        "out of memory: the batch is taken",
    ]


@pytest.mark.parametrize(
    ("device", "processes", "budget", "expected"),
    [
        (CUDA, 1, (2000, None), True),
        (CUDA, 1, (10**9, 10.0), True),
        (CUDA, 1, (1999, None), False),
        (CUDA, 1, (10**9, 9.0), False),
        (CUDA, 2, (10**6, None), False),
        (CPU, 1, (10**6, None), False),
    ],
)
def test_auto_compiles_where_it_pays(monkeypatch, device, processes, budget, expected):
    monkeypatch.setattr(module.distributed, "size", lambda: processes)
    assert module._pays(device, SimpleNamespace(steps=budget[0], minutes=budget[1])) is expected


def test_choices_that_cannot_be_had(monkeypatch):
    model, losses = network()
    with pytest.raises(UserError, match="--compile graphs: got cpu, expected CUDA; use --compile"):
        compiled(losses, lambda _: batch(), {"net": model}, "graphs", Told())
    monkeypatch.setattr(module.distributed, "size", lambda: 2)
    with pytest.raises(UserError, match="--compile on: got 2 processes, expected one; leave it"):
        compiled(losses, lambda _: batch(), {"net": model}, "on", Told())
    assert compiled(losses, lambda _: batch(), {"net": model}, "auto", Told()) is losses


@pytest.fixture
def shallow(monkeypatch):
    """New networks have an hourglass of one level: half as much to compile."""
    monkeypatch.setattr(hourglass, "DEPTH", 1)


def test_the_step_of_adaptation_is_one_graph(traced, shallow, core, adapt_config, butterflies):
    config = adapt_config(compile="on", bend=0.05, jitter=0.1, identity=0.1, ramp=0.5)
    job = Adaptation(config, core, butterflies, CPU, Told())
    for step in range(2):
        job.pair_losses(*job.pairs(step))
    assert traced.frame_count == 1  # no part of it had to be left to Python
    model = nn.ModuleDict({"detector": job.detector, "painter": job.painter})
    near = {"rtol": 1e-4, "atol": 1e-5}
    assert_same_step(job._pair_losses, job.pair_losses, model, job.pairs(1), **near)


def test_every_product_of_projection_and_core_is_computed_once(
    monkeypatch, core, adapt_config, butterflies
):
    job = Adaptation(adapt_config(), core, butterflies, CPU, Told())
    calls, folded = [], ProjectedConv2d.folded

    def counted(layer):
        calls.append(layer)
        return folded(layer)

    monkeypatch.setattr(ProjectedConv2d, "folded", counted)
    monkeypatch.setattr(ProjectedConv2d, "pays_after", lambda layer, x: False)
    job._pair_losses(*job.pairs(0))
    layers = [layer for layer in job.detector.modules() if isinstance(layer, ProjectedConv2d)]
    assert len(calls) == len(layers) == len(set(map(id, calls)))


def test_stopped_and_resumed_is_never_stopped(
    monkeypatch, shallow, core_config, puppets, tmp_path, press_ctrl_c, capsys, same_weights
):
    monkeypatch.setattr(module, "BACKEND", "eager")  # the graph of dynamo alone
    whole = core_config(output=tmp_path / "whole.safetensors", compile="on")
    train_core(whole, puppets)
    press_ctrl_c(3)
    stopped = core_config(output=tmp_path / "stopped.safetensors", compile="on")
    with pytest.raises(KeyboardInterrupt):
        train_core(stopped, puppets)
    train_core(replace(stopped, resume=True), puppets)
    assert capsys.readouterr().err.count("compiled the step for 4 images") == 3
    same_weights(whole.output, stopped.output)


class Waits(TorchDispatchMode):
    """Refuse what makes the CPU wait for a GPU; a fake one refuses to give its values anyway."""

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        options = options or {}
        tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
        tensors += [a for part in arguments if isinstance(part, list | tuple) for a in part]
        kinds = {a.device.type for a in tensors if isinstance(a, torch.Tensor) and a.dim()}
        if "_to_copy" in str(operator):
            to = torch.device(options.get("device") or tensors[0].device).type
            assert to in kinds or options.get("non_blocking"), f"waits: {operator}"
        else:
            assert len(kinds) < 2, f"copies unseen: {operator} of {kinds}"
        return operator(*arguments, **options)


def test_batches_are_made_without_waiting(
    monkeypatch, core_config, adapt_config, puppets, butterflies
):
    """On a GPU that is not there: what is drawn is sent, and nothing is asked back."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(draws, "_order", draws._order.__wrapped__)  # keeps none
    config = adapt_config(bend=0.05, jitter=0.1)
    train, _ = split_indices(puppets.splits, 0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        pairs = Pairs(butterflies, torch.arange(30), config, CUDA)
        labelled = Batches(puppets, train, core_config(), CUDA)
        with Waits():
            made = [*pairs(1), *labelled(1)]
        assert {tensor.device.type for tensor in made} == {"cuda"}
        with pytest.raises(AssertionError, match="waits"), Waits():
            torch.zeros(3).to(CUDA)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def on_gpu(kind, compile, core_config, adapt_config, puppets, butterflies):
    """A job, and the function that takes its losses; float32, so that they can be compared."""
    run = SimpleNamespace(monitor=Told().monitor, steps=9, minutes=None, progress=0.5, caution=1.0)
    if kind == "category":
        config = adapt_config(device="cuda", compile=compile)
        core, _ = load_core(config.core)
        torch.manual_seed(0)
        job = Adaptation(config, core, butterflies, CUDA, run)
        return job, job.pair_losses, job._pair_losses, job.pairs
    config = core_config(device="cuda", compile=compile)
    job = Supervision(config, puppets, *split_indices(puppets.splits, 0), CUDA, run)
    return job, job.losses_of, job._losses, job.batches


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", ["core", "category"])
@pytest.mark.parametrize("compile", ["on", "graphs", "off"])
def test_steps_on_a_gpu_never_wait(kind, compile, core_config, adapt_config, puppets, butterflies):
    made = core_config, adapt_config, puppets, butterflies
    job, *_ = on_gpu(kind, compile, *made)
    for step in range(3):
        job.step(step)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [job.step(step) for step in range(3, 8)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(math.isfinite(float(value)) for one in losses for value in one.values())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", ["core", "category"])
@pytest.mark.parametrize("compile", ["on", "graphs"])
def test_steps_on_a_gpu_are_those_of_the_plain_loop(
    kind, compile, core_config, adapt_config, puppets, butterflies
):
    made = core_config, adapt_config, puppets, butterflies
    one, two = (on_gpu(kind, choice, *made)[0] for choice in (compile, "off"))
    for step in range(6):
        first, second = one.step(step), two.step(step)
        for name, value in first.items():
            torch.testing.assert_close(value, second[name], rtol=2e-2, atol=2e-2)
