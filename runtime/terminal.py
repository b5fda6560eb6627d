"""What the user reads on the terminal: the console, progress, and how a command ended."""

from __future__ import annotations

import errno
import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lmk.runtime.errors import UserError, write_error

_TRAIN_MODULES = ("torch", "torchvision", "onnx", "onnxscript", "tensorboard", "jinja2", "scipy")


class FilePath(click.Path):
    """A path; an empty one, as of an unset variable of the shell, is none."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        """See click.Path."""
        if value == "":
            self.fail("got an empty name, expected a file or folder", parameter, context)
        return super().convert(value, parameter, context)


FILE_PATH = FilePath()
_LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal
Report = Callable[[int, int | None], None]  # items done, items in all if known


class CommaList(click.ParamType):
    """`1,8,64` -> (1, 8, 64): each entry once, made by `kind`; `name` is what `--help` calls it."""

    def __init__(self, kind: Callable[[str], Any] = str, name: str = "list") -> None:
        self.kind, self.name = kind, name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Each entry; a usage error for what is no list of these."""
        if isinstance(value, tuple | list):  # from Python
            return tuple(value)
        entries = [entry.strip() for entry in value.split(",")]
        try:
            if not all(entries):
                raise ValueError
            return tuple(dict.fromkeys(self.kind(entry) for entry in entries))
        except ValueError:
            noun = "names" if self.kind is str else "numbers"
            self.fail(f"got '{value}', expected {noun} with commas between them", param, ctx)


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


def escape_output() -> None:
    """Write what the encoding of standard output or error does not have as \\x…, \\u…."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def clock(seconds: float) -> str:
    """As 1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def explain(error: BaseException) -> tuple[str | None, int]:
    """The one line for an error, None if it is a bug of ours, and the exit code."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, click.ClickException):
        return error.format_message(), 2
    if isinstance(error, click.Abort | KeyboardInterrupt):
        said = str(error) or str(error.__cause__ or "")  # click puts its Abort in the place of ours
        return said or "interrupted; what was finished is kept", 130
    if isinstance(error, ModuleNotFoundError) and error.name in _TRAIN_MODULES:
        if error.name == "scipy":
            cure = "pip install scipy"
            return f"scipy: not installed, needed to train and to find what moves; {cure}", 2
        cure = f"pip install {' '.join(_TRAIN_MODULES)}"
        return f"{error.name}: not installed, needed for training and export; {cure}", 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return str(write_error(Path(error.filename or "output"), error)), 2
    return None, 1
