"""What figures were measured on, and how they are summed up."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmk.train.network import versions

_BUSY = 0.35  # processes a core that ran before ours

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


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def busy_warnings(machine: Mapping[str, Any]) -> list[str]:
    """Threads that wait for one another stall when others have the cores: no ratio holds then."""
    load, cores = machine["load"], machine["cores"] or 1
    if load < _BUSY * cores:
        return []
    return [
        f"warning: the machine was busy (load {load:g} on {cores} cores before the benchmark): "
        "neither times nor ratios are those of a quiet one; measure again"
    ]
