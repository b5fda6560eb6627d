"""A run: its folder, budget, progress display, events, checkpoints and how it is stopped."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from lmk.runtime.errors import UserError
from lmk.runtime.files import write_bytes
from lmk.train import checkpoint
from lmk.train.config import UNBOUNDED

STATE_NAME = "state.safetensors"
LOG_EVERY = 20  # steps between two lines, events and checks for NaN: each costs a GPU sync
SAVE_SECONDS = 60.0  # at least this long between two checkpoints within an epoch


class Run:
    """One training run in `folder`: used as a context manager around the loop.

    The budget is a number of steps, cut short when `minutes` are over. `progress` goes 0 -> 1 and
    drives the schedules. Ctrl-C ends the loop after the step under way; a second one kills it.
    `origin` is the sha256 of the weights the run starts from, which a resume must start from too.
    """

    def __init__(
        self,
        folder: Path,
        config: Any,
        steps: int,
        minutes: float | None,
        console: Console,
        origin: str = "",
    ) -> None:
        self.folder, self.config, self.origin = folder, config, origin
        self.steps, self.minutes, self.console = steps, minutes, console
        self.step = 0  # steps taken, the one under way included
        self.interrupted = False
        self.history: list[dict[str, float]] = []
        self._elapsed_before = 0.0
        self._started = self._saved = time.monotonic()
        self._first_step, self._first_progress = 0, 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._elapsed_before + time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0 … 1."""
        of_time = self.elapsed / (self.minutes * 60) if self.minutes else 0.0
        return min(1.0, max(self.step / self.steps, of_time))

    @property
    def finished(self) -> bool:
        """Whether the budget was spent, rather than the run stopped."""
        return not self.interrupted and self.progress >= 1

    def __enter__(self) -> Run:
        write_bytes(
            self.folder / "config.json",
            json.dumps(asdict(self.config), indent=2, default=str).encode(),
        )
        if not self.step:  # not resumed: what an earlier run left is not this one's state
            (self.folder / STATE_NAME).unlink(missing_ok=True)
        self._events = SummaryWriter(str(self.folder))
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._bar.start()
        self._task = self._bar.add_task(self.folder.name, total=1.0, text="")
        self._handler = _on_sigint(self._interrupt)
        self._started = self._saved = time.monotonic()
        self._first_step, self._first_progress = self.step, self.progress
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handler.close()
        self._bar.stop()
        self._events.close()

    def __iter__(self) -> Iterator[int]:
        """Yield step numbers, from the one after the last finished, until the budget is spent."""
        while self.progress < 1 and not self.interrupted:
            self.step += 1
            yield self.step - 1
        if self.interrupted:
            self.console.print(f"stopped after step {self.step}; go on with --resume")

    def _interrupt(self) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True  # no printing here: the signal may have come amid another print

    def log(self, batch: int, values: Mapping[str, Tensor | float]) -> None:
        """Show and record the scalars of this step, every LOG_EVERY steps.

        Raises UserError when one is not finite: going on would only spoil what was learnt.
        """
        if self.step % LOG_EVERY != 1 and self.step < self.steps:
            return
        scalars = {name: float(value) for name, value in values.items()}
        for name, value in scalars.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} is {value}")
            self._events.add_scalar(name, value, self.step)
        seconds = time.monotonic() - self._started
        rate = (self.step - self._first_step) * batch / max(seconds, 1e-6)
        text = "  ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        of = "" if self.steps == UNBOUNDED else f"/{self.steps}"
        total = sum(scalars.values())
        short = f"step {self.step}{of}  loss {total:.3g}  {rate:.1f}/s"  # fits 80 columns
        self._bar.update(self._task, completed=self.progress, text=short)
        line = f"step {self.step}{of}  {text}  {rate:.1f} images/s"
        if not self.console.is_terminal:
            done = max(self.progress - self._first_progress, 1e-6)
            left = seconds / done * (1 - self.progress)
            self.console.print(f"{line}  {self.elapsed:.0f} s, {left:.0f} s left", markup=False)

    def _diverged(self, what: str) -> UserError:
        cure = "start again with a lower --lr"
        if (self.folder / STATE_NAME).exists():
            cure = f"go on from the checkpoint in {self.folder} with --resume and a lower --lr"
        return UserError(f"step {self.step}: {what}, expected finite numbers; {cure}")

    def record(self, values: Mapping[str, float], text: str) -> None:
        """Print a milestone and keep its numbers in history.json."""
        row = {"step": self.step, "seconds": round(self.elapsed, 1), **values}
        self.history.append(row)
        for name, value in values.items():
            self._events.add_scalar(name, value, self.step)
        self.console.print(text, markup=False)
        write_bytes(self.folder / "history.json", json.dumps(self.history, indent=1).encode())

    def due(self) -> bool:
        """Whether a minute has passed since the last checkpoint."""
        return time.monotonic() - self._saved > SAVE_SECONDS

    def save(self, models: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> None:
        """Write the state from which `resume` goes on after this step.

        Raises UserError, and keeps the last state, when a weight is not finite: between two logs
        the loss can go unseen.
        """
        self.check_finite(models)
        tensors: dict[str, Tensor] = {}
        groups = {}
        for name, model in models.items():
            tensors |= {f"model.{name}.{key}": value for key, value in model.state_dict().items()}
        for name, optimizer in optimizers.items():
            state = optimizer.state_dict()
            groups[name] = state["param_groups"]
            for index, values in state["state"].items():
                tensors |= {f"optimizer.{name}.{index}.{key}": v for key, v in values.items()}
        header = {
            "step": self.step,
            "elapsed": self.elapsed,
            "history": self.history,
            "groups": groups,
            "config": asdict(self.config),
            "origin": self.origin,
        }
        header = json.loads(json.dumps(header, default=str))
        checkpoint.save(self.folder / STATE_NAME, "run", tensors, header)
        self._saved = time.monotonic()

    def check_finite(self, models: Mapping[str, nn.Module]) -> None:
        """Raise UserError naming the first weight of `models` that is NaN or infinite."""
        for name, model in models.items():
            for key, value in model.state_dict().items():
                if not value.isfinite().all():
                    raise self._diverged(f"model.{name}.{key} holds NaN or infinity")

    def resume(self, models: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> None:
        """Load what `save` wrote: the run goes on as if it had never stopped (bit-equal on a CPU).

        Raises UserError if there is no state or it belongs to another configuration.
        """
        path = self.folder / STATE_NAME
        if not path.exists():
            raise UserError(f"--resume: no {path}, expected the state of a run; start without it")
        tensors, header = checkpoint.load(path, "run")
        self._check_same_config(header["config"])
        if header.get("origin", "") != self.origin:
            raise UserError(
                f"--resume: got a core with sha256 {self.origin}, the run in {self.folder} is from "
                f"{header.get('origin')}; give that core or start anew with --force"
            )
        for name, model in models.items():
            model.load_state_dict(_below(tensors, f"model.{name}."))
        for name, optimizer in optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(tensors, f"optimizer.{name}.").items():
                index, field = key.split(".", 1)
                state.setdefault(int(index), {})[field] = value
            optimizer.load_state_dict({"state": state, "param_groups": header["groups"][name]})
            _lay_out(optimizer)
        self.step, self._elapsed_before = header["step"], header["elapsed"]
        self.history = header["history"]

    def _check_same_config(self, saved: dict[str, Any]) -> None:
        """The budget, the rate, the place and the machine may change; nothing else may."""
        free = {"resume", "epochs", "steps", "minutes", "lr", "output", "device", "threads"}
        free |= {"preview_every"}
        now = json.loads(json.dumps(asdict(self.config), default=str))
        for name in now.keys() - free:
            if now[name] != saved.get(name):
                raise UserError(
                    f"--resume: {name} is {now[name]}, the run in {self.folder} has "
                    f"{saved.get(name)}; give the same options or start anew with --force"
                )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _lay_out(optimizer: Optimizer) -> None:
    """Give the moments the strides of their parameters: fused Adam pairs the values in memory
    order, and a file has lost that of channels-last."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter).copy_(value)


def _on_sigint(action: Any) -> contextlib.ExitStack:
    """Call `action` on Ctrl-C until closed; does nothing outside the main thread."""
    stack = contextlib.ExitStack()
    if threading.current_thread() is threading.main_thread():

        def handler(number: int, frame: FrameType | None) -> None:
            action()

        previous = signal.signal(signal.SIGINT, handler)
        stack.callback(signal.signal, signal.SIGINT, previous)
    return stack


def generator(seed: int, *counters: int) -> torch.Generator:
    """Random draws that depend on seed and counters alone: nothing to save for a resume."""
    mixed = seed
    for counter in counters:
        mixed = (mixed * 6364136223846793005 + counter + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(mixed)


def batch_indices(count: int, batch: int, step: int, seed: int) -> Tensor:
    """Indices (batch,) for `step`: a new permutation of 0 … count-1 every epoch, no partial batch.

    A set smaller than the batch is repeated.
    """
    if count < batch:
        return torch.randint(count, (batch,), generator=generator(seed, 0, step))
    epoch, position = divmod(step, count // batch)
    order = torch.randperm(count, generator=generator(seed, 0, epoch))
    return order[position * batch : (position + 1) * batch]


def warmup_cosine(progress: float, warmup: float = 0.03) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to 0.01."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def step_decay(progress: float) -> float:
    """Factor of the learning rate in the authors' code: a tenth at epochs 30 and 60 of 80."""
    return 0.1 ** int(progress * 80 // 30)
