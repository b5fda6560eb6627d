"""The GPUs of this machine, and what runs a model fastest on them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lmk.runtime.runners import Gpu, capability_text, parse_capability

_SMI_SECONDS = 20  # a sleeping driver wakes in a few; a hung one never answers
_FIELDS = ("name", "compute_cap", "memory.total", "driver_version")
_TENSORRT_FROM = (7, 5)  # Turing: the oldest that TensorRT 10.13 and 11 build for
DRIVER_CURE = "for an NVIDIA GPU install its driver; the cpu device needs none"


@dataclass(frozen=True)
class BestRunner:
    """What to run models with here."""

    name: Literal["trt", "rtx", "cuda", "cpu"]
    why: str

    @property
    def how(self) -> str:
        """What it is called, and the command that uses it."""
        return {
            "trt": "TensorRT (`lmk export --engine trt`)",
            "rtx": "TensorRT for RTX (`lmk export --engine rtx`)",
            "cuda": "ONNX Runtime on the GPU (`lmk detect --device cuda`)",
            "cpu": "the processor (`lmk detect` takes auto)",
        }[self.name]


class GpuError(Exception):
    """nvidia-smi did not tell the GPUs: the message says why, `cure` what to do."""

    def __init__(self, reason: str, cure: str, absent: bool = False) -> None:
        super().__init__(reason)
        self.cure = cure
        self.absent = absent  # no driver at all, rather than one that fails


def read_gpus() -> list[Gpu]:
    """The GPUs that the driver's nvidia-smi lists, one or more; raises GpuError."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):  # of all libraries nvidia-smi alone would show them
        reason = f"hidden by CUDA_VISIBLE_DEVICES='{visible}'"
        raise GpuError(reason, "unset CUDA_VISIBLE_DEVICES", absent=True)
    program = shutil.which("nvidia-smi")  # passes over folders that may not be read
    if program is None:
        raise GpuError("no nvidia-smi", DRIVER_CURE, absent=True)
    command = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GpuError(f"nvidia-smi: {error}", "reinstall the driver") from None
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode != 0 or not lines:
        reason = f"{' '.join(lines)} (nvidia-smi: status {done.returncode})"
        raise GpuError(reason, "reinstall or update the driver, or restart")
    try:
        rows = [line.rsplit(", ", 3) for line in lines]
        return [  # where GPU and host share their memory nvidia-smi says [N/A]
            Gpu(name, parse_capability(text), int(mib) if mib.isdecimal() else None, driver)
            for name, text, mib, driver in rows
        ]
    except ValueError:
        reason = f"nvidia-smi: got '{'; '.join(lines)}', expected {', '.join(_FIELDS)}"
        raise GpuError(reason, "update the driver") from None


def best_runner(
    gpus: Sequence[Gpu], loads: Container[str], cures: Mapping[str, str], rtx: Container[object]
) -> BestRunner:
    """The fastest runner that works here, and why not a faster one.

    loads: the names of the checks that are well ("tensorrt", "tensorrt-rtx", "cuda-core", "pycuda",
    "onnxruntime cuda"); cures: what to do about the others; rtx: compute capabilities that
    TensorRT for RTX builds for. The fastest GPU is taken for the one of the highest capability.
    """
    if not gpus:
        return BestRunner("cpu", "no NVIDIA GPU")
    gpu = max(gpus, key=lambda each: each.capability)
    here = f"{gpu.name} of compute capability {capability_text(gpu.capability)}"
    memory = next((name for name in ("cuda-core", "pycuda") if name in loads), None)
    if gpu.capability >= _TENSORRT_FROM and memory:
        if "tensorrt" in loads:
            return BestRunner("trt", f"{here}; tensorrt and {memory} load")
        if "tensorrt-rtx" in loads and gpu.capability in rtx:
            return BestRunner("rtx", f"{here}; tensorrt-rtx and {memory} load, tensorrt does not")
    if gpu.capability < _TENSORRT_FROM:
        faster = f"TensorRT needs {capability_text(_TENSORRT_FROM)} or more"
    else:
        needed = "tensorrt" if "tensorrt" not in loads else "cuda-core"
        faster = f"TensorRT is faster: {cures.get(needed, f'needs {needed}')}"
    if "onnxruntime cuda" in loads:
        return BestRunner("cuda", f"{here}; {faster}")
    return BestRunner("cpu", f"{here} stays idle: {cures.get('onnxruntime cuda', faster)}")
