"""Weight file -> its header: what a core or pack says of itself, without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lmk.runtime.errors import UserError

HEADER = "lmk"  # the one key of safetensors' own metadata; its value is our header as JSON
KINDS = {
    "core": "a core made by `lmk train-core`",
    "pack": "a category pack made by `lmk adapt`",
    "run": "the state of an unfinished run",
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
