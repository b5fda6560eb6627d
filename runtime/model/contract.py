"""What every exported model promises: tensor names, frames and the metadata it carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lmk.runtime.errors import UserError

FORMAT_VERSION = 1
INPUT = "image"  # uint8 (B,H,W,3) RGB, H = W = input_size
LANDMARKS = "landmarks"  # float32 (B,K,2), (x, y) in crop pixels, centre of the top-left one (0, 0)
SCORES = "scores"  # float32 (B,K) in [0, 1]
STRIDE = 4  # crop pixels a heat-map cell; cell c is pixel STRIDE * c + CELL_OFFSET
CELL_OFFSET = (STRIDE - 1) / 2
_PREFIX = "lmk."

# What the network computes in. int8 and fp8 (E4M3) are that of the convolutions; the rest is fp16.
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


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
    format: int = FORMAT_VERSION

    def to_metadata(self) -> dict[str, str]:
        """Return string keys and JSON values, ready for `metadata_props`."""
        return {_PREFIX + name: json.dumps(value) for name, value in vars(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> Contract:
        """Read the contract of the file `source`.

        Raises UserError for a model of someone else, and naming the key that is missing or
        malformed, or the newer format.
        """
        if not any(key.startswith(_PREFIX) for key in metadata):
            raise UserError(
                f"{source}: not made by `lmk export`: got no lmk metadata, expected that of an "
                "exported pack; name another file"
            )
        values = {}
        for name in cls.__dataclass_fields__:
            try:
                values[name] = json.loads(metadata[_PREFIX + name])
            except KeyError:
                raise UserError(
                    f"{source}: metadata key '{_PREFIX}{name}' is missing, expected a model made "
                    "by `lmk export`; export the pack again"
                ) from None
            except ValueError:
                raise UserError(
                    f"{source}: metadata key '{_PREFIX}{name}' is not JSON; export the pack again"
                ) from None
        if not isinstance(values["format"], int) or values["format"] > FORMAT_VERSION:
            raise UserError(
                f"{source}: got format {values['format']}, expected at most {FORMAT_VERSION}; "
                "upgrade lmk-toolkit"
            )
        contract = cls(**_checked(values, source))
        if len(contract.landmark_names) != contract.num_landmarks:
            raise UserError(
                f"{source}: got {len(contract.landmark_names)} landmark names for "
                f"{contract.num_landmarks} landmarks; export the pack again"
            )
        return contract


def _checked(values: dict[str, Any], source: str) -> dict[str, Any]:
    """Raise UserError unless the values have their types; the names become a tuple."""
    kinds: dict[str, Any] = {
        "category": str,
        "num_landmarks": int,
        "input_size": int,
        "landmark_names": list,
    }
    kinds |= {"precision": str, "crop_scale": (int, float), "drift": dict, "versions": dict}
    for name, kind in kinds.items():
        if not isinstance(values[name], kind):
            raise UserError(
                f"{source}: metadata key '{_PREFIX}{name}' got {values[name]!r}, expected another "
                "type; export the pack again"
            )
    if values["precision"] not in PRECISIONS:
        raise UserError(
            f"{source}: got precision '{values['precision']}', expected one of "
            f"{', '.join(PRECISIONS)}; upgrade lmk-toolkit or export the pack again"
        )
    return values | {"landmark_names": tuple(values["landmark_names"])}


def default_names(num_landmarks: int) -> tuple[str, ...]:
    """Names of discovered landmarks: `p0`, `p1`, … (they have no meaning of their own)."""
    return tuple(f"p{index}" for index in range(num_landmarks))
