"""Weights <-> safetensors files: whole or absent, self-describing, never unpickled."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from lmk.runtime.errors import UserError
from lmk.runtime.files import write_bytes
from lmk.runtime.model import HEADER, read_header, weights
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork


def digest(tensors: Mapping[str, Tensor]) -> str:
    """The identity of a set of weights, see `weights.digest`."""
    return weights.digest({name: value.detach().cpu().numpy() for name, value in tensors.items()})


def versions(*distributions: str) -> dict[str, str]:
    """Installed versions of `distributions`, of those that are installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def save(path: Path, kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header atomically; raises UserError when the disk is full.

    The header gets `kind`, the library versions, for weights their `sha256`, and its own.
    """
    header = {"kind": kind, "versions": versions("lmk-toolkit", "torch"), **header}
    if kind != "run":
        header["sha256"] = digest(tensors)
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_bytes(path, serialise(contiguous, metadata={HEADER: json.dumps(weights.stamped(header))}))


def load(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors (on the CPU) and header of a file of `kind`.

    Raises UserError for a missing or truncated file, another kind, or values that are not finite.
    """
    if kind != "run":
        arrays, header = weights.read_weights(path, kind)
        return {name: torch.from_numpy(value) for name, value in arrays.items()}, header
    header = read_header(path)
    weights.check_kind(path, header, kind)
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118


def halve(path: Path, output: Path) -> None:
    """Write a core with its matrices in half precision: what ships; packs: `halve_pack`.

    Batch-norms and biases stay float32: they are small, and a variance may leave fp16's range.
    Its sha256 is new, so packs must be adapted from the core that is shipped.
    """
    tensors, header = load(path, "core")
    save(output, "core", halved(tensors), header)


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the matrices among them in half precision."""
    return {n: v.half() if v.dim() > 1 else v for n, v in tensors.items()}


def save_core(path: Path, model: LandmarkNetwork, header: Mapping[str, Any]) -> None:
    """Write the core: every weight of `model` and what is needed to rebuild it."""
    save(path, "core", _weights(model), {**header, "network": model.config.recorded()})


def load_core(path: Path) -> tuple[LandmarkNetwork, dict[str, Any]]:
    """Rebuild a core in eval mode on the CPU, and its header; raises UserError as `load`."""
    tensors, header = load(path, "core")
    model = LandmarkNetwork(HourglassConfig(**header["network"]))
    missing = _weights(model).keys() ^ tensors.keys()
    if missing:
        raise UserError(f"{path}: tensor '{min(missing)}' is missing or unexpected; train it again")
    try:
        model.load_state_dict({n: v.float() for n, v in tensors.items()}, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path}: not the network it says ({reason}); train it again") from error
    return model.eval(), header


def _weights(model: LandmarkNetwork) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: value for name, value in state.items() if not name.endswith("batches_tracked")}
