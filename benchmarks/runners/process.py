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
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmk.benchmarks.runners.names import RunnerSpec, open_runner
from lmk.benchmarks.timing import first_and_again, seconds_of
from lmk.runtime.errors import UserError

_FIRST = "first result"
_MIB = 1 << 20
Free = Callable[[], int]  # bytes of device memory that nobody uses


def start(spec: RunnerSpec, crops: Path, times: int, free: Free | None = None) -> dict[str, Any]:
    """Start the runner of `spec` on the crops of a .npy file, `times` times, one after another.

    Returns `first_s`, seconds from the start of Python to the landmarks of one crop, at the first
    time, and `again_s`, the median of the others, when compilers have it in their caches. Neither
    is cold: this process has read libraries and model before, so that they are in memory. Further
    `rss`, the peak of the process's memory in MiB over runs of every batch (Linux); `device_memory`
    in MiB, where `free` says how much is left, on a GPU that nobody else uses. Raises UserError
    with the words of the process that fails.
    """
    runs = [_start(spec, crops, free) for _ in range(times)]
    return first_and_again([run.pop("seconds") for run in runs]) | runs[-1]


def _start(spec: RunnerSpec, crops: Path, free: Free | None) -> dict[str, Any]:
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
                raise _failure(f"{spec.name}, in a process of its own", complaints)
            found = {"seconds": seconds, **json.loads(line)}
            if free:
                found["device_memory"] = round((before - free()) / _MIB, 1)
        finally:
            process.stdin.close()  # it may end now
            process.stdout.close()
            process.wait()
    return found


def detect(model: Path, crop: NDArray[np.uint8], threads: int, times: int) -> dict[str, float]:
    """Seconds of `lmk detect IMAGE` from the start of Python to its end, as `start` has them."""
    with tempfile.TemporaryDirectory() as name:
        image = Path(name) / "image.png"
        Image.fromarray(crop).save(image)
        arguments = ["lmk.cli", "detect", str(image), "--model", str(model)]
        arguments += ["--threads", str(threads), "--output"]

        def run() -> None:
            with tempfile.TemporaryFile() as complaints:
                process = _python([*arguments, tempfile.mkdtemp(dir=name)], stderr=complaints)
                process.communicate()
                if process.returncode:
                    raise _failure("lmk detect", complaints)

        return first_and_again([seconds_of(run) for _ in range(times)])


def _python(arguments: Sequence[str], **streams: Any) -> subprocess.Popen[str]:
    """This Python with the module `arguments[0]`; it finds what this process does."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-m", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **streams)


def _failure(what: str, complaints: IO[bytes]) -> UserError:
    """What a process said last."""
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "it ended without a word")
    return UserError(f"{what}: {last.removeprefix('lmk: ')}")


def peak_mib() -> float | None:
    """The most memory of this process that ever lay in RAM; None where Linux does not say it.

    Not `getrusage`, whose maximum begins with that of the process that started this one.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    return round(int(found[1]) / 1024, 1) if found else None


def main(text: str, path: str) -> None:
    """Be the process: say when there is a first result, then what memory it all took, and wait."""
    spec, crops = RunnerSpec.from_json(text), np.load(path)
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
