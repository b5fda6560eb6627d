"""A runner in a process of its own -> time from its start to the first result, and its memory.

    python -m lmk.benchmarks.runners.process SPEC CROPS.npy

is that process. It imports no more than the runner does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmk.benchmarks.runners.names import Spec, open_runner
from lmk.runtime.errors import UserError

_FIRST = "first result"
_MIB = 1 << 20
Free = Callable[[], int]  # bytes of device memory that nobody uses


def start(spec: Spec, crops: Path, times: int, free: Free | None = None) -> dict[str, Any]:
    """Start the runner of `spec` on the crops of a .npy file, `times` times, one after another.

    Returns `first_s`, seconds from the start of Python to the landmarks of one crop, at the first
    time, and `again_s`, the median of the others, when compilers have it in their caches. Neither
    is cold: this process has read libraries and model before, so that they are in memory. Further
    `rss`, the peak of the process's memory in MiB over runs of every batch (Linux); `device_memory`
    in MiB, where `free` says how much is left, on a GPU that nobody else uses. Raises UserError
    with the words of the process that fails.
    """
    runs = [_start(spec, crops, free) for _ in range(times)]
    seconds = [run.pop("seconds") for run in runs]
    found: dict[str, Any] = {"first_s": seconds[0]}
    if len(seconds) > 1:
        found["again_s"] = round(float(np.median(seconds[1:])), 3)
    return found | runs[-1]


def _start(spec: Spec, crops: Path, free: Free | None) -> dict[str, Any]:
    before = free() if free else 0
    arguments = ["lmk.benchmarks.runners.process", spec.to_json(), str(crops)]
    with tempfile.TemporaryFile() as complaints:
        started = perf_counter()
        process = _python(arguments, stdin=subprocess.PIPE, stderr=complaints)
        assert process.stdin and process.stdout
        try:
            first = process.stdout.readline().strip()
            seconds = perf_counter() - started
            line = process.stdout.readline()
            if first != _FIRST or not line:
                process.wait()
                complaints.seek(0)
                raise _failure(spec, complaints.read().decode(errors="replace"))
            found = {"seconds": round(seconds, 3), **json.loads(line)}
            if free:
                found["device_memory"] = round((before - free()) / _MIB, 1)
        finally:
            process.stdin.close()  # it may end now
            process.stdout.close()
            process.wait()
    return found


def detect(model: Path, crop: NDArray[np.uint8], threads: int, times: int) -> dict[str, float]:
    """Seconds of `lmk detect IMAGE` from the start of Python to its end, as `start` has them."""
    seconds = []
    with tempfile.TemporaryDirectory() as name:
        image = Path(name) / "image.png"
        Image.fromarray(crop).save(image)
        for number in range(times):
            arguments = ["lmk.cli", "detect", str(image), "--model", str(model)]
            arguments += ["--threads", str(threads), "--output", str(Path(name) / str(number))]
            started = perf_counter()
            with tempfile.TemporaryFile() as complaints:
                process = _python(arguments, stderr=complaints)
                process.communicate()
                if process.returncode:
                    complaints.seek(0)
                    text = complaints.read().decode(errors="replace")
                    raise UserError(f"lmk detect: {_last_line(text)}")
            seconds.append(perf_counter() - started)
    found = {"first_s": round(seconds[0], 3)}
    if len(seconds) > 1:
        found["again_s"] = round(float(np.median(seconds[1:])), 3)
    return found


def _python(arguments: Sequence[str], **streams: Any) -> subprocess.Popen[str]:
    """This Python with the module `arguments[0]`; it finds what this process does."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-m", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **streams)


def _failure(spec: Spec, complaints: str) -> UserError:
    return UserError(f"{spec.name}, in a process of its own: {_last_line(complaints)}")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return (lines or ["it ended without a word"])[-1].removeprefix("lmk: ")


def peak_mib() -> float | None:
    """The most memory of this process that ever lay in RAM; None where Linux does not say it.

    Not `getrusage`, whose maximum begins with that of the process that started this one.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    return round(int(found[1]) / 1024, 1) if found else None


def main(text: str, path: str) -> None:
    """Be the process: say when there is a first result, then what memory it all took, and wait."""
    spec, crops = Spec.from_json(text), np.load(path)
    with open_runner(spec) as runner:
        runner(crops[:1])
        print(_FIRST, flush=True)
        for batch in spec.batches:
            runner(crops[:batch])
        print(json.dumps({"rss": peak_mib()}), flush=True)
        sys.stdin.read()  # device memory is read while it is still held


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"lmk: {error}")
