"""A batch of crops -> parts that run next to each other, a processor core each."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lmk.runtime.errors import UserError
from lmk.runtime.runner import Found, Runner


class SideBySide(Runner):
    """Gives a runner of one thread the parts of every batch, from as many threads as it takes.

    For throughput beside other work, such as decoding and encoding: threads inside an operator wait
    for each other at the end of each, and burn the time of a core that somebody else has.
    threads: None = one a core. `runner` must allow calls from several threads; it is closed with
    this one. A single crop gains nothing.
    """

    def __init__(self, runner: Runner, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"threads: got {threads}, expected 1 or more")
        self._runner, self._threads = runner, threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, "lmk-model")
        self.contract, self.name = runner.contract, runner.name

    def __call__(self, crops: Any) -> Found:
        """See `Runner.__call__`."""
        count = min(self._threads, len(crops))
        if count < 2:
            return self._runner(crops)
        found = list(self._pool.map(self._runner, np.array_split(crops, count)))
        return np.concatenate([part[0] for part in found]), np.concatenate(
            [part[1] for part in found]
        )

    def close(self) -> None:
        """Close the runner too."""
        self._pool.shutdown()
        self._runner.close()
