"""What went wrong -> the one line that a user is meant to read, with its cure."""

from __future__ import annotations

import errno
import re
import unicodedata
from pathlib import Path

# An address: in quotes up to their end, else up to a space. pathlib makes one slash of two.
_ADDRESS = re.compile(
    r"""(?<=["'])[a-z][a-z0-9+.-]+:/[^"']* | [a-z][a-z0-9+.-]+:/[^\s"']*""",
    re.IGNORECASE | re.VERBOSE,
)


def as_text(name: str) -> str:
    """What may hold a file's name as text that a terminal, a file or a log takes.

    Bytes that are no UTF-8, and what steers a terminal or turns lines around, become escapes.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in _TURNING
        else c
        for c in text
    )


_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class UserError(Exception):
    """Something the user can mend.

    The message is one line: `<what>: got …, expected …; <what to do>`. The command line prints it
    after `lmk: ` without a traceback and exits with 2. Passwords of addresses in it are hidden.
    """

    def __init__(self, message: str) -> None:
        lines = without_passwords(message).split("\n")
        super().__init__("\n".join(map(as_text, lines)))


def without_passwords(text: str, whole: bool = False) -> str:
    """`text` with all addresses in it as they may be told: no user, password, query or fragment.

    For whatever names a source, to the user, in a log or as a file. A password may hold `/`, `#`,
    `?` and `@`, and spaces if the address is in quotes, or is `whole` the text.
    """
    if whole and _ADDRESS.match(text):
        return _told(text)
    return _ADDRESS.sub(lambda found: _told(found[0]), text)


def _told(address: str) -> str:
    scheme, slashes, rest = re.split("(:/{1,2})", address, maxsplit=1)
    if len(slashes) == 2 and "@" not in rest:
        return address  # no address, as it seems
    # Up to the first of / ? and # stands the host, or a user and the beginning of a password. What
    # could be either counts as the latter: better a host too few than a password too many.
    first = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in first or ":" in first:
        rest = rest.rpartition("@")[2]
    return scheme + slashes + re.split("[?#]", rest, maxsplit=1)[0]


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
