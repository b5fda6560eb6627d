"""All runners, an entry each: what opens one, what it needs, and how a user says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmk.runtime.model import PRECISIONS, Precision
from lmk.runtime.runners.ort import OrtRunner
from lmk.runtime.runners.ov import BUCKETS, OpenVinoRunner
from lmk.runtime.runners.runner import Runner
from lmk.runtime.runners.trt import TrtRunner

# Model file, CPU threads (None: one a core), batch sizes to prepare for (none: those of its own).
Opener = Callable[[Path, int | None, tuple[int, ...]], Runner]


@dataclass(frozen=True)
class Package:
    """What `lmk doctor` imports to see whether it is well."""

    module: str
    distributions: tuple[str, ...]  # any of them brings the module; the first is the usual one
    extra: str = ""  # of our pyproject.toml; none: it is installed by its own name
    fact: str = "None"  # Python over `module` that tells something about it
    gpus: bool = False  # the fact is the GPUs it sees, or how many


@dataclass(frozen=True)
class RunnerEntry:
    """A runner, as everything outside its own module knows it."""

    name: str  # of `lmk bench --against`
    title: str  # in the tables of the benchmark
    open: Opener
    packages: tuple[Package, ...]
    device: str  # of `lmk detect --device`; for files of one suffix each entry has its own
    says: tuple[str, ...]  # stands in the name of a runner that has not fallen back
    said: tuple[Precision, ...] = ()  # precisions that stand there too, if it computes in them
    precisions: tuple[Precision, ...] = PRECISIONS
    suffix: Literal[".onnx", ".engine"] = ".onnx"  # of the files that it runs
    place: Literal["cpu", "cuda"] = "cpu"  # where it computes


ONNXRUNTIME = Package(
    "onnxruntime", ("onnxruntime", "onnxruntime-gpu"), fact="module.get_available_providers()"
)
CUDA_CORE = Package(
    "cuda.core",
    ("cuda-core",),
    fact="[[gpu.name, *gpu.compute_capability] for gpu in module.Device.get_all_devices()]",
    gpus=True,
)
TENSORRT_RTX = Package(
    "tensorrt_rtx",
    ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
    "rtx",
    "[name for name in module.ComputeCapability.__members__ if name.startswith('SM')]",
)
_TENSORRT = Package("tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"), "trt")
_PYCUDA = Package(
    "pycuda.driver", ("pycuda",), "pycuda", "(module.init(), module.Device.count())[1]", gpus=True
)
_OPENVINO = Package("openvino", ("openvino",), "openvino")

# The first one of a suffix is taken where no device is named.
RUNNERS = [
    RunnerEntry(
        "ort-cpu",
        "ONNX Runtime",
        lambda path, threads, batches: OrtRunner(path, "cpu", threads),
        (ONNXRUNTIME,),
        "cpu",
        ("onnxruntime", "CPUExecutionProvider"),
        precisions=("fp32", "fp16", "int8", "fp8"),  # it has no operators of bf16 there
    ),
    RunnerEntry(
        "ort-cuda",
        "ONNX Runtime, CUDA",
        lambda path, threads, batches: OrtRunner(path, "cuda", threads, batches),
        (ONNXRUNTIME, CUDA_CORE),
        "cuda",
        ("onnxruntime", "CUDAExecutionProvider"),
        place="cuda",
    ),
    RunnerEntry(
        "trt",
        "TensorRT",
        lambda path, threads, batches: TrtRunner(path),
        (_TENSORRT, CUDA_CORE, _PYCUDA),
        "cuda",
        ("TensorRT 1",),  # its version, 10 or newer
        suffix=".engine",
        place="cuda",
    ),
    RunnerEntry(
        "rtx",
        "TensorRT for RTX",
        lambda path, threads, batches: TrtRunner(path),
        (TENSORRT_RTX, CUDA_CORE, _PYCUDA),
        "cuda",
        ("TensorRT for RTX",),
        suffix=".engine",
        place="cuda",
    ),
    RunnerEntry(
        "openvino",
        "OpenVINO",
        lambda path, threads, batches: OpenVinoRunner(path, threads, batches or BUCKETS),
        (_OPENVINO,),
        "openvino",
        ("OpenVINO", "CPU"),
        said=("bf16", "int8"),
        precisions=("fp32", "fp16", "bf16", "int8"),
    ),
]


def device_words() -> tuple[str, ...]:
    """What `--device` takes."""
    return tuple(dict.fromkeys(entry.device for entry in RUNNERS))


def runner_packages() -> tuple[Package, ...]:
    """What the runners need, each package once."""
    return tuple(dict.fromkeys(package for entry in RUNNERS for package in entry.packages))
