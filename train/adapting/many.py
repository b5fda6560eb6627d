"""Several sets of unlabelled images -> a pack each, adapted at once as tasks of Ray."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from lmk.runtime.cluster import Place, Share, at, here, joined_ray, machines, share_out
from lmk.runtime.errors import UserError, write_error
from lmk.runtime.model import read_header
from lmk.runtime.terminal import console, explain
from lmk.train.adapting.adaptation import adapt
from lmk.train.adapting.phases import has_begun, is_finished
from lmk.train.config import AdaptConfig
from lmk.train.datasets import CropMode
from lmk.train.loop import on_sigint, training_set

State = Literal["done", "done before", "stopped", "not begun", "failed"]
_POLL = 0.5  # seconds between two looks at whether Ctrl-C was pressed
# What a pack was made with, but for where, how fast and how much of it was shown.
_FREE = {"output", "core", "vgg", "device", "threads", "resume", "preview_every", "report"}
_FREE |= {"compile"}


@dataclass(frozen=True)
class Category:
    """What to adapt to, as the user calls it, and how."""

    data: str
    config: AdaptConfig
    layout: str | None = None
    crop: CropMode = "image"

    @property
    def name(self) -> str:
        return self.config.output.stem

    @property
    def log(self) -> Path:
        """What the run would have shown on a terminal."""
        return self.config.output.with_suffix("") / "log.txt"


@dataclass(frozen=True)
class Outcome:
    """What became of a category; `says` is the verdict on its landmarks, or what went wrong."""

    name: str
    state: State
    says: str = ""
    pack: Path | None = None  # if this has made one, whole or as far as it got
    steps: int | None = None
    seconds: float | None = None  # of training, those before a resume included


def adapt_many(categories: Sequence[Category], jobs: int | None = None) -> list[Outcome]:
    """Adapt to every category, `jobs` at once; the outcomes in the order of `categories`.

    Each writes its pack, and what it has to say to its log. One that fails does not stop the rest.
    Of those to be resumed finished ones are left alone, and the others go on or begin. After
    Ctrl-C all stop, with everything saved; after a second one KeyboardInterrupt is raised at once.
    Raises UserError for two of one name, for one GPU named, and as `joined_ray`.
    """
    _check(categories)
    outcomes = {c.name: _outcome(c, "done before") for c in categories if _is_made(c)}
    todo = [_resumable(c) for c in categories if c.name not in outcomes]
    if todo:
        config = todo[0].config
        with joined_ray() as ray:
            nodes, use_gpus = machines(ray), config.device != "cpu"
            share = share_out(nodes, len(todo), jobs, config.threads, use_gpus)
            for outcome in _run(ray, todo, share):
                outcomes[outcome.name] = outcome
                console().print(_line(outcome))
    return [outcomes[category.name] for category in categories]


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """A table of what became of every category, on standard error."""
    table = Table()
    table.add_column("category")
    table.add_column("")
    table.add_column("steps", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("", overflow="fold")
    for one in outcomes:
        numbers = ("-" if value is None else f"{value:.0f}" for value in (one.steps, one.seconds))
        table.add_row(Text(one.name), one.state, *numbers, Text(one.says))
    console().print(table, soft_wrap=False)


def _check(categories: Sequence[Category]) -> None:
    data_of: dict[str, str] = {}
    for category in categories:
        name, data = category.name, category.data
        if name in data_of:
            raise UserError(
                f"--data: got {data_of[name]} and {data}, both called {name}, expected a name "
                "each; rename one"
            )
        data_of[name] = data
        if category.config.device.startswith("cuda:"):
            raise UserError(
                f"--device: got {category.config.device} for several --data, expected auto, cpu "
                "or cuda; choose GPUs by CUDA_VISIBLE_DEVICES"
            )


def _is_made(category: Category) -> bool:
    """Whether a resume has nothing to do: the pack is finished and was made as is asked for."""
    config = category.config
    if not (config.resume and is_finished(config.output)):
        return False
    header = read_header(config.output)
    core = read_header(config.core)["sha256"] if config.core else ""
    now = json.loads(json.dumps(asdict(config), default=str))  # None: whatever the device says
    asked = {n: v for n, v in now.items() if n not in _FREE and v is not None}
    made = {name: header["config"].get(name) for name in asked}
    return header["core_sha256"] == core and asked == made


def _resumable(category: Category) -> Category:
    """The same, begun anew if it is to be resumed and there is nothing to go on from."""
    config = category.config
    resume = config.resume and (has_begun(config.output) or config.output.exists())
    return replace(category, config=replace(config, resume=resume))


def _run(ray: Any, todo: Sequence[Category], share: Share) -> Iterator[Outcome]:
    """Keep `share.jobs` tasks running until all are done or Ctrl-C; the outcomes as they come."""
    task = ray.remote(max_retries=0)(work).options(num_cpus=share.cpus, num_gpus=share.gpus)
    place, waiting = here(), deque(todo)
    running, stop = dict[Any, Category](), _Stop()
    with on_sigint(stop):
        while running or (waiting and not stop.asked):
            while waiting and len(running) < share.jobs and not stop.asked:
                category = waiting.popleft()
                console().print(f"{category.name}: begun, see {category.log}")
                running[task.remote(category, place, share)] = category
            if stop.asked and not stop.passed_on:
                stop.passed_on = True
                console().print("stopping: what was learnt is being saved; once more to kill")
                for one in running:
                    ray.cancel(one)  # comes as Ctrl-C in the task
            for one in ray.wait(list(running), timeout=_POLL)[0] if running else []:
                yield _result(ray, one, running.pop(one))
    yield from (Outcome(category.name, "not begun") for category in waiting)


class _Stop:
    """Whether Ctrl-C was pressed, and whether the tasks know."""

    asked = passed_on = False

    def __call__(self) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True  # no printing here: the signal may have come amid another print


def _result(ray: Any, reference: Any, category: Category) -> Outcome:
    """What a task that has ended gave, or how it died."""
    try:
        return ray.get(reference)
    except ray.exceptions.TaskCancelledError:  # before it had begun
        return Outcome(category.name, "stopped")
    except ray.exceptions.RayError as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return Outcome(category.name, "failed", f"its process died: {reason}")


def work(category: Category, place: Place, share: Share) -> Outcome:
    """What a task does: decode and train, with its words in the log; it raises nothing."""
    config = category.config
    if not share.gpus:
        config = replace(config, threads=config.threads or share.cpus)
    try:
        with at(place), _told_to(category.log):
            try:
                adapt(config, training_set(category.data, category.layout, category.crop, config))
            except KeyboardInterrupt:
                return _outcome(category, "stopped")
            return _outcome(category, "done", _last_line(category.log))
    except KeyboardInterrupt:
        return Outcome(category.name, "stopped")
    except Exception as error:
        line, _ = explain(error)
        return Outcome(category.name, "failed", line or f"internal error: {error!r}")


@contextlib.contextmanager
def _told_to(log: Path) -> Iterator[None]:
    """Whatever is printed in the block goes to the end of `log`, and the traceback of a bug."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("a", buffering=1)
    except OSError as error:
        raise write_error(log, error) from error
    with file, contextlib.redirect_stderr(file), contextlib.redirect_stdout(file):
        try:
            yield
        except Exception as error:
            line, _ = explain(error)
            print(line or traceback.format_exc())
            raise


def _last_line(log: Path) -> str:
    """The verdict, if a page was written: a run ends with it."""
    return log.read_text().rstrip().rpartition("\n")[2]


def _outcome(category: Category, state: State, says: str = "") -> Outcome:
    """The outcome with what the header of the pack tells."""
    path = category.config.output
    header = read_header(path) if path.exists() else {"finished": True}
    if header["finished"] and state == "stopped":  # none yet, or that of an earlier run
        return Outcome(category.name, state, says)
    return Outcome(category.name, state, says, path, header["step"], header["seconds"])


def _line(outcome: Outcome) -> str:
    """One line on the terminal for the end of a category."""
    took = "" if outcome.steps is None else f" after {outcome.steps} steps, {outcome.seconds:.0f} s"
    return f"{outcome.name}: {outcome.state}{took}" + f"; {outcome.says}" * bool(outcome.says)
