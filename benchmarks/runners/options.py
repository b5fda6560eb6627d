"""What to measure, and how long; checked before anything heavy is imported."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from lmk.benchmarks.runners.names import parse_name
from lmk.runtime.errors import UserError, write_error


@dataclass(frozen=True)
class Options:
    """Raises UserError for what cannot be measured."""

    against: tuple[str, ...] = ()  # names of runners; none: all that this machine has
    batches: tuple[int, ...] = (1, 8, 32)
    data: str | None = None  # images; None: synthetic ones
    repeats: int = 200  # calls of each runner at each batch
    seconds: float = 60.0  # for a batch: beyond it fewer calls are made, but 20 in any case
    threads: int | None = None  # of every runner; None: one a core
    device: str = "auto"  # where PyTorch runs, which also decides what is measured by default
    core: Path | None = None  # of the pack, if it is not beside it
    starts: int = 3  # processes a runner: the first is cold

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("seconds", 0), ("starts", 1), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name}: got {value}, expected {least} or more; give another one")
        if not self.batches or min(self.batches) < 1:
            raise UserError(f"batch: got {self.batches}, expected numbers from 1 on; give others")
        for name in self.against:
            parse_name(name)


def check_file(path: Path) -> None:
    """Raise UserError where a file cannot be written later; makes no folder before there is one."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected the name of a file; add one")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise write_error(there, NotADirectoryError(errno.ENOTDIR, "Not a directory"))
    if not os.access(there, os.W_OK):
        raise write_error(path, PermissionError(errno.EACCES, "Permission denied"))
