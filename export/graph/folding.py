"""Adapted network -> plain network: W·theta becomes the convolution's weight (paper, eq. 3).

What is promised is "no projection left", not "no batch-norm left". The residual blocks are
pre-activation (batch-norm -> ReLU -> convolution) and concatenate raw convolution outputs, so a
block's batch-norm has a ReLU between it and the next convolution, and other readers on its other
side. Only the stem's and `conv_last`'s batch-norms could fold further; that is left to whoever
compiles the graph (the exporter's optimiser does it, see `graph.py`), so this file owes nothing
but the method's own arithmetic.
"""

from __future__ import annotations

import copy

from torch import nn

from lmk.train.network import LandmarkNetwork, ProjectedConv2d

_HYPER_PARAMETERS = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)


def fold(model: LandmarkNetwork) -> LandmarkNetwork:
    """Return a copy of `model` for inference without any ProjectedConv2d; `model` is untouched.

    The copy is in eval mode, needs no gradients and computes the same heat-maps up to rounding. A
    model without projections (methods `finetune` and `scratch`) is only copied.
    """
    folded = copy.deepcopy(model)
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ProjectedConv2d):
                setattr(module, name, fold_conv(child))
    return folded.eval().requires_grad_(False)


def fold_conv(layer: ProjectedConv2d) -> nn.Conv2d:
    """The plain convolution that computes what `layer` does, of its dtype and on its device.

    Weight (O,I,kh,kw) = W·theta and bias (O,) = W·b are multiplied in float64 and rounded once:
    the product is then as exact as the format that stores it.
    """
    weight, bias = copy.deepcopy(layer).double().folded()
    plain = nn.Conv2d(
        **{name: getattr(layer, name) for name in _HYPER_PARAMETERS},
        bias=bias is not None,
        device="meta",  # the initial weight is never used
    )
    plain.weight = nn.Parameter(weight.detach().to(layer.projection.dtype))
    if bias is not None:
        plain.bias = nn.Parameter(bias.detach().to(layer.projection.dtype))
    return plain
