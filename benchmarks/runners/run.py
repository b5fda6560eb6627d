"""One benchmark while it is made: what runs here, on which crops, and the steps in their order."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmk.benchmarks.runners import process
from lmk.benchmarks.runners.names import BenchOptions, RunnerSpec, defaults, open_runner
from lmk.benchmarks.runners.subject import Subject
from lmk.benchmarks.timing import CALLS, LEAST_TURNS, Seconds, drift, seconds_of, take_turns
from lmk.runtime.errors import UserError
from lmk.runtime.model import probe_crops
from lmk.runtime.runners import Runner
from lmk.runtime.terminal import console

CROPS = 128  # that drift is measured on, and as many others that calibrate, if there are so many
BASE = "eager"  # fp32: what speed and landmarks are compared with
_DRIFT_BATCH = 32  # at most
Crops = NDArray[np.uint8]


@dataclass
class BenchRun:
    """Raises UserError, in each step, for a runner that was asked for and does not run here."""

    options: BenchOptions
    subject: Subject
    device: torch.device
    threads: int
    crops: Crops  # (N,S,S,3), N at least the largest batch
    images: int  # of the crops; the others repeat them
    others: Crops | None  # (M,S,S,3), not among the crops: what int8 and fp8 calibrate on
    source: str | None  # of the crops: their data set; None: synthetic
    load: float  # of the machine before the benchmark: processes that ran or waited
    specs: dict[str, RunnerSpec] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def batches(self) -> tuple[int, ...]:
        """Sizes, ascending."""
        return tuple(sorted(set(self.options.batches)))

    def attempt(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives; where it cannot, None, and the reason goes to `left_out`."""
        try:
            return make()
        except (UserError, ImportError) as error:
            reason = str(error).removeprefix(f"{name}: ")
            if name in self.options.against:
                raise UserError(f"{name}: {reason}") from error
            self.left_out[name] = reason
            self.specs.pop(name, None)
            console().print(f"left out: {name}: {reason}")
            return None

    def choose(self) -> None:
        """Fill `specs`: make the model of each runner, which may take minutes."""
        for name in planned(self.options, self.device.type):
            console().print(f"{name}: its model")
            if spec := self.attempt(name, functools.partial(self._spec, name)):
                self.specs[name] = spec

    def _spec(self, name: str) -> RunnerSpec:
        device = self.device.type
        return self.subject.spec(name, device, self.threads, self.batches, self.others)

    def start_each(self) -> dict[str, dict[str, Any]]:
        """What `process.start` finds of each runner."""
        path = self.subject.folder / "crops.npy"
        np.save(path, self.crops[: self.batches[-1]])
        found = {}
        for name, spec in list(self.specs.items()):
            slow = "; compiling takes minutes" if spec.kind == "compile" else ""
            console().print(f"{name}: first result and memory, in a process of its own{slow}")
            on_gpu = spec.device == "cuda" and torch.cuda.is_available()
            free = (lambda: int(torch.cuda.mem_get_info()[0])) if on_gpu else None
            start = functools.partial(process.start, spec, path, self.options.starts, free)
            if (values := self.attempt(name, start)) is not None:
                found[name] = values
        return found

    @contextmanager
    def opened(self) -> Iterator[dict[str, Runner]]:
        """All runners, warmed up for every batch."""
        with ExitStack() as stack:
            runners = {}
            for name, spec in list(self.specs.items()):
                runner = self.attempt(name, functools.partial(self._open, spec))
                if runner is not None:
                    runners[name] = stack.enter_context(runner)
            if not runners:
                reasons = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())
                raise UserError(f"runners: got none that works here, expected one; {reasons}")
            yield runners

    def _open(self, spec: RunnerSpec) -> Runner:
        runner = open_runner(spec)
        try:
            for batch in self.batches:
                runner(self.crops[:batch])
        except BaseException:
            runner.close()
            raise
        return runner

    def turns(self, runners: dict[str, Runner], batch: int) -> dict[str, Seconds]:
        """Seconds of each runner at `batch`, all on the same crops."""
        torch.set_num_threads(self.threads)  # whatever a library has set when it was loaded
        crops = self.crops[:batch]
        calls: dict[str, Callable[[], object]] = {
            name: functools.partial(runner, crops) for name, runner in runners.items()
        }
        options = self.options
        turn = sum(seconds_of(call) for call in calls.values()) * (CALLS + 1)
        most = min(turn * options.repeats / CALLS, max(options.seconds, turn))
        console().print(f"batch {batch}: {len(runners)} runners in turns, some {most:.0f} s")
        turns = max(math.ceil(options.repeats / CALLS), LEAST_TURNS)
        return take_turns(calls, turns, options.seconds, each=CALLS, lead=1)

    def drifts(self, runners: dict[str, Runner]) -> dict[str, dict[str, float]]:
        """How far the landmarks of each are from those of eager fp32; nothing without the pack."""
        with ExitStack() as stack:
            eager = runners.get(BASE)
            if eager is None:
                spec = self.attempt("drift", lambda: self._spec(BASE))
                if spec is None:
                    return {}
                eager = stack.enter_context(open_runner(spec))
            expected = self._find(eager)
            others = {name: runner for name, runner in runners.items() if name != BASE}
            return {name: drift(self._find(runner), expected) for name, runner in others.items()}

    def _find(self, runner: Runner) -> NDArray[np.float32]:
        """Landmarks (images,K,2); in a batch that was measured, for others are not compiled."""
        batch = max((b for b in self.batches if b <= _DRIFT_BATCH), default=self.batches[0])
        rounds = math.ceil(self.images / batch)
        crops = _repeated(self.crops, rounds * batch)
        parts = [runner(part)[0] for part in np.split(crops, rounds)]
        return np.concatenate(parts)[: self.images]


def planned(options: BenchOptions, device: str) -> tuple[str, ...]:
    """The names of the runners that a benchmark on `device` will try."""
    usual = defaults(device, options.data is not None, options.student is not None)
    return tuple(dict.fromkeys(options.against)) or usual


def find_crops(subject: Subject, options: BenchOptions) -> tuple[Crops, int, Crops | None]:
    """Crops (N,S,S,3) to measure on, how many of them are different, and others (M,S,S,3).

    Of the images named every second one is measured, and calibrates nothing; the others are there
    for that. Without images: synthetic crops, and no others. N is at least the largest batch.
    Raises UserError for data that are not there.
    """
    size = subject.contract.input_size
    if options.data is None:
        crops, others = probe_crops(size, CROPS), None
    else:
        from lmk.train.datasets import load_decoded

        every = load_decoded(options.data, None, size, "image").central_crops(2 * CROPS, size)
        crops, others = every[::2], every[1::2] if len(every) > 1 else None
    return _repeated(crops, max(len(crops), *options.batches)), len(crops), others


def _repeated(crops: Crops, count: int) -> Crops:
    return crops[np.arange(count) % len(crops)]
