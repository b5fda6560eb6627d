"""Name of a runner (`ort-cpu`, `trt-fp16`) -> the runner, on exactly what its name says.

Imports no engine before one is opened: what a runner's own process loads is part of what is
measured.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from lmk.runtime.errors import UserError
from lmk.runtime.model import PRECISIONS
from lmk.runtime.runners import Runner

_PYTORCH = ("fp32", "tf32", "fp16", "bf16")
_ORT_CPU = ("fp32", "fp16", "int8", "fp8")  # it has no operators of bf16 there
_OPENVINO = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class _Kind:
    """One way to run a detector."""

    device: str
    precisions: tuple[str, ...]
    says: tuple[str, ...]  # stands in the name of a runner that has not fallen back


# The device of PyTorch is that of the benchmark.
_KINDS = {
    "eager": _Kind("any", _PYTORCH, ("PyTorch eager",)),
    "compile": _Kind("any", _PYTORCH, ("PyTorch compiled",)),
    "ort-cpu": _Kind("cpu", _ORT_CPU, ("onnxruntime", "CPUExecutionProvider")),
    "ort-cuda": _Kind("cuda", PRECISIONS, ("onnxruntime", "CUDAExecutionProvider")),
    "trt": _Kind("cuda", PRECISIONS, ("TensorRT 1",)),  # its version, 10 or newer
    "rtx": _Kind("cuda", PRECISIONS, ("TensorRT for RTX",)),
    "openvino": _Kind("cpu", _OPENVINO, ("OpenVINO", "CPU")),
}
KINDS = tuple(_KINDS)
# The baselines that are fair: also what PyTorch does best, with one option more.
_DEFAULTS = {
    "cpu": ("eager", "eager-bf16", "compile", "ort-cpu", "openvino"),
    "cuda": ("eager", "eager-tf32", "eager-bf16", "eager-fp16", "compile", "compile-fp16")
    + ("ort-cuda", "ort-cuda-fp16", "trt", "trt-fp16", "rtx", "rtx-fp16"),
}


@dataclass(frozen=True)
class RunnerSpec:
    """All that a runner is opened from; as JSON it travels to another process."""

    name: str
    kind: str
    precision: str  # what it computes in
    device: str
    threads: int
    batches: tuple[int, ...]
    file: str  # the model; of PyTorch the pack
    core: str | None = None

    def to_json(self) -> str:
        """The spec as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` has written."""
        values = json.loads(text)
        return cls(**values | {"batches": tuple(values["batches"])})


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and how long; raises UserError for what cannot be measured."""

    against: tuple[str, ...] = ()  # names of runners; none: all that this machine has
    batches: tuple[int, ...] = (1, 8, 32)
    data: str | None = None  # images; None: synthetic ones
    repeats: int = 200  # calls of each runner at each batch
    seconds: float = 60.0  # for a batch: beyond it fewer calls are made, but 20 in any case
    threads: int | None = None  # of every runner; None: one a core
    device: str = "auto"  # where PyTorch runs, which also decides what is measured by default
    core: Path | None = None  # of the pack, if it is not beside it
    starts: int = 3  # processes a runner: the first is cold

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("seconds", 0), ("starts", 1), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name}: got {value}, expected {least} or more; give another one")
        if not self.batches or min(self.batches) < 1:
            raise UserError(f"batch: got {self.batches}, expected numbers from 1 on; give others")
        for name in self.against:
            parse_name(name)


def defaults(device: str, real: bool) -> tuple[str, ...]:
    """The runners of a benchmark on `device` for which none is named.

    real: whether it has images of the category, which the scales of int8 are set by.
    """
    names = _DEFAULTS[device]
    if device == "cpu" and real and importlib.util.find_spec("openvino"):
        names += ("openvino-bf16", "openvino-int8")
    return names


def parse_name(name: str) -> tuple[str, str | None]:
    """`ort-cuda-fp16` -> kind and precision; None: that of the model. Raises UserError."""
    for kind, known in _KINDS.items():
        precision = name.removeprefix(f"{kind}-")
        if name == kind:
            return kind, None
        if precision != name and precision in known.precisions:
            return kind, precision
        if precision != name and precision in (*_PYTORCH, *PRECISIONS):
            raise UserError(
                f"against: got '{name}', expected {kind} in {', '.join(known.precisions)}: it "
                f"never runs in {precision}; leave it out"
            )
    near = difflib.get_close_matches(name.lower().replace("_", "-"), KINDS, 1)
    raise UserError(
        f"against: got '{name}', expected any of {', '.join(KINDS)}, each with -PRECISION or "
        f"without: {', '.join(_PYTORCH)} of PyTorch, {', '.join(PRECISIONS)} of the others"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def check_device(names: tuple[str, ...], device: str) -> None:
    """Raise UserError for a runner that is not itself in a benchmark on `device`."""
    for name in names:
        kind, precision = parse_name(name)
        if precision == "tf32" and device == "cpu":
            raise UserError(
                f"{name}: got the CPU, expected CUDA, which alone has TF32; leave it out: on the "
                f"CPU it is {kind}"
            )


def device_of(kind: str, device: str) -> str:
    """Where a runner of `kind` runs, in a benchmark on `device`."""
    own = _KINDS[kind].device
    return device if own == "any" else own


def is_pytorch(kind: str) -> bool:
    """Whether it runs the pack itself, not an exported model."""
    return _KINDS[kind].device == "any"


def open_runner(spec: RunnerSpec) -> Runner:
    """The runner of `spec`; the caller closes it.

    Raises UserError when it does not run here, and when it says that it runs elsewhere than its
    name promises.
    """
    runner = _open(spec)
    try:
        refuse_fallback(spec, runner)
    except UserError:
        runner.close()
        raise
    return runner


def refuse_fallback(spec: RunnerSpec, runner: Runner) -> None:
    """Raise UserError unless the engine and device that `runner` names are those of `spec`."""
    expected = _KINDS[spec.kind].says
    if is_pytorch(spec.kind):
        expected += (f" {spec.device}",)
    if not all(word in runner.name for word in expected):
        raise UserError(
            f"{spec.name}: got a runner on '{runner.name}', expected '{' '.join(expected)}'; it "
            "fell back and is not measured: see `lmk doctor`"
        )


def _open(spec: RunnerSpec) -> Runner:
    path = Path(spec.file)
    if is_pytorch(spec.kind):
        from lmk.benchmarks.runners.torch_runner import TorchRunner

        core = Path(spec.core) if spec.core else None
        compiled = spec.kind == "compile"
        return TorchRunner(path, core, spec.device, spec.precision, spec.threads, compiled)
    return _ENGINES[spec.kind](path, spec)


def _open_ort(path: Path, spec: RunnerSpec) -> Runner:
    from lmk.runtime.runners import OrtRunner

    buckets = spec.batches if spec.device == "cuda" else ()
    return OrtRunner(path, spec.device, spec.threads, buckets)


def _open_trt(path: Path, spec: RunnerSpec) -> Runner:
    from lmk.runtime.runners import TrtRunner

    return TrtRunner(path)


def _open_openvino(path: Path, spec: RunnerSpec) -> Runner:
    from lmk.runtime.runners import OpenVinoRunner

    return OpenVinoRunner(path, spec.threads, spec.batches)


_ENGINES: dict[str, Callable[[Path, RunnerSpec], Any]] = {
    "ort-cpu": _open_ort,
    "ort-cuda": _open_ort,
    "trt": _open_trt,
    "rtx": _open_trt,
    "openvino": _open_openvino,
}
