"""What this machine can run, and the pip line for what it cannot."""

from __future__ import annotations

import os
import platform
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from lmk.runtime.doctor.gpus import (
    DRIVER_CURE,
    BestRunner,
    GpuError,
    best_runner,
    read_gpus,
)
from lmk.runtime.doctor.imports import ABSENT, Trial, try_import
from lmk.runtime.doctor.providers import Provider, provider_cure, try_provider, wanted_by_tensorrt
from lmk.runtime.errors import install_line
from lmk.runtime.outputs import FORMATS
from lmk.runtime.runners import (
    CUDA_CORE,
    ONNXRUNTIME,
    TENSORRT_RTX,
    Gpu,
    Package,
    adds_int8_exactly,
    capability_text,
    cpu_flags,
    parse_capability,
    runner_packages,
)

_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 bf16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
    "bf16": "bf16",
}
_OPENVINO_CURE = install_line("openvino")
_NVIDIA_PROVIDERS = ("CUDA", "Tensorrt", "NvTensorRTRTX")


@dataclass(frozen=True)
class Check:
    """One line of `lmk doctor`."""

    name: str
    state: Literal["ok", "missing", "broken"]
    detail: str  # version and facts, or why it is broken
    cure: str = ""  # what to do; empty if ok


@dataclass(frozen=True)
class Diagnosis:
    """All that `lmk doctor` says."""

    checks: tuple[Check, ...]
    gpus: tuple[Gpu, ...]
    best_runner: BestRunner

    @property
    def best_device(self) -> Literal["cuda", "cpu"]:
        """The fastest device that ONNX Runtime can really use here, not only was built for."""
        loads = any(c.name == "onnxruntime cuda" and c.state == "ok" for c in self.checks)
        return "cuda" if loads else "cpu"


_AV = Package("av", ("av",), fact="'libx264' in module.codecs_available")
_PACKAGES = (
    Package("numpy", ("numpy",)),
    Package("PIL", ("pillow",)),
    _AV,
    *runner_packages(),
    Package(
        "torch",
        ("torch",),
        "train",
        "module.cuda.is_available() and module.cuda.device_count()",
        gpus=True,
    ),
    Package("torchvision", ("torchvision",), "train"),
    Package("onnx", ("onnx",), "train"),
    Package("onnxscript", ("onnxscript",), "train"),
    *(
        Package(module, (module.replace("_", "-"),), name)
        for name, form in FORMATS.items()
        for module in form.packages
    ),
    Package("ray", ("ray",), "ray"),
)


def examine() -> Diagnosis:
    """Look at everything `lmk` can use. Takes some seconds: each package is really imported.

    Every import happens in a Python of its own: torch stays out of this process, and a package
    that aborts the interpreter takes only its own line down.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        running = {each: pool.submit(try_import, each.module, each.fact) for each in _PACKAGES}
        built = running[ONNXRUNTIME].result().fact or ()
        names = [name for name in built if name != "CPUExecutionProvider"]
        providers = dict(zip(names, pool.map(try_provider, names), strict=True))
    found = {each: trial.result() for each, trial in running.items()}
    gpu, gpus = _check_gpus(found[CUDA_CORE])
    checks = [Check("python", "ok", f"{platform.python_version()} at {sys.executable}")]
    folder, installed = Path(__file__).resolve().parents[2], _version("lmk-toolkit")
    toolkit = Check("lmk-toolkit", "missing", f"runs from {folder}", f"pip install -e {folder}")
    if installed:
        toolkit = Check("lmk-toolkit", "ok", f"{installed} at {folder}")
    checks.append(toolkit)
    for package, trial in found.items():
        checks.append(_check_package(package, trial, bool(gpus)))
        if package is ONNXRUNTIME:
            checks += [_check_provider(n, p, bool(gpus)) for n, p in providers.items()]
    checks += [gpu, _check_cpu()]
    loads = {check.name for check in checks if check.state == "ok"}
    cures = {check.name: check.cure for check in checks if check.cure}
    rtx = {parse_capability(name) for name in found[TENSORRT_RTX].fact or ()}
    checks.append(_check_auto())  # when all else has ended: it takes the time
    best = _with_openvino(best_runner(gpus, loads, cures, rtx), "openvino" in loads, cpu_flags())
    return Diagnosis(tuple(checks), gpus, best)


def _with_openvino(best: BestRunner, loads: bool, flags: frozenset[str]) -> BestRunner:
    """On a CPU it is the faster one in what the processor computes in besides fp32."""
    fast = [
        *(["int8"] if adds_int8_exactly(flags) else []),
        *(["bf16"] if any(flag.endswith("bf16") for flag in flags) else []),
    ]
    if best.name != "cpu" or not fast:
        return best
    gain = f"openvino is about twice as fast in {' or '.join(fast)} on this processor"
    return replace(best, why=f"{best.why}; {gain}{'' if loads else f': {_OPENVINO_CURE}'}")


def _check_auto() -> Check:
    """What `--device auto` takes: it is measured, unless it was before."""
    trial = try_import("lmk.runtime.runners", "module.for_shipped()")
    if wrong := trial.error or trial.complaint:
        what, _, cure = wrong.partition("; ")
        return Check("auto", "broken", what, cure or "name another --device")
    return Check("auto", "ok", trial.fact)


def _check_package(package: Package, trial: Trial, has_gpu: bool) -> Check:
    name = package.distributions[0]
    found = _distribution(package)
    if trial.error == ABSENT and found is None:
        cure = install_line(package.extra) if package.extra else f"pip install {name}"
        return Check(name, "missing", "not installed", cure)
    detail = f"{_version(found)}" if found else "of unknown version"
    if found and found != name:
        detail = f"{found} {detail}"
    if trial.error is None:
        return _describe(package, trial, Check(name, "ok", detail), has_gpu)
    reason = f"has no module {package.module}" if trial.error == ABSENT else trial.error
    cure = f"pip install --force-reinstall {found or name}"
    if "libcuda.so.1" in reason:
        cure = DRIVER_CURE
    return Check(name, "broken", f"{detail}: {reason}", cure)


def _describe(package: Package, trial: Trial, check: Check, has_gpu: bool) -> Check:
    """Add what an imported package told of itself; broken where it lacks what we need of it."""
    detail, cure = check.detail, f"pip install --force-reinstall {package.distributions[0]}"
    if package is ONNXRUNTIME:
        return _with_providers(check, trial)
    if package is _AV:
        if trial.fact:
            return replace(check, detail=f"{detail}, with libx264")
        # A build against the system's FFmpeg may lack it; the wheels have it.
        cure = "pip install --force-reinstall --only-binary av av"
        return replace(check, state="broken", detail=f"{detail}: no libx264 encoder", cure=cure)
    if package.gpus:
        count = len(trial.fact) if isinstance(trial.fact, list) else int(trial.fact or 0)
        if count or not has_gpu:
            word = "GPU" if count in (0, 1) else "GPUs"
            return replace(check, detail=f"{detail}, sees {count or 'no'} {word}")
        reason = f" ({trial.complaint})" if trial.complaint else ""
        detail = f"{detail}: sees none of the GPUs{reason}"
        return replace(check, state="broken", detail=detail, cure=cure)
    if package is TENSORRT_RTX and trial.fact:
        names = (capability_text(parse_capability(name)) for name in trial.fact)
        detail += f", builds for compute capability {', '.join(names)}"
    wants = wanted_by_tensorrt(package.module) if package.module.startswith("tensorrt") else ""
    return replace(check, detail=f"{detail}, {wants}" if wants else detail)


def _with_providers(check: Check, trial: Trial) -> Check:
    both = [d for d in ("onnxruntime-gpu", "onnxruntime") if _version(d)]
    if len(both) == 2:  # one folder: the later one has overwritten the other's libraries
        cure = f"pip uninstall -y {' '.join(both)} && pip install {both[0]}"
        return replace(check, state="broken", detail=f"both {' and '.join(both)}", cure=cure)
    names = [provider.removesuffix("ExecutionProvider") for provider in trial.fact or ()]
    return replace(check, detail=f"{check.detail}, built for {', '.join(names)}")


def _check_provider(name: str, provider: Provider, has_gpu: bool) -> Check:
    """Whether ONNX Runtime runs with a provider; broken where there is a GPU that stays idle."""
    short = name.removesuffix("ExecutionProvider")
    check = Check(f"onnxruntime {short.lower()}", "ok", "loads")
    wants = f"wants {', '.join(provider.wants)}" if provider.wants else "loads"
    if provider.error is None:
        return replace(check, detail=wants)
    lacks = f"not found: {', '.join(provider.missing)}" if provider.missing else provider.error
    detail = f"{wants}; {lacks}" if provider.wants else lacks
    if short not in _NVIDIA_PROVIDERS:
        cure = f"pip install --force-reinstall {_distribution(ONNXRUNTIME)}"
        return replace(check, state="broken", detail=detail, cure=cure)
    if not has_gpu:
        return replace(check, state="missing", detail=detail, cure=DRIVER_CURE)
    cure = provider_cure(provider)
    if short == "CUDA":
        return replace(check, state="broken", detail=detail, cure=cure)
    # `lmk` does without: TensorRT is run by a runner of our own, and may well be another version.
    if _version("tensorrt") and cure.startswith("pip install 'tensorrt"):
        cure = f"not needed by lmk; in an environment of its own {cure}"
    return replace(check, state="missing", detail=detail, cure=cure)


def _check_gpus(cuda_core: Trial) -> tuple[Check, tuple[Gpu, ...]]:
    """What nvidia-smi says of each; where there is no nvidia-smi, as in some containers, cuda-core.

    A driver that fails is broken, and has no GPUs.
    """
    try:
        gpus = tuple(read_gpus())
    except GpuError as error:
        if not (error.absent and cuda_core.fact):
            state: Literal["missing", "broken"] = "missing" if error.absent else "broken"
            return Check("nvidia gpu", state, str(error), error.cure), ()
        gpus = tuple(Gpu(name, (major, minor)) for name, major, minor in cuda_core.fact)
    return Check("nvidia gpu", "ok", "; ".join(map(str, gpus))), gpus


def _check_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """Cores we may use, and the instructions that matter for inference and for bf16."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""  # Linux alone has the file
    named = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    model = named[1] if named else platform.processor() or platform.machine()
    flags = cpu_flags(cpuinfo)
    words = [word for flag, word in _INSTRUCTIONS.items() if flag in flags]
    return Check("cpu", "ok", ", ".join([model, f"{count} cores", *words]))


def _distribution(package: Package) -> str | None:
    """The installed one that brings the package."""
    return next((d for d in package.distributions if _version(d)), None)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
