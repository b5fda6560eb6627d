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
from lmk.runtime.signals import on_stop
from lmk.runtime.terminal import console, explain
from lmk.train.adapting.adaptation import adapt
from lmk.train.adapting.cores import after_trials, is_under_way
from lmk.train.adapting.phases import is_finished
from lmk.train.config import AUTO, AdaptConfig
from lmk.train.datasets import USUAL_FILMS, CropMode, FilmOptions
from lmk.train.loop import training_set

Ending = Literal["done", "done before", "stopped", "not begun", "failed"]
_POLL = 0.5  # seconds between two looks at whether Ctrl-C was pressed
# What a pack was made with, but for where, how fast and how much of it was shown.
_FREE = {"output", "core", "vgg", "device", "threads", "resume", "preview_every", "report"}
_FREE |= {"compile"}


@dataclass(frozen=True)
class Request:
    """What to adapt to, as the user calls it, and how."""

    data: str
    config: AdaptConfig
    layout: str | None = None
    crop: CropMode = "image"
    films: FilmOptions = USUAL_FILMS

    @property
    def name(self) -> str:
        return self.config.output.stem

    @property
    def log(self) -> Path:
        """What the run would have shown on a terminal."""
        return self.config.output.with_suffix("") / "log.txt"


@dataclass(frozen=True)
class Ended:
    """How a request ended; `says` is the verdict on its landmarks, or what went wrong."""

    name: str
    state: Ending
    says: str = ""
    pack: Path | None = None  # if this has made one, whole or as far as it got
    steps: int | None = None
    seconds: float | None = None  # of training, those before a resume included


def adapt_many(requests: Sequence[Request], jobs: int | None = None) -> list[Ended]:
    """Carry out all requests, `jobs` at once; how they ended, in their order.

    Each writes its pack, and what it has to say to its log. One that fails does not stop the rest.
    Of those to be resumed finished ones are left alone, and the others go on or begin. After
    Ctrl-C all stop, with everything saved; after a second one KeyboardInterrupt is raised at once.
    Raises UserError for two of one name, for one GPU named, and as `joined_ray`.
    """
    _check(requests)
    ends = {one.name: _end(one, "done before") for one in requests if _is_made(one)}
    todo = [_resumable(one) for one in requests if one.name not in ends]
    if todo:
        config = todo[0].config
        with joined_ray() as ray:
            nodes, use_gpus = machines(ray), config.device != "cpu"
            share = share_out(nodes, len(todo), jobs, config.threads, use_gpus)
            for end in _run(ray, todo, share):
                ends[end.name] = end
                took = "" if end.steps is None else f" after {end.steps} steps, {end.seconds:.0f} s"
                says = f"; {end.says}" if end.says else ""
                console().print(f"{end.name}: {end.state}{took}{says}")
    return [ends[request.name] for request in requests]


def print_ends(ends: Sequence[Ended]) -> None:
    """A table of how every request ended, on standard error."""
    table = Table()
    table.add_column("category")
    table.add_column("")
    table.add_column("steps", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("", overflow="fold")
    for one in ends:
        numbers = ("-" if value is None else f"{value:.0f}" for value in (one.steps, one.seconds))
        table.add_row(Text(one.name), one.state, *numbers, Text(one.says))
    console().print(table, soft_wrap=False)


def _check(requests: Sequence[Request]) -> None:
    data_of: dict[str, str] = {}
    for request in requests:
        name, data = request.name, request.data
        if name in data_of:
            raise UserError(
                f"--data: got {data_of[name]} and {data}, both called {name}, expected a name "
                "each; rename one"
            )
        data_of[name] = data
        if request.config.device.startswith("cuda:"):
            raise UserError(
                f"--device: got {request.config.device} for several --data, expected auto, cpu "
                "or cuda; choose GPUs by CUDA_VISIBLE_DEVICES"
            )


def _is_made(request: Request) -> bool:
    """Whether a resume has nothing to do: the pack is finished and was made as is asked for."""
    config = request.config
    if not (config.resume and is_finished(config.output)):
        return False
    header = read_header(config.output)
    core = header["core_sha256"] if config.core == AUTO else ""
    if config.core and config.core != AUTO:
        core = read_header(config.core)["sha256"]
    wanted = after_trials(config) if config.core == AUTO else config
    now = json.loads(json.dumps(asdict(wanted), default=str))  # None: whatever the device says
    asked = {n: v for n, v in now.items() if n not in _FREE and v is not None}
    made = {name: header["config"].get(name) for name in asked}
    return header["core_sha256"] == core and asked == made


def _resumable(request: Request) -> Request:
    """The same, begun anew if it is to be resumed and there is nothing to go on from."""
    config = request.config
    resume = config.resume and (is_under_way(config.output) or config.output.exists())
    return replace(request, config=replace(config, resume=resume))


def _run(ray: Any, todo: Sequence[Request], share: Share) -> Iterator[Ended]:
    """Keep `share.jobs` tasks running until all are done or Ctrl-C; how they ended, as they do."""
    task = ray.remote(max_retries=0)(work).options(num_cpus=share.cpus, num_gpus=share.gpus)
    place, waiting = here(), deque(todo)
    running, stop = dict[Any, Request](), _Stop()
    with on_stop(stop):
        while running or (waiting and not stop.asked):
            while waiting and len(running) < share.jobs and not stop.asked:
                request = waiting.popleft()
                console().print(f"{request.name}: begun, see {request.log}")
                running[task.remote(request, place, share)] = request
            if stop.asked and not stop.passed_on:
                stop.passed_on = True
                console().print("stopping: what was learnt is being saved; once more to kill")
                for one in running:
                    ray.cancel(one)  # comes as Ctrl-C in the task
            for one in ray.wait(list(running), timeout=_POLL)[0] if running else []:
                yield _result(ray, one, running.pop(one))
    yield from (Ended(request.name, "not begun") for request in waiting)


class _Stop:
    """Whether Ctrl-C was pressed, and whether the tasks know."""

    asked = passed_on = False

    def __call__(self, number: int) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True  # no printing here: the signal may have come amid another print


def _result(ray: Any, reference: Any, request: Request) -> Ended:
    """What a task that has ended gave, or how it died."""
    try:
        return ray.get(reference)
    except ray.exceptions.TaskCancelledError:  # before it had begun
        return Ended(request.name, "stopped")
    except ray.exceptions.RayError as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return Ended(request.name, "failed", f"its process died: {reason}")


def work(request: Request, place: Place, share: Share) -> Ended:
    """What a task does: decode and train, with its words in the log; it raises nothing."""
    config = request.config
    if not share.gpus:
        config = replace(config, threads=config.threads or share.cpus)
    try:
        with at(place), _told_to(request.log):
            try:
                fitted = request.layout, request.crop, config, request.films
                adapt(config, training_set(request.data, *fitted))
            except KeyboardInterrupt:
                return _end(request, "stopped")
            # The verdict, if a page was written: a run ends with it.
            return _end(request, "done", request.log.read_text().rstrip().rpartition("\n")[2])
    except KeyboardInterrupt:
        return Ended(request.name, "stopped")
    except Exception as error:
        line, _ = explain(error)
        return Ended(request.name, "failed", line or f"internal error: {error!r}")


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


def _end(request: Request, state: Ending, says: str = "") -> Ended:
    """How it ended, with what the header of the pack tells."""
    path = request.config.output
    header = read_header(path) if path.exists() else {"finished": True}
    if header["finished"] and state == "stopped":  # none yet, or that of an earlier run
        return Ended(request.name, state, says)
    return Ended(request.name, state, says, path, header["step"], header["seconds"])
