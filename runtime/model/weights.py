"""Weight file -> its header and its arrays, without PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lmk.runtime.errors import UserError
from lmk.runtime.files import open_regular
from lmk.runtime.model import gate
from lmk.runtime.model.contract import PRECISIONS

HEADER = "lmk"  # the one key of safetensors' own metadata; its value is our header as JSON
KINDS = {
    "core": "a core made by `lmk train-core`",
    "pack": "a category pack made by `lmk adapt`",
    "run": "the state of an unfinished run",
    "template": "a template made by `python -m lmk.export.graph.template`",
}
FORMAT = 2  # of our header: since 2 it carries its own sha256
METHODS = ("projection", "finetune", "scratch", "finetune-last", "projection+finetune")
SCOPES = ("all", "blocks")
Arrays = dict[str, NDArray[Any]]
_CURE = "copy or make it again"
_NETWORK = {
    "num_landmarks": gate.COUNT,
    "width": gate.multiple(16, 4096),
    "input_size": gate.multiple(64, 4096),
    "skips": gate.optional(gate.TRUTH),
}
_PROBE = {
    "crops": gate.whole(1, 64),
    "seed": gate.whole(0, 2**32),
    "landmarks": gate.Rule(
        "finite pixels", lambda value: gate.is_finite_array(value, None, None, 2)
    ),
    "scores": gate.Rule("finite scores", lambda value: gate.is_finite_array(value, None, None)),
}
_RULES: dict[str, dict[str, gate.Rule]] = {
    "core": {"network": gate.TABLE, "sha256": gate.TEXT},
    "pack": {
        "category": gate.TEXT,
        "method": gate.one_of(*METHODS),
        "scope": gate.one_of(*SCOPES),
        "train_plain_convs": gate.TRUTH,
        "core_sha256": gate.TEXT,
        "crop_scale": gate.CROP_SCALE,
        "landmark_names": gate.NAMES,
        "network": gate.TABLE,
        "acceptance": gate.optional(gate.nullable(gate.ACCEPTANCE)),
        "following": gate.optional(gate.whole(0, gate.MOST)),
        "finding": gate.optional(gate.nullable(gate.FINDING)),
        "teacher": gate.optional(gate.TABLE),
        "finished": gate.optional(gate.TRUTH),
        "probe": gate.optional(gate.TABLE),
        "sha256": gate.TEXT,
    },
    "run": {},
    "template": {
        "network": gate.TABLE,
        "precision": gate.one_of(*PRECISIONS),
        "weights": gate.ROWS,
        "versions": gate.TABLE,
        "sha256": gate.TEXT,
    },
}


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file of ours; its `kind` is a key of KINDS.

    Raises UserError for a missing or truncated file and for one that is not ours.
    """
    ours = f"expected {' or '.join(KINDS.values())}"
    if path.is_dir():
        raise UserError(f"{path}: is a folder, {ours}; name the file")
    if path.suffix.lower() == ".onnx" and path.exists():
        raise UserError(f"{path}: is an exported model, {ours}; name the file it was exported from")
    try:
        open_regular(path).close()
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(HEADER)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: truncated or not safetensors ({error}), {ours}; {_CURE}"
        ) from error
    header = None if text is None else gate.parse(text, f"{path}: its lmk header", _CURE)
    if not isinstance(header, dict) or header.get("kind") not in KINDS:
        raise UserError(f"{path}: safetensors without an lmk header, {ours}")
    _check_header(header, str(path))
    return header


def _check_header(header: dict[str, Any], source: str) -> None:
    """Raise UserError for a header that has changed, is of a newer format, or holds nonsense."""
    version = header.get("format", 1)
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise UserError(
            f"{source}: got format {version!r}, expected at most {FORMAT}; upgrade lmk-toolkit"
        )
    has_digest = version > 1 or "header_sha256" in header
    if has_digest and header.get("header_sha256") != gate.digest_of(header):
        raise UserError(f"{source}: damaged: its header does not have its sha256; {_CURE}")
    gate.check(header, _RULES[header["kind"]], source, _CURE)
    for name, rules in (("network", _NETWORK), ("probe", _PROBE)):
        if name in header and header["kind"] != "run":
            gate.check(header[name], rules, f"{source}: {name}", _CURE)
            if other := header[name].keys() - rules:
                raise UserError(f"{source}: {name}: '{min(other)}' is unknown; {_CURE}")


def stamped(header: dict[str, Any]) -> dict[str, Any]:
    """`header` with its format and its own sha256: what `read_header` takes."""
    header = {**header, "format": FORMAT}
    return {**header, "header_sha256": gate.digest_of(header)}


def read_weights(path: Path, kind: str) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of a core, pack or template, float32 or float16 as stored, and its header.

    Raises UserError for a missing or truncated file, another kind, weights that are not those of
    the header's sha256, or values that are not finite.
    """
    header = read_header(path)
    check_kind(path, header, kind)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if digest(arrays) != header["sha256"]:
        raise UserError(f"{path}: its weights do not have its sha256; copy or make it again")
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise UserError(f"{path}: tensor '{name}' holds NaN or infinity; train it again")
    return arrays, header


def check_kind(path: Path, header: Mapping[str, Any], kind: str) -> None:
    """Raise UserError unless `header`, of the file `path`, is that of a `kind`."""
    if header["kind"] != kind:
        raise UserError(f"{path}: got {KINDS[header['kind']]}, expected {KINDS[kind]}")


def check_core(
    pack: Path, header: Mapping[str, Any], core: Path | None, core_sha256: str | None
) -> None:
    """Raise UserError unless `core` is the one that `pack`, which has `header`, was adapted from.

    `core` is None where none was given; only a pack of the method `scratch` needs none.
    """
    if header["method"] == "scratch":
        return
    wanted = header["core_sha256"]
    if core is None:
        raise UserError(f"{pack}: needs the core {wanted[:12]}…; give it by --core")
    if core_sha256 != wanted:
        raise UserError(
            f"{pack}: got core {core} with sha256 {core_sha256}, expected the one it was adapted "
            f"from, {wanted}; give that one by --core"
        )


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """sha256 over names, dtypes, shapes and values: the identity of a set of weights.

    Unlike the file's own sha256 it does not change with the header.
    """
    sha = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} torch.{value.dtype} {arrays[name].shape}".encode())  # PyTorch's name
        sha.update(value.tobytes())
    return sha.hexdigest()
