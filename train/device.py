"""Which device and number format a run uses."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmk.runtime.errors import UserError
from lmk.train import distributed


def pick_device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA where it works, else the CPU; a device asked for and absent is an error.

    Of several processes on one machine each gets a GPU of its own, unless one is named.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and distributed.local_rank() is not None:
        name = f"cuda:{distributed.local_rank()}"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"--device {name}: no usable CUDA device, expected one; use --device cpu or see "
            "`lmk doctor`"
        )
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is bfloat16 where the hardware multiplies it, else float32."""
    if name == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[name]
    if dtype is torch.bfloat16 and not _has_bfloat16(device):
        raise UserError(f"--dtype bf16: {device} has no bfloat16 arithmetic; use --dtype fp32")
    return dtype


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict[str, bool] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # not in every torch we run on
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Context in which convolutions run in `dtype`."""
    if dtype is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def on_device(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """The uint8 images (N,S,S,3) where batches are made: on the GPU if there is one."""
    tensor = torch.from_numpy(images)
    return tensor.to(device) if device.type == "cuda" else tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; to a GPU without waiting for what that is still busy with."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_float(images: Tensor, chosen: Tensor, device: torch.device) -> Tensor:
    """uint8 (N,S,S,3) -> the chosen ones as float (B,3,S,S) in [0, 1], channels last in memory."""
    picked = send(images[send(chosen, images.device)], device)
    return picked.permute(0, 3, 1, 2).float() / 255
