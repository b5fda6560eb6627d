"""A place of results -> its only owner for now, and what it was made of: the same when resumed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from lmk.runtime.errors import UserError, write_error

RECORD = ".lmk.json"  # in a folder of results: what they were made of
VIDEO, PICTURES = "overlay.mp4", "overlay"  # in such a folder: the overlay of a video, of images


def beside(place: Path, ending: str) -> Path:
    """The hidden companion of a file or folder of results: `.NAME.ending` beside it; absolute."""
    place = Path(os.path.abspath(place))  # `.` and `..` have no name
    return place.parent / f".{place.name}.{ending}"


def journal_of(folder: Path) -> Path:
    """Where a run that writes results into `folder` remembers how far it is."""
    return beside(folder, "partial")


class Owned:
    """The place `path`, a file or folder of results, for this object alone until `close`.

    A hidden file beside it, `.NAME.lock`, says who has it; the lock goes with the process, whatever
    ends it. What a run that was killed left unfinished there is removed. Also a context manager.
    Raises UserError, which names the owner, when another run, in this process or another, on this
    machine or one that shares the folder, has the place and keeps it for `wait_s`.
    """

    def __init__(self, path: Path, wait_s: float = 0.0) -> None:
        path = Path(os.path.abspath(path))
        self._file = beside(path, "lock")
        self._made = [folder for folder in path.parents if not folder.exists()]
        self._lock = FileLock(self._file, timeout=wait_s, thread_local=False)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise UserError(
                f"{path}: is being written by {_told(self._file)}, expected a place that nobody "
                "writes to; wait for it, stop it, or give another --output"
            ) from None
        except OSError as error:
            raise write_error(path, error) from error
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        with contextlib.suppress(OSError):  # it is ours, whether or not that can be read
            self._file.write_text(json.dumps(owner))
        _sweep(path)

    def close(self) -> None:
        """Let others have it; harmless twice."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # while it is ours: nobody can be waiting in it
                self._file.unlink()
            self._lock.release()
            for folder in self._made:
                with contextlib.suppress(OSError):  # it holds something
                    folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _sweep(place: Path) -> None:
    """Remove the unfinished files, see `atomic_path`, that only a run that was killed has left."""
    stem, suffix = re.escape(place.stem), re.escape(place.suffix)
    folders = {
        place.parent: rf"{stem}\.[0-9a-f]{{8}}({suffix}|\.html)",
        place: r"(landmarks|overlay)\b.*\.[0-9a-f]{8}(\.\w+)?",
    }
    if place.suffix == ".safetensors":  # the folder of its training
        folders[place.parent / place.stem] = r".+\.[0-9a-f]{8}\.\w+"
    for folder, pattern in folders.items():
        for path in folder.glob(".*") if folder.is_dir() else ():
            if re.fullmatch(rf"\.{pattern}", path.name):
                with contextlib.suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _told(file: Path) -> str:
    """The owner, as it has written into its lock."""
    try:
        owner = json.loads(file.read_text())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"


def listing(files: Iterable[Path], root: Path | None = None) -> dict[str, list[int]]:
    """The size in bytes and time of change in ns of each file, by its path, relative to `root`.

    One that cannot be looked at, as a broken link, has none: [].
    """
    found = {}
    for file in files:
        name = os.path.relpath(file, root) if root else str(file)
        try:
            status = file.stat()
            found[name] = [status.st_size, status.st_mtime_ns]
        except OSError:
            found[name] = []
    return found


def check_same(place: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UserError that names what differs between two identities (JSON values) of results.

    place: of the results, for the message. was: what they were made of so far. now: what is asked
    for. Listings, which are mappings themselves, are compared file by file.
    """
    for name in sorted({*was, *now}):
        before, after = was.get(name), now.get(name)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            different = sorted(
                each for each in {*before, *after} if before.get(each) != after.get(each)
            )
            what = (
                "was not there before"
                if different[0] not in before
                else "is gone"
                if different[0] not in after
                else "was changed"
            )
            more = f" (one of {len(different)} that differ)" if len(different) > 1 else ""
            difference = f"{name}: {different[0]} {what}{more}, expected them as they were"
        else:
            difference = f"{name}: got {after}, expected {before} as in the run before"
        raise UserError(
            f"{place}: {difference}; resume with the same source, model and options, or start anew "
            "with --force"
        )
