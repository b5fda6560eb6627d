"""What figures were measured on, and how they are summed up."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from lmk.train.checkpoint import versions

_LIBRARIES = ("torch", "onnx", "onnxruntime-gpu", "onnxruntime", "av", "numpy")


def machine(*packages: str) -> dict[str, object]:
    """Processor or GPU, cores, versions, also of `packages`, and the commit of this checkout."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": versions(*_LIBRARIES, *packages),
        "commit": _commit(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    """The commit, with `+` behind it when files differ; None outside a checkout."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, check=True
        )
        dirty = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.decode().strip() + ("+" if dirty else "")


def interleaved(
    runners: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 3
) -> dict[str, list[float]]:
    """Seconds of each of `repeats` calls of every runner, taking turns: drift hits all alike."""
    for _ in range(warmup):
        for call in runners.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(repeats):
        for name, call in runners.items():
            started = perf_counter()
            call()
            seconds[name].append(perf_counter() - started)
    return seconds


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    return {
        "p50_ms": round(float(np.median(seconds)) * 1e3, 3),
        "p99_ms": round(float(np.percentile(seconds, 99)) * 1e3, 3),
    }
