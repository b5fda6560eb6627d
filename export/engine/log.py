"""TensorRT's log, errors and progress -> ours.

TensorRT and TensorRT for RTX have one Python API; the imported module is `trt` everywhere.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from lmk.runtime.errors import UserError
from lmk.runtime.runners import make_log

PERCENT = 100  # the steps that `monitor` reports in
_SHOWN = 3  # lines of TensorRT's own in an error: the first says what, later ones where


def log_of(trt: Any) -> Any:
    """An `ILogger` whose warnings are only INFO: an int8 engine has a hundred, about its choices.

    See `make_log`.
    """
    return make_log(trt, warnings=logging.INFO)


def failure(log: Any, what: str, cure: str) -> UserError:
    """The error for what TensorRT refused, with the lines that it logged."""
    # Without a driver each error is followed by a second one that says only this.
    lines = [line for line in dict.fromkeys(log.lines) if "catchCudaError" not in line][:_SHOWN]
    return UserError(f"{what}: {'; '.join(lines) or 'TensorRT gave no reason'}; {cure}")


def monitor_of(trt: Any, report: Callable[[int], None]) -> Any:
    """An `IProgressMonitor` that calls `report` with percents; `cancel()` ends the build.

    TensorRT's phases are nested: a step of one is a phase of steps. It calls from several threads.
    """

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()
            self._phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, done
            self._percent = 0
            self._cancelled = False

        def cancel(self) -> None:
            self._cancelled = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = (parent_phase, num_steps, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                parent, steps, _ = self._phases[phase_name]
                self._phases[phase_name] = (parent, steps, step + 1)
                percent = int(PERCENT * progress_of(self._phases, phase_name))
                if percent > self._percent:  # phases side by side are not in order
                    self._percent = percent
                    report(percent)
            return not self._cancelled

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

    return Monitor()


def progress_of(phases: dict[str, tuple[str | None, int, int]], name: str | None) -> float:
    """How much of the whole build, 0 to 1, is done after the last step of the phase `name`.

    phases: parent, number of steps and steps done of each.
    """
    share = 0.0
    while name in phases:
        parent, steps, done = phases[name]
        share = min(done + share, steps) / max(steps, 1)
        name = parent
    return share
