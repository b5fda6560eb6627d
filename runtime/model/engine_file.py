"""Engine file -> what it holds: our header in front of TensorRT's plan.

A plan says nothing of the landmarks it finds nor of the library that reads it, and a file beside it
would be lost on the way. So the file is: magic, version of this layout (4 bytes, little endian),
length of the header (4 bytes), the sha256 of the header (32 bytes; not in layout 1), the header as
JSON, the plan.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from lmk.runtime.errors import UserError
from lmk.runtime.files import open_regular, write_bytes
from lmk.runtime.model import gate
from lmk.runtime.model.contract import PRECISIONS, Contract, Precision

MAGIC = b"LMK\x00ENGN"
VERSION = 2
Library = Literal["tensorrt", "tensorrt_rtx"]
ENGINE_NAMES = {"tensorrt": "trt", "tensorrt_rtx": "rtx"}  # of `lmk export --engine`
LIBRARY_TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
# The first compute capability whose arithmetic knows the format.
SINCE: dict[Precision, tuple[int, int]] = {
    "fp32": (7, 5),
    "fp16": (7, 5),
    "int8": (7, 5),
    "bf16": (8, 0),
    "fp8": (8, 9),
}
_PORTABLE = (8, 0)  # where the portable engines of TensorRT for RTX begin
_START = struct.Struct("<8sII")
_DIGEST_BYTES = 32
_PLAN_MAGICS = (b"ftrt", b"ptrt", b"vtrt")  # TensorRT, its version-compatible plans, TensorRT-RTX
_HEADER_LIMIT = 1 << 24  # ours has some kilobytes; anything beyond is damage
_CURE = "export the pack again"
_MIB = gate.whole(1, 1 << 32)
_COUNTS = gate.Rule(
    "numbers of layers",
    lambda value: isinstance(value, dict) and all(type(each) is int for each in value.values()),
)
_INFO_RULES = {
    "contract": gate.TABLE,
    "recipe": gate.TABLE,
    "layers": _COUNTS,
    "convolutions": _COUNTS,
    "kernels": _COUNTS,
    "build_seconds": gate.Rule("seconds", lambda value: gate.is_finite_array(value)),
    "plan_bytes": gate.whole(0, 1 << 48),
    "plan_sha256": gate.TEXT,
}
_RECIPE_RULES = {
    "onnx_sha256": gate.TEXT,
    "precision": gate.one_of(*PRECISIONS),
    "library": gate.one_of(*ENGINE_NAMES),  # it is imported
    "library_version": gate.TEXT,
    "gpu": gate.TEXT,
    "targets": gate.rows_of(gate.CAPABILITY, "compute capabilities, such as 8.6"),
    "batches": gate.rows_of(gate.COUNT, "batch sizes that differ", least=1),
    "refittable": gate.TRUTH,
    "level": gate.whole(0, 5),
    "workspace_mib": gate.Rule("MiB", lambda value: value is None or _MIB.holds(value)),
}


@dataclass(frozen=True)
class Recipe:
    """All that an engine is made from: equal recipes make engines that can stand in for another."""

    onnx_sha256: str
    precision: Precision  # of the ONNX file
    library: Library
    library_version: str
    gpu: str  # name of the one it was built on and for; "" for any of `targets`
    # Compute capabilities, "8.6". None stands for the portable engine of TensorRT for RTX, for 8.0
    # and newer.
    targets: tuple[str, ...]
    batches: tuple[int, ...]  # ascending; batches[i] is the fixed batch of optimisation profile i
    refittable: bool  # whether other weights can be put in
    level: int  # builder optimisation level, 0 to 5
    workspace_mib: int | None  # scratch memory that a layer may ask for; None is no limit

    @property
    def place(self) -> str:
        """What the engine runs on, in words."""
        if not self.targets:
            major, minor = max(_PORTABLE, SINCE[self.precision])
            return f"compute capability {major}.{minor} and newer"
        capabilities = f"compute capability {', '.join(self.targets)}"
        return f"{self.gpu} ({capabilities})" if self.gpu else capabilities


@dataclass(frozen=True)
class EngineInfo:
    """The header of an engine file."""

    contract: Contract  # of the ONNX file it was built from
    recipe: Recipe
    layers: dict[str, int]  # how many of the network's layers compute in each precision
    convolutions: dict[str, int]  # the same of its convolutions alone
    kernels: dict[str, int]  # what the engine inspector counts; empty if built without a GPU
    build_seconds: float
    plan_bytes: int
    plan_sha256: str

    @property
    def titled_library(self) -> str:
        """The library and its version as people write them."""
        return f"{LIBRARY_TITLES[self.recipe.library]} {self.recipe.library_version}"

    def flat(self) -> dict[str, Any]:
        """All values on one level, for printing, and what the engine runs on in words."""
        values = asdict(self) | {"runs_on": self.recipe.place}
        return values.pop("contract") | values.pop("recipe") | values


def sha256(data: bytes) -> str:
    """The digest of `data` in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_engine(path: Path, info: EngineInfo, plan: bytes) -> None:
    """Write `plan` with `info` before it, atomically; raises UserError as `write_bytes`."""
    values = asdict(info) | {"contract": info.contract.to_metadata()}
    header = json.dumps(values).encode()
    start = _START.pack(MAGIC, VERSION, len(header)) + hashlib.sha256(header).digest()
    write_bytes(path, start + header + plan)


def read_info(path: Path) -> EngineInfo:
    """The header of the engine file `path`; the plan is only measured.

    Raises UserError for a file that is missing, not an engine of ours, of a newer layout or
    truncated.
    """
    with _open(path) as file:
        return _read_info(file, path)


def read_engine(path: Path) -> tuple[EngineInfo, bytes]:
    """The header and the plan of the engine file `path`.

    Raises UserError as `read_info`, and when the plan's bytes have changed.
    """
    with _open(path) as file:
        info, plan = _read_info(file, path), file.read()
    if sha256(plan) != info.plan_sha256:
        raise UserError(f"{path}: damaged: the plan's sha256 is not its header's; {_again(info)}")
    return info, plan


def _open(path: Path) -> BinaryIO:
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected an engine made by `lmk export --engine`")
    try:
        return open_regular(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected an engine; check the path") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its rights") from error


def _read_info(file: BinaryIO, path: Path) -> EngineInfo:
    """Read up to the plan, and measure that; raises UserError as `read_info` does."""
    start = file.read(_START.size)
    if not MAGIC.startswith(start[: len(MAGIC)]):
        raise _foreign(path, start)
    if len(start) < _START.size:
        raise _truncated(path, f"it has {len(start)} bytes")
    _, version, length = _START.unpack(start)
    if not 1 <= version <= VERSION:
        raise UserError(
            f"{path}: got engine layout {version}, expected at most {VERSION}; upgrade lmk-toolkit"
        )
    digest = file.read(_DIGEST_BYTES) if version > 1 else None
    header = file.read(min(length, _HEADER_LIMIT))
    if len(header) < length:
        raise _truncated(path, f"{length - len(header)} bytes of the header are missing")
    if digest is not None and hashlib.sha256(header).digest() != digest:
        raise UserError(
            f"{path}: damaged: its header does not have its sha256; copy it again or {_CURE}"
        )
    info = _from_json(gate.parse(header, f"{path}: damaged: its header", _CURE), path)
    missing = info.plan_bytes - (path.stat().st_size - file.tell())
    if missing > 0:
        raise _truncated(path, f"{missing} of {info.plan_bytes} bytes of the plan are missing")
    if missing < 0:
        raise UserError(f"{path}: got {-missing} bytes after the engine's end; {_again(info)}")
    return info


def _from_json(values: Any, path: Path) -> EngineInfo:
    gate.check(values, _INFO_RULES, f"{path}: damaged: its header", _CURE)
    recipe = values.pop("recipe")
    gate.check(recipe, _RECIPE_RULES, f"{path}: damaged: its header", _CURE)
    contract = Contract.from_metadata(values.pop("contract"), str(path))
    recipe |= {name: tuple(recipe[name]) for name in ("targets", "batches")}
    try:
        return EngineInfo(contract=contract, recipe=Recipe(**recipe), **values)
    except TypeError as error:  # of a name that is not ours
        raise UserError(f"{path}: damaged: its header: {error}; {_CURE}") from None


def _foreign(path: Path, start: bytes) -> UserError:
    if start.startswith(_PLAN_MAGICS):
        return UserError(
            f"{path}: got a bare TensorRT plan, expected an engine made by `lmk export`, which "
            "says what it finds; export the pack with --engine"
        )
    return UserError(
        f"{path}: got another kind of file, expected an engine made by `lmk export --engine`; "
        "name another file"
    )


def _truncated(path: Path, what: str) -> UserError:
    return UserError(f"{path}: truncated: {what}; copy it again or export the pack again")


def _again(info: EngineInfo) -> str:
    name = ENGINE_NAMES[info.recipe.library]
    return f"copy it again, or export the pack again with `--engine {name}`"
