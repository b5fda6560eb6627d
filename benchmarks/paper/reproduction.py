"""Tables of the paper -> jobs run or gone on with under a budget -> tables, figures, one page."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lmk.benchmarks.paper import comparison, figures, page
from lmk.benchmarks.paper.jobs import DONE, run, state
from lmk.benchmarks.paper.plan import (
    CoreJob,
    EvaluationJob,
    JobPlan,
    PackJob,
    PaperJob,
    ReproduceOptions,
    plan,
)
from lmk.benchmarks.plots import check_matplotlib
from lmk.runtime.errors import UserError
from lmk.runtime.terminal import console, explain
from lmk.train.datasets import BUILTIN, homes, locate
from lmk.train.device import pick_device

log = logging.getLogger(__name__)


@dataclass
class JobOutcomes:
    """What became of the jobs of one call."""

    page: Path | None = None
    failed: dict[str, str] = field(default_factory=dict)  # name of the job -> why
    left: list[str] = field(default_factory=list)  # names of jobs that the budget did not allow
    blocked: list[str] = field(default_factory=list)  # failed for want of another that did

    def missing(self, job: PaperJob) -> str | None:
        """Why `job` has no result, None if nothing is known against it."""
        if job.name in self.failed:
            return self.failed[job.name]
        return "the time budget was spent" if job.name in self.left else None


class Budget:
    """Minutes for everything. Work is interrupted as by Ctrl-C, which keeps what was done."""

    def __init__(self, minutes: float | None) -> None:
        self._end = time.monotonic() + minutes * 60 if minutes else None
        self.spent = False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Raise KeyboardInterrupt in the main thread when the time is over within the block."""
        if self._end is None:
            yield
            return
        timer = threading.Timer(max(0.0, self._end - time.monotonic()), self._interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # what it has sent arrives here and not in the code that follows

    def _interrupt(self) -> None:
        self.spent = True
        # As a real signal, which ends a blocking call too.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def reproduce(name: str, options: ReproduceOptions, force: bool = False) -> JobOutcomes:
    """Make what is missing of table `name` ("all": every one), then write tables and page.

    A job that fails does not stop the others. `force` makes everything anew. Raises UserError for
    options that do not fit, and without matplotlib; KeyboardInterrupt after Ctrl-C: the next call
    goes on.
    """
    check_matplotlib("the page")
    options = options.for_device(pick_device(options.device).type)
    wanted = plan(name, options)
    outcome, budget = JobOutcomes(), Budget(options.time_budget)
    absent = _absent(wanted)
    if absent:
        console().print(_how_to_get(absent))
    for number, job in enumerate(wanted.jobs, 1):
        failed = next((each for each in _needs(job) if each.name in outcome.failed), None)
        if failed:
            outcome.failed[job.name] = f"{failed.name} failed"
            outcome.blocked.append(job.name)
        elif budget.spent or any(needed.name in outcome.left for needed in _needs(job)):
            if _state_or_reason(job) != DONE:
                outcome.left.append(job.name)
        else:
            _attempt(job, f"{number}/{len(wanted.jobs)}", outcome, budget, force)
    for table in wanted.tables:
        result = comparison.compare(wanted, table, options, outcome.missing)
        comparison.write(options.folder, result)
    try:
        figures.write(wanted, options.folder)
    except UserError as error:  # the data may be gone since: the tables do not need them
        outcome.failed["figures"] = str(error)
    outcome.page = page.write(options.folder)  # of all that was ever made in the folder
    return outcome


def describe(name: str, options: ReproduceOptions) -> Iterator[str]:
    """A line for each job of table `name`: its name and its state; nothing is run."""
    options = options.for_device(pick_device(options.device).type)
    wanted = plan(name, options)
    for job in wanted.jobs:
        yield f"{job.name}: {_state_or_reason(job)}"
    absent = _absent(wanted)
    if absent:
        yield _how_to_get(absent)


def _absent(wanted: JobPlan) -> list[str]:
    """Names of the data sets that are not where they are looked for, of jobs that are not done."""
    names: dict[str, None] = {}
    for job in wanted.jobs:
        if _state_or_reason(job) == DONE:
            continue
        sets = (
            [job.category.test, job.category.fit] if isinstance(job, EvaluationJob) else [job.data]
        )
        for data in filter(None, sets):
            try:
                if not data.spec.startswith(BUILTIN):
                    locate(data.spec, data.layout)
            except UserError:
                names[data.label] = None
    return list(names)


def _how_to_get(absent: list[str]) -> str:
    places = " or ".join(str(home) for home in homes())
    return (
        f"missing data: {', '.join(absent)}, expected as folders in {places} (`lmk data check` "
        "looks at them); or give sets of your own by --core-data, --data and --test"
    )


def _needs(job: PaperJob) -> tuple[PaperJob, ...]:
    """The jobs without whose files `job` cannot start."""
    if isinstance(job, PackJob):
        return (job.core,)
    return (job.pack, job.pack.core) if isinstance(job, EvaluationJob) else ()


def _state_or_reason(job: PaperJob) -> str:
    try:
        return state(job)
    except UserError as error:
        return str(error)


def _attempt(job: PaperJob, number: str, outcome: JobOutcomes, budget: Budget, force: bool) -> None:
    """Bring one job to its end, or put down why it did not get there."""
    screen = console()
    try:
        anew = force and not (isinstance(job, CoreJob) and job.data is None)
        if not anew and state(job) == DONE:
            screen.print(f"{number}  {job.name}: done before")
            return
        screen.print(f"{number}  {job.name}")
        with budget.watch():
            run(job, force)
    except KeyboardInterrupt:
        if not budget.spent:
            raise
        outcome.left.append(job.name)
    except Exception as error:  # whatever it is, the other jobs go on
        line, _ = explain(error)
        if line is None:
            log.exception("%s failed", job.name)
        outcome.failed[job.name] = line or f"internal error, please report it: {error!r}"
        screen.print(f"{job.name} failed: {outcome.failed[job.name]}")
