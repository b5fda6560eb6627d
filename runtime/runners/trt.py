"""Crops -> landmarks through a TensorRT engine, from any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from lmk.runtime.errors import UserError
from lmk.runtime.model import Contract, Reading, compare, probe_crops, read_engine
from lmk.runtime.runners.gpu import CudaError
from lmk.runtime.runners.gpu_open import describe, open_device
from lmk.runtime.runners.runner import Runner, run_batches
from lmk.runtime.runners.trt_engine import Plan
from lmk.runtime.runners.trt_lane import Lane


class TrtRunner(Runner):
    """An engine made by `lmk export --engine`, run by TensorRT or TensorRT for RTX on the GPU.

    Batches are cut and padded to those that the engine was built for. Calls from several threads
    run side by side, each with buffers of its own, which are kept for the next call.

    cuda_graph: launch each step as one CUDA graph; PyCUDA has none, and `name` says so. Raises
    UserError for a file that is not such an engine, or not one for this GPU and this version.
    """

    def __init__(self, path: Path | str, cuda_graph: bool = True) -> None:
        self._closed = True  # until there is something to close
        self._turn = threading.Condition()  # guards the three fields below
        self._running = 0
        self._alone = False
        self._idle: list[Lane] = []
        path = Path(path)
        info, data = read_engine(path)
        self._cuda = open_device()
        self._use_graphs = cuda_graph and self._cuda.captures
        with self._cuda.current():
            self._plan = Plan(path, info, data, self._cuda)
        self.contract: Contract = info.contract
        self.name = f"{info.titled_library} on {describe(self._cuda)}"
        self._closed = False

    def __call__(self, crops: Any) -> Reading:
        """See `Runner.__call__`. Crops in device memory (DLPack, __cuda_array_interface__) stay
        there; what a producer's stream still writes is waited for.
        """
        with self._on_device("cannot run these crops", "try a smaller batch"), self._lane() as lane:
            return self._run(lane, crops)

    def refit(
        self, model: bytes, contract: Contract, probe: Mapping[str, Any] | None = None
    ) -> float | None:
        """Make this the model of another category: swap the weights of the engine.

        model: the other category's, see `Plan.prepare_refit`; contract: also its. probe: what its
        pack has of the landmarks in the probe crops (see `record`). Waits for calls that are
        running. Returns the largest distance to the probe's landmarks in pixels, None without one.
        Raises UserError for what `check_takes` and `Plan.prepare_refit` refuse, and for landmarks
        beyond the limits of the precision; these close the runner: its weights are no one's.
        """
        self.check_takes(contract)
        with self._on_device("cannot change its weights", "load it again"), self._exclusive():
            put = self._plan.prepare_refit(model)
            try:
                put()
                for lane in self._idle:
                    lane.drop_graphs()
                drift = None if probe is None else self._drift(contract, probe)
            except BaseException:
                self._free()
                raise
            self.contract = contract
            return drift

    def check_takes(self, contract: Contract) -> None:
        """Raise UserError unless the engine's network can be that of `contract`."""
        for name in ("core_sha256", "num_landmarks", "input_size", "precision"):
            ours, other = getattr(self.contract, name), getattr(contract, name)
            if ours != other:
                raise UserError(
                    f"{self._plan.path}: refit to '{contract.category}': got {name} {other}, "
                    f"expected {ours}; export that pack to an engine of its own"
                )

    def close(self) -> None:
        """Wait for calls that are running, then free everything; a second call does nothing."""
        if self._closed:
            return
        with self._cuda.current(), self._exclusive(may_be_closed=True):
            self._free()

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process CUDA may be gone already
            self.close()

    def _run(self, lane: Lane, crops: Any) -> Reading:
        view, buckets = lane.open(crops, self.contract), self._plan.info.recipe.batches
        count = self.contract.num_landmarks
        return run_batches(view.shape[0], count, buckets, partial(lane.run, view))

    @contextmanager
    def _on_device(self, failure: str, cure: str) -> Iterator[None]:
        """Make the device current; what CUDA and TensorRT refuse becomes a UserError."""
        try:
            with self._cuda.current():
                yield
        except CudaError as error:
            raise UserError(f"{self.name}: {failure} ({error}); {cure}") from error

    def _drift(self, contract: Contract, probe: Mapping[str, Any]) -> float:
        """How far landmarks are from the probe's at most, in pixels; raises as `compare`."""
        crops = probe_crops(contract.input_size, probe["crops"], probe["seed"])
        lane = self._take()
        try:
            found = self._run(lane, crops)
        finally:
            self._idle.append(lane)
        source = f"{self._plan.path}: refit to '{contract.category}'"
        names, cure = contract.landmark_names, "export that pack to an engine of its own"
        report = compare(found, probe, names, contract.precision, source, cure)
        return float(report["max_px"])

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        """A lane for one call, kept for the next one unless CUDA failed in it."""
        with self._turn:
            self._turn.wait_for(lambda: not self._alone)
            self._check_open()
            self._running += 1
        lane = None
        try:
            lane = self._take()
            yield lane
        except ValueError:  # of the caller: nothing has run
            raise
        except BaseException:
            if lane is not None:
                lane.close()
                lane = None
            raise
        finally:
            with self._turn:
                if lane is not None:
                    self._idle.append(lane)
                self._running -= 1
                self._turn.notify_all()

    def _take(self) -> Lane:
        try:
            return self._idle.pop()
        except IndexError:
            return Lane(self._cuda, self._plan, self._use_graphs)

    @contextmanager
    def _exclusive(self, may_be_closed: bool = False) -> Iterator[None]:
        """Let calls that are running end, and hold back others meanwhile."""
        with self._turn:
            self._turn.wait_for(lambda: not self._alone and self._running == 0)
            if not may_be_closed:
                self._check_open()
            self._alone = True
        try:
            yield
        finally:
            with self._turn:
                self._alone = False
                self._turn.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("TrtRunner: called after close()")

    def _free(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        self._plan.close()
