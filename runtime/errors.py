"""What went wrong -> the one line that a user is meant to read, with its cure."""

from __future__ import annotations

import errno
from pathlib import Path


class UserError(Exception):
    """Something the user can mend.

    The message is one line: `<what>: got …, expected …; <what to do>`. The command line prints it
    after `lmk: ` without a traceback and exits with 2.
    """


def write_error(path: Path, error: OSError) -> UserError:
    """UserError for a failed write of `path`; says if the disk is full or a file in the way."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"{path}: the disk is full; free some space or write elsewhere "
            "(what was there before is untouched)"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        for place in (path, *path.parents):
            if place.is_file():
                return UserError(f"{place}: is a file, expected a folder; write elsewhere")
    return UserError(
        f"{path}: cannot be written ({error.strerror or error}); check the folder's permissions"
    )


def install_line(extra: str) -> str:
    """The pip line that brings an extra of our pyproject.toml, from where we were installed."""
    folder = Path(__file__).resolve().parents[1]
    if (folder / "pyproject.toml").is_file():  # a checkout: its extras may be newer than pip knows
        return f"pip install -e '{folder}[{extra}]'"
    return f"pip install 'lmk-toolkit[{extra}]'"
