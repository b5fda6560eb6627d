"""A file of JSON -> values, with errors that a user can act on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmk.runtime.errors import UserError

_EDGE = 65536  # bytes looked at from either end


def read_json(path: Path) -> Any:
    """What the file holds, a byte-order mark or not; raises UserError if it is no JSON."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: cannot be read as JSON ({reason}); get it again") from error


def edges(path: Path) -> str:
    """The first and last 64 KiB of the text, to tell a file's kind without reading hundreds of MB.

    "" if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_EDGE)
            file.seek(max(len(head), path.stat().st_size - _EDGE))
            return (head + b"\n" + file.read(_EDGE)).decode("utf-8", "replace")
    except OSError:
        return ""
