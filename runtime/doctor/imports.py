"""Module -> whether it imports, why not, and a fact of it, tried in a Python of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

ABSENT = "absent"
_SECONDS = 120  # torch from a cold network disk
_STATUS = 3  # of a module that is not there; 1 is Python's own for an exception
_MISSING = re.compile(r"([\w.+-]+\.so[\w.]*): cannot open shared object file")
_PROGRAM = f"""
import importlib, json, sys
sys.modules["openvino_telemetry"] = None  # see runners/ov.py
try:
    module = importlib.import_module(sys.argv[1])
except ModuleNotFoundError as error:
    if (sys.argv[1] + ".").startswith(str(error.name) + "."):
        sys.exit({_STATUS})
    raise
try:
    fact, complaint = eval(sys.argv[2]), None
except Exception as error:
    fact, complaint = None, str(error).strip().split("\\n")[0] or type(error).__name__
print("\\n" + json.dumps([fact, complaint]))
"""


@dataclass(frozen=True)
class Trial:
    """How the import of a module went."""

    error: str | None  # None: imported; ABSENT; or why it cannot be, in one line
    fact: Any = None  # of an imported module: the value that was asked for
    complaint: str | None = None  # why there is no such value, in one line


def try_import(module: str, fact: str = "None") -> Trial:
    """Import `module` in a fresh Python with this one's sys.path, there evaluate `fact`.

    `fact` is a Python expression over `module`, its value JSON. A shared library that was not found
    is named wherever in the traceback it stands.
    """
    status, printed, complaints = run_python(_PROGRAM, module, fact)
    if status == 0:
        return Trial(None, *json.loads(printed.splitlines()[-1]))
    return Trial(ABSENT if status == _STATUS else _reason(status, complaints))


def run_python(program: str, *arguments: str) -> tuple[int | None, str, str]:
    """Run `program` in a fresh Python with this one's sys.path.

    Returns its exit status (None: it did not end in time) and what it printed on standard output
    and on standard error.
    """
    command = [sys.executable, "-P", "-c", program, *arguments]  # -P: not from the current folder
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return None, "", ""
    return done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")


def _reason(status: int | None, complaints: str) -> str:
    """One line of a failed import."""
    if status is None:
        return f"import takes more than {_SECONDS} s"
    if status < 0:
        return f"import ends Python with signal {-status}"
    # A traceback ends with the exception. Further lines of its message are advice: left out.
    lines = [line for line in complaints.splitlines() if line.strip()]
    after = max(
        (n for n, line in enumerate(lines) if line.startswith(("  ", "Traceback"))), default=-1
    )
    reason = (lines[after + 1 :] or [f"import ends Python with status {status}"])[0].strip()
    library = _MISSING.search(complaints)
    if library and library[1] not in reason:
        return f"{reason} (library {library[1]} not found)"
    return reason
