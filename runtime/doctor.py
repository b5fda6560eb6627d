"""What this machine can run, and the pip line for what it cannot."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from lmk.runtime.errors import UserError
from lmk.runtime.ort import PROVIDERS, open_session
from lmk.runtime.probe import ABSENT, import_error

_SMI_SECONDS = 20  # a sleeping driver wakes in a few; a hung one never answers
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 bf16",
    "amx_bf16": "AMX bf16",
    "bf16": "bf16",
}
# An ONNX file of one Identity node on a float: small enough to stand here, so that trying a
# provider needs neither the onnx package nor a model of the user's.
_IDENTITY = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"B\x04\n\x00\x10\r"
)


@dataclass(frozen=True)
class Check:
    """One line of `lmk doctor`."""

    name: str
    state: Literal["ok", "missing", "broken"]
    detail: str  # version and facts, or why it is broken
    cure: str = ""  # what to do; empty if ok


@dataclass(frozen=True)
class _Package:
    module: str
    distributions: tuple[str, ...]  # any of them brings the module; the first is the usual one


_PACKAGES = (
    _Package("numpy", ("numpy",)),
    _Package("onnxruntime", ("onnxruntime", "onnxruntime-gpu")),
    _Package("av", ("av",)),
    _Package("PIL", ("pillow",)),
    _Package("torch", ("torch",)),
    _Package("torchvision", ("torchvision",)),
    _Package("onnx", ("onnx",)),
    _Package("onnxscript", ("onnxscript",)),
    _Package("tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")),
    _Package("tensorrt_rtx", ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12")),
    _Package("cuda.core", ("cuda-core",)),
    _Package("pycuda.driver", ("pycuda",)),
    _Package("pyarrow", ("pyarrow",)),
)


def examine() -> list[Check]:
    """Look at everything `lmk` can use. Takes some seconds: each package is really imported.

    Every import happens in a Python of its own: torch stays out of this process, and a package
    that aborts the interpreter takes only its own line down.
    """
    python = Check("python", "ok", f"{platform.python_version()} at {sys.executable}")
    gpu = _check_gpus()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        packages = {check.name: check for check in pool.map(_check_package, _PACKAGES)}
    if packages["onnxruntime"].state == "ok":
        packages["onnxruntime"] = _with_providers(packages["onnxruntime"], gpu)
    if packages["av"].state == "ok":
        packages["av"] = _with_encoder(packages["av"])
    return [python, _check_toolkit(), *packages.values(), gpu, _check_cpu()]


def best_device() -> Literal["cuda", "cpu"]:
    """The fastest device that ONNX Runtime can really use here, not only was built for."""
    return "cpu" if _cuda_error() else "cuda"


def _check_toolkit() -> Check:
    folder = Path(__file__).resolve().parents[1]
    installed = _version("lmk-toolkit")
    if installed is None:
        return Check("lmk-toolkit", "missing", f"runs from {folder}", f"pip install -e {folder}")
    return Check("lmk-toolkit", "ok", f"{installed} at {folder}")


def _check_package(package: _Package) -> Check:
    name = package.distributions[0]
    found = next((d for d in package.distributions if _version(d)), None)
    error = import_error(package.module)
    if error == ABSENT and found is None:
        return Check(name, "missing", "not installed", f"pip install {name}")
    detail = f"{_version(found)}" if found else "of unknown version"
    if found and found != name:
        detail = f"{found} {detail}"
    if error is None:
        return Check(name, "ok", detail)
    reason = f"has no module {package.module}" if error == ABSENT else error
    cure = f"pip install --force-reinstall {found or name}"
    return Check(name, "broken", f"{detail}: {reason}", cure)


def _with_providers(check: Check, gpu: Check) -> Check:
    """Add which devices load; broken where there is a GPU that stays idle."""
    both = [d for d in ("onnxruntime-gpu", "onnxruntime") if _version(d)]
    if len(both) == 2:  # one folder: the later one has overwritten the other's libraries
        cure = f"pip uninstall -y {' '.join(both)} && pip install {both[0]}"
        return replace(check, state="broken", detail=f"both {' and '.join(both)}", cure=cure)
    import onnxruntime  # 0.2 s: not when `lmk` is imported

    providers = [p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers()]
    detail = f"{check.detail}, built for {', '.join(providers)}"
    error = _cuda_error()
    if error is None:
        return replace(check, detail=f"{detail}; runs on cuda and cpu")
    if gpu.state != "ok":
        return replace(check, detail=f"{detail}; runs on cpu")
    cure = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    return replace(check, state="broken", detail=f"{detail}; only on cpu: {error}", cure=cure)


def _cuda_error() -> str | None:
    """What stops ONNX Runtime from opening a graph on a CUDA device; None if nothing does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "identity.onnx"
        path.write_bytes(_IDENTITY)
        try:
            open_session(path, PROVIDERS["cuda"], threads=1)
        except UserError as error:
            return str(error)
    return None


def _with_encoder(check: Check) -> Check:
    import av

    if "libx264" in av.codecs_available:
        return replace(check, detail=f"{check.detail}, with libx264")
    # A build against the system's FFmpeg may lack it; the wheels have it.
    cure = "pip install --force-reinstall --only-binary av av"
    return replace(check, state="broken", detail=f"{check.detail}: no libx264 encoder", cure=cure)


def _check_gpus() -> Check:
    """Name, memory and driver version of each."""
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        command = ["nvidia-smi", *query]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_SECONDS)
    except FileNotFoundError:
        cure = "for an NVIDIA GPU install its driver; the cpu device needs none"
        return Check("nvidia gpu", "missing", "no nvidia-smi", cure)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("nvidia gpu", "broken", f"nvidia-smi: {error}", "reinstall the driver")
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode != 0 or not lines:
        reason = f"{' '.join(lines)} (nvidia-smi: status {done.returncode})"
        return Check("nvidia gpu", "broken", reason, "reinstall the driver, or restart")
    return Check("nvidia gpu", "ok", "; ".join(lines))


def _check_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """Cores we may use, and the instructions that matter for inference and for bf16."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""  # Linux alone has the file
    facts = dict(re.findall(r"^(model name|flags|Features)\s*: (.*)$", text, re.MULTILINE))
    flags = f"{facts.get('flags')} {facts.get('Features')}".split()  # x86's word, ARM's word
    model = facts.get("model name") or platform.processor() or platform.machine()
    words = [word for flag, word in _INSTRUCTIONS.items() if flag in flags]
    return Check("cpu", "ok", ", ".join([model, f"{count} cores", *words]))


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
