"""Files are whole or absent: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from lmk.runtime.errors import UserError, write_error


def cache_folder() -> Path:
    """Where decoded images and built engines are kept: $LMK_CACHE, else the user's cache folder."""
    if "LMK_CACHE" in os.environ:
        return Path(os.environ["LMK_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lmk"


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
