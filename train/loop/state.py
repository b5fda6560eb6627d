"""Models and optimisers <-> the file that a run goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lmk.runtime.errors import UserError
from lmk.train.network import checkpoint

Models = Mapping[str, nn.Module]
Optimizers = Mapping[str, Optimizer]


def save_state(
    path: Path, models: Models, optimizers: Optimizers, header: Mapping[str, Any]
) -> None:
    """Write everything that training changes; raises UserError when the disk is full."""
    tensors: dict[str, Tensor] = {}
    groups = {}
    for name, model in models.items():
        tensors |= {f"model.{name}.{key}": value for key, value in model.state_dict().items()}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        groups[name] = state["param_groups"]
        for index, values in state["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{key}": v for key, v in values.items()}
    plain = json.loads(json.dumps({**header, "groups": groups}, default=str))
    # A header is checked against its own digest wherever it is read; the weights are here.
    checkpoint.save(path, "run", tensors, {**plain, "seal": checkpoint.digest(tensors)})


def load_state(path: Path, models: Models, optimizers: Optimizers) -> dict[str, Any]:
    """Put what `save_state` wrote into the same models and optimisers; returns its header.

    Raises UserError for a file that was changed since, or is the state of other models.
    """
    tensors, header = checkpoint.load(path, "run")
    if header.get("seal") != checkpoint.digest(tensors):
        raise UserError(
            f"{path}: damaged, or written by an earlier version, expected the state of a run; "
            "start anew with --force"
        )
    for name, model in models.items():
        model.load_state_dict(_below(tensors, f"model.{name}."))
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(tensors, f"optimizer.{name}.").items():
            index, field = key.split(".", 1)
            state.setdefault(int(index), {})[field] = value
        optimizer.load_state_dict({"state": state, "param_groups": header["groups"][name]})
        # The moments get the strides of their parameters: fused Adam pairs the values in memory
        # order, and a file has lost that of channels-last.
        for parameter, moments in optimizer.state.items():
            for key, value in moments.items():
                if value.shape == parameter.shape:
                    moments[key] = torch.empty_like(parameter).copy_(value)
    return header


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
