"""Weight file -> its header and its arrays, without PyTorch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lmk.runtime.errors import UserError

HEADER = "lmk"  # the one key of safetensors' own metadata; its value is our header as JSON
KINDS = {
    "core": "a core made by `lmk train-core`",
    "pack": "a category pack made by `lmk adapt`",
    "run": "the state of an unfinished run",
    "template": "a template made by `python -m lmk.export.graph.template`",
}
Arrays = dict[str, NDArray[Any]]


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
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[HEADER])
        if header["kind"] not in KINDS:
            raise KeyError
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except KeyError:
        raise UserError(f"{path}: safetensors without an lmk header, {ours}") from None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: truncated or not safetensors ({error}), {ours}; copy or make it again"
        ) from error
    return header


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
