"""Files are whole or absent: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lmk.runtime.errors import UserError, as_text, write_error

_FORMULAS = ("=", "+", "-", "@")  # what spreadsheets run begins with one of them


def cache_folder() -> Path:
    """Where decoded images and built engines are kept: $LMK_CACHE, else the user's cache folder.

    Raises UserError as `user_folder`.
    """
    if given := os.environ.get("LMK_CACHE"):
        return Path(given)
    return user_folder("XDG_CACHE_HOME", ".cache", "LMK_CACHE")


def user_folder(variable: str, name: str, instead: str) -> Path:
    """The folder lmk in $`variable`, else in the folder `name` of the user's home.

    Raises UserError, which says to set the variable `instead`, for a user without a home, as the
    number of a container's user often is.
    """
    if given := os.environ.get(variable):
        return Path(given) / "lmk"
    try:
        return Path.home() / name / "lmk"
    except RuntimeError:
        raise UserError(
            f"home folder: got a user without one and no HOME, expected a place of the user's own; "
            f"set {instead}"
        ) from None


def walk(folder: Path) -> Iterator[Path]:
    """Every regular file below `folder` that is not hidden, in no order; links are followed.

    Each real file and folder comes once: under its own name, if that is below `folder` as well.
    """
    files: set[str] = set()
    folders = {os.path.realpath(folder)}
    todo = [str(folder)]
    links: list[str] = []
    while todo or links:
        if not todo:  # all that lies there itself has been seen
            link = links.pop(0)
            real = os.path.realpath(link)
            if os.path.isdir(link) and real not in folders:
                folders.add(real)
                todo.append(link)
            elif os.path.isfile(link) and real not in files:
                files.add(real)
                yield Path(link)
            continue
        inside = todo.pop()
        real = os.path.realpath(inside)  # once: ten thousand files would take a second
        with contextlib.suppress(OSError), os.scandir(inside) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):  # also the shadows of macOS: ._cat.jpg
                    continue
                if entry.is_symlink():
                    links.append(entry.path)
                elif entry.is_dir():
                    folders.add(os.path.join(real, entry.name))
                    todo.append(entry.path)
                elif entry.is_file():
                    files.add(os.path.join(real, entry.name))
                    yield Path(entry.path)


def printable(name: str) -> str:
    r"""A file's name as text that any program takes, without loss.

    Bytes that are no UTF-8 and control characters become \xNN, a backslash two of them:
    `.encode().decode("unicode_escape")` gives the bytes' numbers back.
    """
    return as_text(name.replace("\\", "\\\\"))


def as_cell(name: str) -> str:
    """A name as a cell of a CSV that no spreadsheet takes for a formula; `of_cell` undoes it."""
    return f"'{name}" if name.lstrip("'").startswith(_FORMULAS) else name


def of_cell(text: str) -> str:
    """The name of which `as_cell` made `text`."""
    return text.removeprefix("'") if text.lstrip("'").startswith(_FORMULAS) else text


def open_regular(path: Path) -> BinaryIO:
    """The bytes of a regular file; OSError for anything else, since to open a pipe is to wait."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return open(descriptor, "rb")


def read_text(path: Path, expected: str) -> str:
    """The text of a UTF-8 file; its lines end as they do there.

    expected: what the file should be, as "a CSV of boxes". Raises UserError if it is missing, no
    regular file, or no such text.
    """
    if not path.is_file():
        got = "something else than a file" if path.exists() else "no such file"
        raise UserError(f"{path}: got {got}, expected {expected}; check the path")
    try:
        with open_regular(path) as file:
            return file.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}), expected {expected}; save it as UTF-8"
        ) from error


def check_output(path: Path, force: bool) -> None:
    """Make the folder of `path`; raise UserError if `path` exists and `force` is off."""
    if path.exists() and not force:
        raise UserError(
            f"{path}: got an output that exists already, expected a new name; "
            "give --force to overwrite it or --output to write elsewhere"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; sync and rename it on success, remove it on failure.

    The temporary name keeps the suffix, which tells some writers (PyAV, PIL) the format.
    Raises UserError when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically; raises UserError as `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
