"""Losses of a batch -> the same losses, by kernels compiled for its shapes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from lmk.runtime.errors import UserError
from lmk.train import distributed
from lmk.train.loop.descend import Losses, out_of_memory
from lmk.train.loop.run import TrainingRun
from lmk.train.loop.state import Models

Choice = Literal["auto", "on", "graphs", "off"]
LossesOf = Callable[..., Losses]

BACKEND = "inductor"
# Compiling a step takes one or two minutes, which a shorter run does not win back.
WORTH_STEPS, WORTH_MINUTES = 2000, 10.0


def compiled(
    losses_of: LossesOf,
    batches: Callable[[int], tuple[Tensor, ...]],
    models: Models,
    choice: Choice,
    run: TrainingRun,
) -> LossesOf:
    """`losses_of`, compiled for batches like `batches(0)` if `choice` says so (see `--compile`).

    "auto" compiles on CUDA, in one process, for a budget that wins the time back. The time is not
    part of the budget when this is called before the run. Where compiling fails the run says why
    and goes on without. `models`, in the mode in which they are trained, are left as they were.
    Raises UserError for a choice that device or processes rule out.
    """
    device = next(parameter.device for model in models.values() for parameter in model.parameters())
    processes = distributed.size()
    if choice == "graphs" and device.type != "cuda":
        raise UserError(f"--compile graphs: got {device}, expected CUDA; use --compile on")
    if choice in ("on", "graphs") and processes > 1:
        raise UserError(
            f"--compile {choice}: got {processes} processes, expected one; leave it out"
        )
    if choice == "auto":
        choice = "on" if _pays(device, run) else "off"
    if choice == "off":
        return losses_of
    batch = batches(0)
    whole = len(batch[0]) if choice == "graphs" else None
    faster = Compiled(losses_of, models, run.monitor.say, whole)
    try:
        faster.prepare(batch)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    return faster  # out of memory: the first step will be too, and the batch be halved


def _pays(device: torch.device, run: TrainingRun) -> bool:
    if device.type != "cuda" or distributed.size() > 1:
        return False
    return run.steps >= WORTH_STEPS and (run.minutes is None or run.minutes >= WORTH_MINUTES)


class Compiled:
    """Losses by kernels that are compiled once for each size of batch.

    The first failure, forward or backward, is said, and all goes on without compiling. Batches of
    `whole` images are replayed as a CUDA graph. Parts of a batch are not: replaying overwrites the
    gradients that are being summed.
    """

    def __init__(
        self,
        losses_of: LossesOf,
        models: Models,
        say: Callable[[str], None],
        whole: int | None = None,
    ) -> None:
        self.losses_of, self.models, self.say, self.whole = losses_of, models, say, whole
        self.failed = False
        self.seconds = 0.0  # that compiling took
        self._sizes: dict[int, LossesOf] = {}
        # What was compiled for an earlier run's networks would count against dynamo's limit, past
        # which it stops compiling without a word.
        torch.compiler.reset()

    def __call__(self, *batch: Tensor) -> Losses:
        """What `losses_of` gives for `batch`, up to rounding."""
        self.prepare(batch)
        return self._sizes.get(len(batch[0]), self.losses_of)(*batch)

    def prepare(self, batch: tuple[Tensor, ...]) -> None:
        """Compile for the size of `batch`, unless that was done, by a rehearsal of the step.

        Raises what PyTorch raises when it is out of memory.
        """
        size = len(batch[0])
        if self.failed or size in self._sizes:
            return
        started = time.monotonic()
        graph = size == self.whole
        # Shapes that are fixed make faster kernels; there are but a few.
        mode = "reduce-overhead" if graph else None
        faster = torch.compile(self.losses_of, backend=BACKEND, dynamic=False, mode=mode)
        try:
            with _unchanged(self.models), warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", "Dynamo detected a call to a `functools.lru_cache"
                )
                for _ in range(3 if graph else 1):  # warmed up, recorded, replayed
                    self._rehearse(faster, batch)
        except Exception as error:  # whatever a compiler raises: the plain step tells what is ours
            if out_of_memory(error):
                raise
            self.failed = True
            self._sizes.clear()
            self.say(f"warning: compiling failed, training goes on without: {_reason(error)}")
            return
        self._sizes[size] = faster
        seconds = time.monotonic() - started
        self.seconds += seconds
        self.say(f"compiled the step for {size} images in {seconds:.0f} s")

    def _rehearse(self, losses_of: LossesOf, batch: tuple[Tensor, ...]) -> None:
        """Forward and backward, as dynamo compiles either when it is first run."""
        parameters = [
            parameter
            for model in self.models.values()
            for parameter in model.parameters()
            if parameter.requires_grad
        ]
        total = torch.stack(list(losses_of(*batch).values())).sum()
        torch.autograd.grad(total, parameters, allow_unused=True)


@contextmanager
def _unchanged(models: Models) -> Iterator[None]:
    """Put the statistics of batch-norms back afterwards."""
    buffers = [buffer for model in models.values() for buffer in model.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


def _reason(error: Exception) -> str:
    """What is at the bottom of it, in one line."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.endswith("raised:")]
    return told[0][:200] if told else type(error).__name__
