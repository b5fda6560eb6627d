"""A run: its folder, budget, checkpoints, how it is stopped and what saves it from diverging."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from rich.console import Console
from torch import Tensor

from lmk.runtime.errors import UserError
from lmk.runtime.files import write_bytes
from lmk.runtime.model import read_header
from lmk.runtime.owner import check_same
from lmk.runtime.signals import on_stop
from lmk.train import distributed
from lmk.train.config import RunConfig
from lmk.train.datasets import USUAL_FILMS, CropMode, DecodedSet, FilmOptions, Specs, load_decoded
from lmk.train.device import pick_device, pick_dtype
from lmk.train.loop.monitor import Monitor
from lmk.train.loop.state import Models, Optimizers, load_state, save_state
from lmk.train.loop.threads import FreeCores

STATE_NAME = "state.safetensors"
DATA_NAME = "data.json"  # what is learnt from: too long for the state, which is written often
LOG_EVERY = 20  # steps between two lines, events and checks for NaN: each costs a GPU sync
SAVE_SECONDS = 60.0  # at least this long between two checkpoints within an epoch
MAX_RETREATS = 3  # a run that diverges once more is given up
EXPLODED = 20.0  # a loss of this many times the lowest so far has diverged


class Diverged(UserError):
    """A loss or a weight is not finite, or the loss explodes; `what` says so without the cure."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(f"{what}, expected finite numbers; {cure}")
        self.what = what


class Trainee(Protocol):
    """What a run repeats."""

    models: Models
    optimizers: Optimizers
    images: int  # a step

    def step(self, step: int) -> Mapping[str, Tensor]:
        """Take a step; the losses before it."""

    def after_step(self) -> None:
        """Validate, show and save, when it is time to."""

    def finish(self) -> None:
        """The same at the end, whether the budget was spent or the run stopped."""


class TrainingRun:
    """One training run in `folder`: used as a context manager around the loop.

    The budget is a number of steps, cut short when `minutes` are over. `progress` goes 0 -> 1 and
    drives the schedules. Ctrl-C, SIGTERM or SIGHUP ends the loop after the step under way; a second
    one at once. `origin` is the sha256 of the weights the run starts from and `data` the identity
    of what it learns from: a resume must have the same.
    """

    def __init__(
        self,
        folder: Path,
        config: Any,
        steps: int,
        minutes: float | None,
        console: Console,
        origin: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.config, self.origin = folder, config, origin
        self.data = json.dumps(data, sort_keys=True)
        self.steps, self.minutes = steps, minutes
        self.monitor = Monitor(folder, console if distributed.leads() else Console(quiet=True))
        self.step = 0  # steps taken, the one under way included
        self.interrupted = False
        self.retreats = 0  # how often the run has diverged
        self.history: list[dict[str, Any]] = []
        self.since: list[float] = []  # losses of the steps after the last milestone
        self._lowest = math.inf
        self._elapsed_before = self._clock = 0.0
        self._started = self._saved = time.monotonic()
        self._first_step, self._first_progress = 0, 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._elapsed_before + time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0 … 1."""
        return self._share(self.step, self.elapsed if distributed.size() == 1 else self._clock)

    def _share(self, step: int, seconds: float) -> float:
        """So many steps or seconds as a share of the budget, at most 1."""
        of_time = seconds / (self.minutes * 60) if self.minutes else 0.0
        return min(1.0, max(step / self.steps, of_time))

    @property
    def caution(self) -> float:
        """Factor of the learning rate: halved whenever the run has diverged."""
        return 0.5**self.retreats

    @property
    def finished(self) -> bool:
        """Whether the budget was spent, rather than the run stopped."""
        return not self.interrupted and self.progress >= 1

    def train(self, trainee: Trainee, resume: bool) -> None:
        """Repeat the steps until the budget is spent; exactly as before after a resume.

        A run that diverges goes back to its last checkpoint and takes half the rate. Raises
        UserError after MAX_RETREATS of these, KeyboardInterrupt after Ctrl-C; all is kept.
        """
        if resume:
            self.resume(trainee.models, trainee.optimizers)
        with self:
            if not resume:
                self.save(
                    trainee.models, trainee.optimizers
                )  # so that there is a state to go back to
            while True:
                try:
                    for step in self:
                        self.log(trainee.images, trainee.step(step))
                        trainee.after_step()
                    trainee.finish()
                    break
                except Diverged as error:
                    self._go_back(error, trainee)
        distributed.wait()
        if self.interrupted:
            raise KeyboardInterrupt

    def __enter__(self) -> TrainingRun:
        if distributed.leads():
            plain = json.dumps(self.config.recorded(), indent=2, default=str)
            write_bytes(self.folder / "config.json", plain.encode())
            if not self.step:  # not resumed: what an earlier run left is not this one's state
                for stale in (STATE_NAME, "history.json", "events.*"):
                    for file in self.folder.glob(stale):
                        file.unlink()
                write_bytes(self.folder / DATA_NAME, self.data.encode())
        self.monitor.start()
        self._handler = contextlib.ExitStack()
        self._handler.enter_context(on_stop(self._interrupt))
        config = self.config
        fixed = config.threads or distributed.size() > 1 or config.compile in ("on", "graphs")
        on_gpu = pick_device(config.device).type != "cpu"
        cores = FreeCores(self.monitor.say, fixed=bool(fixed or on_gpu))
        self._cores = self._handler.enter_context(cores)
        self._started = self._saved = time.monotonic()
        self._first_step, self._first_progress = self.step, self.progress
        return self

    def __exit__(self, *error: object) -> None:
        self._handler.close()
        self.monitor.close()

    def __iter__(self) -> Iterator[int]:
        """Yield step numbers, from the one after the last finished, until the budget is spent."""
        while True:
            self.interrupted = distributed.any_of(self.interrupted)  # all processes think alike
            self._clock = distributed.agreed([self.elapsed])[0]
            if self.progress >= 1 or self.interrupted:
                break
            self._cores.adjust()
            self.step += 1
            yield self.step - 1
        if self.interrupted:
            self.monitor.say(f"stopped after step {self.step}; go on with --resume")

    def _interrupt(self, number: int) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True  # no printing here: the signal may have come amid another print

    def log(self, images: int, values: Mapping[str, Tensor | float]) -> None:
        """Show and record the losses of this step of `images`, every LOG_EVERY steps.

        Raises Diverged when one is not finite, or their sum many times what it was: going on
        would only spoil what was learnt.
        """
        if (self.step - 1) % LOG_EVERY and self.step < self.steps:
            return
        scalars = {n: float(distributed.mean(torch.as_tensor(v))) for n, v in values.items()}
        for name, value in scalars.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} is {value}")
        total = sum(scalars.values())
        if total > EXPLODED * self._lowest:
            raise self._diverged(f"the loss is {total:.3g} after {self._lowest:.3g}")
        self._lowest = min(total, self._lowest)
        self.monitor.record(self.step, scalars)
        seconds = time.monotonic() - self._started
        rate = (self.step - self._first_step) * images / max(seconds, 1e-6)
        done = max(self.progress - self._first_progress, 1e-6)
        times = self.elapsed, seconds / done * (1 - self.progress)
        self.monitor.show(self.step, self.steps, scalars, rate, self.progress, times)

    def _diverged(self, what: str) -> Diverged:
        cure = "start again with a lower --lr"
        if (self.folder / STATE_NAME).exists():
            cure = f"go on from the checkpoint in {self.folder} with --resume and a lower --lr"
        return Diverged(f"step {self.step}: {what}", cure)

    def _go_back(self, error: Diverged, trainee: Trainee) -> None:
        """Load the last good state; the rate will be lower."""
        if self.retreats == MAX_RETREATS:
            self.monitor.say(f"diverged {MAX_RETREATS + 1} times, at ever lower rates: given up")
            raise error
        header = load_state(self.folder / STATE_NAME, trainee.models, trainee.optimizers)
        self.step, self.history = header["step"], header["history"]
        self.retreats += 1
        self.monitor.say(
            f"warning: {error.what}; back to step {self.step} with {self.caution:g} of the rate"
        )

    def record(self, values: Mapping[str, float], text: str) -> None:
        """Print a milestone and keep its numbers in history.json."""
        row = {"step": self.step, "seconds": round(self.elapsed, 1), **values}
        self.history.append(row)
        self.monitor.record(self.step, values)
        self.monitor.say(text)
        write_bytes(self.folder / "history.json", json.dumps(self.history, indent=1).encode())

    def due(self) -> bool:
        """Whether a minute has passed since the last checkpoint."""
        return distributed.agreed([time.monotonic() - self._saved])[0] > SAVE_SECONDS

    def save(self, models: Models, optimizers: Optimizers) -> None:
        """Write the state from which `resume` goes on after this step.

        Raises Diverged, and keeps the last state, when a weight is not finite: between two logs
        the loss can go unseen.
        """
        self.check_finite(models)
        if not distributed.leads():
            return
        header = {
            "step": self.step,
            "elapsed": self.elapsed,
            "retreats": self.retreats,
            "history": self.history,
            "since": self.since,
            "config": self.config.recorded(),
            "origin": self.origin,
            "data": _sha256(self.data),
        }
        save_state(self.folder / STATE_NAME, models, optimizers, header)
        self._saved = time.monotonic()

    def check_finite(self, models: Models) -> None:
        """Raise Diverged naming the first weight of `models` that is NaN or infinite."""
        for name, model in models.items():
            for key, value in model.state_dict().items():
                if not value.isfinite().all():
                    raise self._diverged(f"model.{name}.{key} holds NaN or infinity")

    def resume(self, models: Models, optimizers: Optimizers) -> None:
        """Load what `save` wrote: the run goes on as if it had never stopped (bit-equal on a
        CPU with `threads`, for a number of steps).

        Raises UserError if there is no state, it is damaged, or the options, the core or the data
        differ: the first difference is named.
        """
        path = self.folder / STATE_NAME
        if not path.exists():
            raise UserError(f"--resume: no {path}, expected the state of a run; start without it")
        header = read_header(path)
        if header.get("data") != _sha256(self.data):  # first: some options are told by the data
            self._tell_other_data(header.get("data"))
        self._check_same_config(header["config"])
        if header.get("origin", "") != self.origin:
            raise UserError(
                f"--resume: got a core with sha256 {self.origin}, the run in {self.folder} is from "
                f"{header.get('origin')}; give that core or start anew with --force"
            )
        header = load_state(path, models, optimizers)
        self.retreats = header.get("retreats", 0)
        self.step, self._elapsed_before = header["step"], header["elapsed"]
        self.history, self.since = header["history"], header.get("since", [])
        budget = {"steps": self.steps, "minutes": self.minutes}
        if any(header["config"].get(name) != value for name, value in budget.items()):
            for row in self.history:  # another budget: what was its end may be its middle now
                if "progress" in row:
                    row["progress"] = self._share(row["step"], row["seconds"])
        if self._share(self.step, self._elapsed_before) < 1:
            self.monitor.say(f"going on after step {self.step}")
        else:
            self.monitor.say(f"had ended after step {self.step}: a larger budget would go on")

    def _tell_other_data(self, sha256: str | None) -> NoReturn:
        """Raise UserError that names what differs from the data, of `sha256`, of the run before."""
        path = self.folder / DATA_NAME
        with contextlib.suppress(OSError, UnicodeDecodeError):
            was = path.read_text(encoding="utf-8")
            if _sha256(was) == sha256:
                check_same(self.folder, json.loads(was), json.loads(self.data))
        raise UserError(
            f"{path}: missing or changed, expected what the run has learnt from; start anew with "
            "--force"
        )

    def _check_same_config(self, saved: dict[str, Any]) -> None:
        """The budget, the rate, the place and the machine may change; nothing else may."""
        free = {"resume", "epochs", "steps", "minutes", "lr", "output", "device", "threads"}
        free |= {"preview_every", "report", "compile"}
        now = json.loads(json.dumps(asdict(self.config), default=str))
        saved = {field.name: field.metadata.get("before") for field in fields(self.config)} | saved
        for name in now.keys() - free:
            if now[name] != saved[name]:
                raise UserError(
                    f"--resume: {name} is {now[name]}, the run in {self.folder} has "
                    f"{saved[name]}; give the same options or start anew with --force"
                )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def training_set(
    data: Specs,
    layout: str | None,
    crop: CropMode,
    config: RunConfig,
    films: FilmOptions = USUAL_FILMS,
) -> DecodedSet:
    """The decoded images for a run; a device that is not there is told before they are decoded."""
    pick_dtype(config.dtype, pick_device(config.device))
    return load_decoded(data, layout, config.input_size, crop, films=films, seed=config.seed)
