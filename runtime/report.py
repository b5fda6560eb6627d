"""Results -> what the user reads: progress, summaries, tables."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lmk.runtime.errors import UserError
from lmk.runtime.landmarker import LOW_SCORE
from lmk.runtime.summary import Outcome, Summary
from lmk.runtime.weights import read_header

_LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal
Report = Callable[[int, int | None], None]  # items done, items in all if known


def console() -> Console:
    """Standard error, so that standard output stays for results.

    File names are printed as they are: rich would take brackets and colons in them for its own.
    """
    return Console(file=sys.stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)


def output() -> Console:
    """Standard output, for results: as `console`, 120 columns wide whatever the terminal."""
    return Console(width=120, soft_wrap=True, highlight=False, markup=False, emoji=False)


@contextmanager
def progress(title: str, total: int | None = None, before: int = 0) -> Iterator[Report]:
    """A bar with rate and time left on a terminal, a line every 10 seconds elsewhere.

    before: items that an earlier run had done; they do not count into the rate.
    """
    screen = console()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    started = last = time.monotonic()
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=before)

        def report(done: int, of: int | None) -> None:
            nonlocal last
            bar.update(task, completed=done, total=of or total)
            now = time.monotonic()
            if not screen.is_terminal and now - last > _LINE_SECONDS:
                last = now
                screen.print(_progress_line(title, done, of or total, before, now - started))

        yield report


def _progress_line(title: str, done: int, total: int | None, before: int, seconds: float) -> str:
    rate = (done - before) / seconds
    left = f", {clock((total - done) / rate)} left" if total and total > done and rate else ""
    return f"{title}: {done} of {total or '?'}, {rate:.1f} a second{left}"


def clock(seconds: float) -> str:
    """As 1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def print_outcome(outcome: Outcome) -> None:
    """A line about one of several sources."""
    screen = console()
    if outcome.summary is None:
        screen.print(f"{outcome.name}: failed: {outcome.error}")
        return
    screen.print(f"{outcome.name}: {_rate(outcome.summary)}")
    for reason in outcome.summary.skipped:
        screen.print(f"skipped: {reason}")


def print_summary(summary: Summary) -> None:
    """What a detection did: frames, rate, where the time went, what was left out."""
    screen = console()
    screen.print(_rate(summary))
    busy = ", ".join(f"{name} {value:.1f} s" for name, value in summary.busy_seconds.items())
    screen.print(f"busy: {busy}; the slowest: {summary.bottleneck}")
    if summary.dropped:
        screen.print(f"dropped: {summary.dropped} frames that came while the model was busy")
    if summary.frames and not summary.objects:
        screen.print("nothing found: say where it is by --roi or --start, or give a --detector")
    if summary.objects and summary.mean_score < LOW_SCORE:
        screen.print("low scores: the object should fill the box; say where it is by --roi")
    for reason in summary.skipped:
        screen.print(f"skipped: {reason}")


def _rate(summary: Summary) -> str:
    frames = "1 frame" if summary.frames == 1 else f"{summary.frames} frames"
    resumed = f" ({summary.resumed} of them before)" if summary.resumed else ""
    objects = "" if summary.objects == summary.frames else f"{summary.objects} objects, "
    score = f"mean score {summary.mean_score:.2f}" if summary.objects else ""
    return (
        f"{frames}{resumed} in {summary.seconds:.1f} s, {summary.frames_per_second:.1f} a second; "
        f"{objects}{score}".rstrip("; ,")
    )


def print_info(path: Path, as_json: bool = False) -> None:
    """What a core, a pack, a run's state, an exported model or engine holds, on standard output.

    In short and rounded for reading, or whole as JSON.
    """
    if path.suffix == ".onnx":
        from lmk.runtime.ort import OrtRunner

        with OrtRunner(path, threads=1) as runner:
            values = asdict(runner.contract)
    elif path.suffix == ".safetensors":
        values = read_header(path)
    elif path.suffix == ".engine":
        from lmk.runtime.engine_file import read_engine

        values = read_engine(path)[0].flat()
    else:
        kind = "a folder" if path.is_dir() else f"'{path.suffix}'"
        raise UserError(f"{path}: got {kind}, expected a .safetensors, .onnx or .engine file")
    if as_json:
        print(json.dumps(values, indent=1))
        return
    screen = output()
    for name, value in values.items():
        screen.print(f"{name:16} {_brief(value)}")


def _brief(value: object) -> str:
    """One line: floats to 4 digits, the last entry of a history, the worst drift."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        if "max_px" in value and "crops" in value:  # of export/verify.py
            return f"max {value['max_px']:.2g} px over {value['crops']} crops"
        if "crops" in value and "landmarks" in value:  # of runtime/parity.py
            return f"what is found in {value['crops']} synthetic crops"
        return ", ".join(f"{name} {_nested(each)}" for name, each in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[-1], Mapping):
            entries = "1 entry" if len(value) == 1 else f"{len(value)} entries, the last"
            return f"{entries}: {_brief(value[-1])}"
        return ", ".join(_nested(each) for each in value) or "-"
    return str(value) or "-"


def _nested(value: object) -> str:
    return f"({_brief(value)})" if isinstance(value, (Mapping, list, tuple)) else _brief(value)


def print_doctor(as_json: bool) -> None:
    """What this machine has, what is missing and the line that gets it, on standard output."""
    from lmk.runtime.doctor import examine

    diagnosis = examine()
    if as_json:
        print(json.dumps(asdict(diagnosis) | {"best_device": diagnosis.best_device}, indent=1))
        return
    screen = output()
    for check in diagnosis.checks:
        screen.print(f"{check.state:8} {check.name:20} {check.detail}")
        if check.cure:
            screen.print(f"{'':29} {check.cure}")
    best = diagnosis.best_runner
    screen.print(f"best runner here: {best.how}: {best.why}")
