"""Reconstruction and target -> one number: how different they look to a frozen network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lmk.runtime.errors import UserError
from lmk.train import distributed
from lmk.train.network.hourglass import LandmarkNetwork

Features = Callable[[Tensor], list[Tensor]]

# torchvision's layer plan, and the positions of relu1_2, relu2_2, relu3_3, relu4_3 in it.
_PLANS = {"vgg19": ("E", (3, 8, 15, 24)), "vgg16": ("D", (3, 8, 15, 22))}
# What the weights expect: (image - mean) / std of RGB in [0, 1].
_TORCHVISION_INPUT = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CAFFE_INPUT = ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3)


class Vgg(nn.Module):
    """images (B,3,H,W) in [0, 1] -> the four feature maps, ending at relu4_3 (paper, sec. 3.2).

    `weights` None takes torchvision's ImageNet weights (downloaded once); a path takes a
    safetensors file with tensors convB_I.weight and .bias whose input is RGB 0-255 minus the
    ImageNet mean. `normalise` off feeds [0, 1] as it is, like the authors' released code.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, kind: str, weights: Path | None, normalise: bool = True) -> None:
        from torchvision.models import vgg  # two seconds, which only this network needs

        super().__init__()
        plan, self.taps = _PLANS[kind]
        self.layers = vgg.make_layers(vgg.cfgs[plan], batch_norm=False)[: self.taps[-1] + 1]
        for layer in self.layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # its output is kept
        if weights is None:
            self.layers.load_state_dict(_download(kind), strict=False)
        else:
            _load_file(kind, self.layers, weights)
        mean, std = _TORCHVISION_INPUT if weights is None else _CAFFE_INPUT
        if not normalise:
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = (images - self.mean) / self.std
        kept = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.taps:
                kept.append(x)
        return kept


def _download(kind: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    try:
        weights = get_model_weights(kind).IMAGENET1K_V1
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"--perceptual {kind}: torchvision's weights cannot be downloaded ({error}); give "
            "them by --vgg FILE.safetensors, or use --perceptual core, which needs none"
        ) from error
    return {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}


def _load_file(kind: str, layers: nn.Sequential, path: Path) -> None:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"--vgg {path}: cannot be read ({error}); give a safetensors file with convB_I tensors"
        ) from error
    if kind == "vgg16" and "conv3_4.weight" in tensors:  # all that VGG-16 has would fit
        raise UserError(f"--vgg {path}: got the weights of VGG-19; use --perceptual vgg19")
    block, index = 1, 0
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            block, index = block + 1, 0
        elif isinstance(layer, nn.Conv2d):
            index += 1
            for part in ("weight", "bias"):
                name = f"conv{block}_{index}.{part}"
                if name not in tensors or tensors[name].shape != getattr(layer, part).shape:
                    raise UserError(f"--vgg {path}: tensor '{name}' is missing or of another shape")
                getattr(layer, part).data.copy_(tensors[name])


def core_features(core: LandmarkNetwork) -> Features:
    """The first three stages of the frozen core: no download, and cheaper than VGG."""
    frozen = copy.deepcopy(core).eval().requires_grad_(False)
    return frozen.features


def distance(
    features: Features, images: Tensor, target: Tensor, norm: str = "l1", relative: bool = True
) -> Tensor:
    """Sum over the layers of the mean l1 (paper) or squared distance ("mse") of the features.

    `relative` divides each layer by the target's mean magnitude there, so that no layer (and no
    choice of network) drowns the others. The target gets no gradient.
    """
    with torch.no_grad():
        wanted = features(target)
    total = images.new_zeros(())
    for got, want in zip(features(images), wanted, strict=True):
        term = _magnitude(got - want, norm)
        if relative:
            term = term / (distributed.mean(_magnitude(want, norm)) + 1e-6)
        total = total + term
    return total


def _magnitude(x: Tensor, norm: str) -> Tensor:
    """Mean absolute ("l1") or squared ("mse") value, summed in float32.

    As a vector norm it needs no float32 copy of the features, neither forward nor backward.
    """
    if norm == "l1":
        return torch.linalg.vector_norm(x, 1, dtype=torch.float32) / x.numel()
    return torch.linalg.vector_norm(x, 2, dtype=torch.float32).square() / x.numel()
