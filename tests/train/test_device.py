"""Devices and number formats: what is asked for and absent is an error, never a fallback."""

import numpy as np
import pytest
import torch

from lmk.runtime.errors import UserError
from lmk.train import device as module
from lmk.train.device import autocast, pick_device, pick_dtype, to_float

CPU = torch.device("cpu")


def test_auto_takes_what_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_an_absent_device(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"--device {name}: no usable CUDA .*--device cpu"):
        pick_device(name)


def test_bfloat16_only_where_the_hardware_has_it(monkeypatch):
    monkeypatch.setattr(module, "_has_bfloat16", lambda device: False)
    assert pick_dtype("auto", CPU) is torch.float32
    with pytest.raises(UserError, match="--dtype bf16: cpu has no bfloat16.*--dtype fp32"):
        pick_dtype("bf16", CPU)
    monkeypatch.setattr(module, "_has_bfloat16", lambda device: True)
    assert pick_dtype("auto", CPU) is pick_dtype("bf16", CPU) is torch.bfloat16
    assert pick_dtype("fp32", CPU) is torch.float32


def test_autocast_runs_convolutions_in_the_type():
    conv, x = torch.nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    for dtype in (torch.float32, torch.bfloat16):
        with autocast(CPU, dtype):
            assert conv(x).dtype is dtype


def test_to_float():
    images = torch.from_numpy(np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3))
    chosen = to_float(images, torch.tensor([1, 1, 0]), CPU)
    assert chosen.shape == (3, 3, 4, 4)
    assert chosen[0, 2, 3, 1] == pytest.approx(float(images[1, 3, 1, 2]) / 255)
