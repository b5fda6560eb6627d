"""As many threads as other processes leave cores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil
import torch

if TYPE_CHECKING:
    from typing import Self

_EVERY = 2.0  # seconds between two looks at what others use
_BEARABLE = 0.45  # of a core, used by others, for which no thread is given up


class FreeCores:
    """Keeps torch, within a `with`, on as many threads as other processes leave cores.

    The threads of a step wait for each other thousands of times, so one that shares its core with
    another process holds all of them up: two threads beside one busy core are slower than one by
    far (benchmarks/results/threads-cpu.json). `say` is told once. `fixed`: the user has chosen.
    """

    def __init__(self, say: Callable[[str], None], fixed: bool) -> None:
        self.say, self.fixed = say, fixed

    def __enter__(self) -> Self:
        self._most, self._told = torch.get_num_threads(), False
        if self._most > 1 and not self.fixed:
            self._looked, self._used = time.monotonic(), _used_by_others()
        return self

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self._most)

    def adjust(self) -> None:
        """Take fewer or more threads, by what others have used since the last look."""
        if self._most == 1 or self.fixed:
            return
        passed = time.monotonic() - self._looked
        if passed < _EVERY:
            return
        used = _used_by_others()
        busy = (used - self._used) / passed
        self._looked, self._used = self._looked + passed, used
        threads = min(max(1, int(len(_cores()) - busy + _BEARABLE)), self._most)
        if threads == torch.get_num_threads():
            return
        torch.set_num_threads(threads)
        if not self._told:
            self._told = True
            self.say(
                f"other processes keep {busy:.1f} cores busy: computing with {threads} of "
                f"{self._most} threads while they do"
            )


def _cores() -> list[Any]:
    """The times of the cores that we may use, in seconds since the machine was started."""
    times = psutil.cpu_times(percpu=True)
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
    # A container may show its own cores alone, numbered anew.
    return [times[core] for core in ours] if max(ours) < len(times) else times


def _used_by_others() -> float:
    """Processor seconds so far on the cores that we may use, but for our own.

    Those of a lower priority too: what they get of a core we wait for.
    """
    used = sum(core.user + core.system + getattr(core, "nice", 0.0) for core in _cores())
    return used - time.process_time()
