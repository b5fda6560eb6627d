"""Name of a runner (`ort-cpu`, `trt-fp16`) -> the runner, on exactly what its name says.

Imports no engine before one is opened: what a runner's own process loads is part of what is
measured.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from lmk.runtime.errors import UserError
from lmk.runtime.model import PRECISIONS
from lmk.runtime.runners import AUTO, RUNNERS, Runner

_PYTORCH = {"eager": "PyTorch", "compile": "PyTorch, compiled"}  # kind -> what tables call it
_PYTORCH_IN = ("fp32", "tf32", "fp16", "bf16")
_ENTRIES = {entry.name: entry for entry in RUNNERS}
TITLES = _PYTORCH | {name: entry.title for name, entry in _ENTRIES.items()}
STUDENT = "student-"  # before the name of a runner: it runs the student, beside its teacher
# The baselines that are fair: also what PyTorch does best, with one option more.
_BASELINES = {
    "cpu": ("eager", "eager-bf16", "compile"),
    "cuda": ("eager", "eager-tf32", "eager-bf16", "eager-fp16", "compile", "compile-fp16"),
}


@dataclass(frozen=True)
class RunnerSpec:
    """All that a runner is opened from; as JSON it travels to another process."""

    name: str
    kind: str  # of what `AUTO` stands for, that
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
    student: Path | None = None  # a pack that was distilled from it, measured beside it
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
            if name.startswith(STUDENT) and self.student is None:
                raise UserError(f"against: got '{name}' without a student; name it by --student")


def defaults(device: str, real: bool, student: bool = False) -> tuple[str, ...]:
    """The runners of a benchmark on `device` for which none is named.

    real: whether it has images of the category, which the scales of int8 are set by. student:
    whether there is one; it is run by the plain runner of the device, and as `AUTO` would.
    """
    there = [kind for kind, entry in _ENTRIES.items() if entry.place == device]
    plain = "ort-cuda" if device == "cuda" else "ort-cpu"
    last = (AUTO, *((f"{STUDENT}{plain}", f"{STUDENT}{AUTO}") if student else ()))
    if device == "cuda":
        names = (name for kind in there for name in (kind, f"{kind}-fp16"))
        return (*_BASELINES[device], *names, *last)
    if real and importlib.util.find_spec("openvino"):
        there += ["openvino-bf16", "openvino-int8"]
    return (*_BASELINES[device], *there, *last)


def parse_name(name: str) -> tuple[str, str | None]:
    """`ort-cuda-fp16` -> kind and precision; None: that of the model. Raises UserError.

    Of a student's runner, `student-ort-cpu`, those of the runner.
    """
    if name.startswith(STUDENT):
        return parse_name(name.removeprefix(STUDENT))
    if name == AUTO:
        return AUTO, None
    for kind in TITLES:
        known = _PYTORCH_IN if is_pytorch(kind) else _ENTRIES[kind].precisions
        precision = name.removeprefix(f"{kind}-")
        if name == kind:
            return kind, None
        if precision != name and precision in known:
            return kind, precision
        if precision != name and precision in (*_PYTORCH_IN, *PRECISIONS):
            raise UserError(
                f"against: got '{name}', expected {kind} in {', '.join(known)}: it never runs in "
                f"{precision}; leave it out"
            )
    near = difflib.get_close_matches(name.lower().replace("_", "-"), TITLES, 1)
    raise UserError(
        f"against: got '{name}', expected {AUTO} or any of {', '.join(TITLES)}, each with "
        f"-PRECISION or without: {', '.join(_PYTORCH_IN)} of PyTorch, {', '.join(PRECISIONS)} of "
        "the others" + (f"; did you mean {near[0]}?" if near else "")
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
    return _ENTRIES[kind].place if kind in _ENTRIES else device


def is_pytorch(kind: str) -> bool:
    """Whether it runs the pack itself, not an exported model."""
    return kind in _PYTORCH


def runs_engines(kind: str) -> bool:
    """Whether it runs an engine, which is built from an exported model."""
    return kind in _ENTRIES and _ENTRIES[kind].suffix == ".engine"


def onnx_kind(device: str | None) -> str:
    """What runs an ONNX file on a device, a word of `lmk detect --device`."""
    return next(e.name for e in RUNNERS if (e.device, e.suffix) == (device, ".onnx"))


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
    """Raise UserError unless `runner` names the engine, device and precision of `spec`."""
    if is_pytorch(spec.kind):
        word = "compiled" if spec.kind == "compile" else "eager"
        expected: tuple[str, ...] = (f"PyTorch {word}", f" {spec.device}")
    else:
        entry = _ENTRIES[spec.kind]
        expected = entry.says + tuple(p for p in entry.said if p == spec.precision)
    if not all(word in runner.name for word in expected):
        raise UserError(
            f"{spec.name}: got a runner on '{runner.name}', expected '{' '.join(expected)}'; it "
            "fell back and is not measured: see `lmk doctor`"
        )


def _open(spec: RunnerSpec) -> Runner:
    path = Path(spec.file)
    if not is_pytorch(spec.kind):
        return _ENTRIES[spec.kind].open(path, spec.threads, spec.batches)
    from lmk.benchmarks.runners.torch_runner import TorchRunner

    core = Path(spec.core) if spec.core else None
    compiled = spec.kind == "compile"
    return TorchRunner(path, core, spec.device, spec.precision, spec.threads, compiled)
