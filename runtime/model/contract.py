"""What every exported model promises: tensor names, frames and the metadata it carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.model import gate, wire

FORMAT_VERSION = 2  # since 2 the file ends with its sha256
INPUT = "image"  # uint8 (B,H,W,3) RGB, H = W = input_size
LANDMARKS = "landmarks"  # float32 (B,K,2), (x, y) in crop pixels, centre of the top-left one (0, 0)
SCORES = "scores"  # float32 (B,K) in [0, 1]
STRIDE = 4  # crop pixels a heat-map cell; cell c is pixel STRIDE * c + CELL_OFFSET
CELL_OFFSET = (STRIDE - 1) / 2
_PREFIX = "lmk."

# What a model gives: landmarks (B,K,2) and scores (B,K).
Reading = tuple[NDArray[np.float32], NDArray[np.float32]]

# What the network computes in. int8 and fp8 (E4M3) are that of the convolutions; the rest is fp16.
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_CURE = "export the pack again"
_RULES = {
    "category": gate.TEXT,
    "num_landmarks": gate.COUNT,
    "input_size": gate.SIZE,
    "precision": gate.one_of(*PRECISIONS),
    "core_sha256": gate.TEXT,
    "pack_sha256": gate.TEXT,
    "landmark_names": gate.NAMES,
    "crop_scale": gate.CROP_SCALE,
    "drift": gate.TABLE,
    "versions": gate.TABLE,
    "finding": gate.optional(gate.nullable(gate.FINDING)),
    "teacher": gate.optional(gate.nullable(gate.TABLE)),
    "acceptance": gate.optional(gate.nullable(gate.ACCEPTANCE)),
    "following": gate.optional(gate.whole(0, gate.MOST)),
}


@dataclass(frozen=True)
class Contract:
    """The metadata of one exported model, written to and read from ONNX `metadata_props`."""

    category: str
    num_landmarks: int
    input_size: int  # side of the square crop in pixels
    precision: Precision
    core_sha256: str
    pack_sha256: str
    landmark_names: tuple[str, ...]
    # Object box -> crop: the crop is a square of this many times the longer side of the box.
    crop_scale: float = 1.0
    drift: dict[str, Any] = field(default_factory=dict)  # see export/graph/verify.py
    versions: dict[str, str] = field(default_factory=dict)  # libraries that made the file
    finding: dict[str, Any] | None = None  # see regions.Finding; None: not known
    teacher: dict[str, Any] | None = None  # of a student, and how far it is from it
    acceptance: dict[str, Any] | None = None  # see regions.Acceptance; None: not measured
    # So many of the landmarks, the last, are what the others, named points, were made of: by them
    # an object is told and followed.
    following: int = 0
    format: int = FORMAT_VERSION

    @property
    def given_names(self) -> tuple[str, ...]:
        """Of the landmarks that are wanted: all but those kept for following."""
        return self.landmark_names[: self.num_landmarks - self.following]

    def to_metadata(self) -> dict[str, str]:
        """Return string keys and JSON values, ready for `metadata_props`."""
        return {_PREFIX + name: json.dumps(value) for name, value in vars(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> Contract:
        """Read the contract of the file `source`.

        Raises UserError for a model of someone else, and naming the key that is missing or
        malformed, or the newer format.
        """
        if not any(key.startswith(_PREFIX) and key != wire.DIGEST for key in metadata):
            raise UserError(
                f"{source}: not made by `lmk export`: got no lmk metadata, expected that of an "
                "exported pack; name another file"
            )
        values = {}
        for name in cls.__dataclass_fields__:
            key = _PREFIX + name
            if key not in metadata:
                if name in _RULES and _RULES[name].optional:
                    continue
                raise UserError(
                    f"{source}: metadata key '{key}' is missing, expected a model made by "
                    f"`lmk export`; {_CURE}"
                )
            values[name] = gate.parse(metadata[key], f"{source}: metadata key '{key}'", _CURE)
        if type(values["format"]) is int and values["format"] > FORMAT_VERSION:
            raise UserError(
                f"{source}: got format {values['format']}, expected at most {FORMAT_VERSION}; "
                "upgrade lmk-toolkit"
            )
        rules = _RULES | {"format": gate.whole(1, FORMAT_VERSION)}
        gate.check(values, rules, f"{source}: metadata", _CURE)
        if len(values["landmark_names"]) != values["num_landmarks"]:
            raise UserError(
                f"{source}: got {len(values['landmark_names'])} landmark names for "
                f"{values['num_landmarks']} landmarks; {_CURE}"
            )
        if values.get("following", 0) >= values["num_landmarks"]:
            raise UserError(
                f"{source}: got {values['following']} of {values['num_landmarks']} landmarks for "
                f"following, expected others too; {_CURE}"
            )
        told_by = values.get("following") or values["num_landmarks"]
        if len((values.get("acceptance") or {}).get("weights", ())) not in (0, told_by):
            raise UserError(f"{source}: got weights of other than {told_by} landmarks; {_CURE}")
        return cls(**values | {"landmark_names": tuple(values["landmark_names"])})


def read_model(path: Path) -> tuple[bytes, Contract]:
    """The bytes of the exported model `path`, as they were written, and its contract.

    Raises UserError for a file that is missing, truncated, not ours, or of which a byte has
    changed. A model of before 0.2 has no sha256 to tell that by: only its metadata is checked.
    """
    data, metadata, is_sealed = wire.read_sealed(path)
    contract = Contract.from_metadata(metadata, str(path))
    if contract.format > 1 and not is_sealed:
        raise UserError(
            f"{path}: got no sha256 at its end, expected the file as `lmk export` wrote it; copy "
            "it again or export the pack again"
        )
    return data, contract


def default_names(num_landmarks: int) -> tuple[str, ...]:
    """Names of discovered landmarks: `p0`, `p1`, … (they have no meaning of their own)."""
    return tuple(f"p{index}" for index in range(num_landmarks))
