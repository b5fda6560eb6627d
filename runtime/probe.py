"""Whether a module can be imported, tried in a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys

ABSENT = "absent"
_SECONDS = 120  # torch from a cold network disk
_STATUS = 3  # of a module that is not there; 1 is Python's own for an exception
_PROGRAM = f"""
import importlib, sys
try:
    importlib.import_module(sys.argv[1])
except ModuleNotFoundError as error:
    if (sys.argv[1] + ".").startswith(str(error.name) + "."):
        sys.exit({_STATUS})
    raise
"""


def import_error(module: str) -> str | None:
    """Why a fresh Python with this one's sys.path cannot import `module`, in one line.

    None if it can, ABSENT if there is no such module.
    """
    command = [sys.executable, "-P", "-c", _PROGRAM, module]  # -P: not from the current folder
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"import takes more than {_SECONDS} s"
    if done.returncode == 0:
        return None
    if done.returncode == _STATUS:
        return ABSENT
    if done.returncode < 0:
        return f"import ends Python with signal {-done.returncode}"
    # A traceback ends with the exception. Further lines of its message are advice: left out.
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    after = max(
        (n for n, line in enumerate(lines) if line.startswith(("  ", "Traceback"))), default=-1
    )
    return (lines[after + 1 :] or [f"import ends Python with status {done.returncode}"])[0]
