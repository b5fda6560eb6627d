"""Core -> adaptable network: frozen theta, a learnt projection per convolution (paper, eq. 3)."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmk.train.config import Scope
from lmk.train.network.hourglass import Block, LandmarkNetwork

HYPER_PARAMETERS: tuple[str, ...] = ("in_channels", "out_channels", "kernel_size", "stride")
HYPER_PARAMETERS += ("padding", "dilation", "groups", "padding_mode")  # of a convolution


def mode1_product(projection: Tensor, theta: Tensor) -> Tensor:
    """W x_1 theta: mix the output channels of `theta` (O, …) by `projection` (O, O)."""
    return (projection @ theta.flatten(1)).view_as(theta)


class ProjectedConv2d(nn.Conv2d):
    """A convolution whose weight is W·theta: theta is a frozen buffer, W (O,O) starts as identity.

    The bias, where there is one, is projected alike (W·b), so the layer is exactly the frozen
    convolution followed by a bias-free 1x1 convolution W. Groups other than 1 are not supported.
    """

    theta: Tensor
    theta_bias: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            **{name: getattr(conv, name) for name in HYPER_PARAMETERS},
            bias=False,
            device="meta",  # the initial weight is never used: it is W·theta
        )
        del self.weight
        theta = conv.weight.detach().clone()
        bias = None if conv.bias is None else conv.bias.detach().clone()
        self.register_buffer("theta", theta)
        self.register_buffer("theta_bias", bias)
        self.projection = nn.Parameter(torch.eye(conv.out_channels).to(theta))

    def pays_after(self, x: Tensor) -> bool:
        """Whether W after the convolution of `x`, as a 1x1 one, makes a quicker training step.

        The frozen convolution then needs no gradient of its weight, of `area` times C_in·C_out
        products a pixel, and the 1x1 one has three of C_out². Those pay half, being bound by
        memory, and in bfloat16 not for few channels. As measured on CPUs (benchmarks/NOTES.md).
        """
        area = self.kernel_size[0] * self.kernel_size[1]
        wide = self.out_channels >= 64 or not torch.is_autocast_enabled(x.device.type)
        return x.device.type == "cpu" and wide and area * self.in_channels >= 6 * self.out_channels

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the plain convolution that computes the same: W·theta, W·b."""
        bias = self.theta_bias
        return mode1_product(self.projection, self.theta), (
            None if bias is None else self.projection @ bias
        )

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.pays_after(x):
            plain = self._conv_forward(x, self.theta, self.theta_bias)
            if not torch.is_autocast_enabled(x.device.type):
                return F.conv2d(plain, self.projection[:, :, None, None])
            # By W - I: beside ones, bfloat16 would lose what of W is small.
            change = self.projection - torch.eye(len(self.projection), device=x.device)
            return plain + F.conv2d(plain, change[:, :, None, None])
        # In float32 also under autocast: bfloat16 would round W·theta itself, not only its use.
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.folded()
        return self._conv_forward(x, weight, bias)


def project(
    core: LandmarkNetwork,
    num_landmarks: int,
    scope: Scope = "all",
    train_plain_convs: bool = False,
) -> LandmarkNetwork:
    """Return a copy of `core` with K = `num_landmarks` ready to adapt; `core` is untouched.

    scope "all" projects every convolution but the head (532,480 values in W at width 256),
    "blocks" only the 3x3 ones of the residual blocks (380,928). Batch-norms and a newly
    initialised head are trainable; convolutions without W are frozen unless `train_plain_convs`,
    which is what the authors' released code does (with "blocks").
    """
    model = with_head(core, num_landmarks)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if not isinstance(child, nn.Conv2d) or child is model.head:
                continue
            if scope == "all" or (isinstance(module, Block) and name.startswith("conv")):
                setattr(module, name, ProjectedConv2d(child))
            else:
                child.requires_grad_(train_plain_convs)
    return model


def with_head(core: LandmarkNetwork, num_landmarks: int) -> LandmarkNetwork:
    """Return a trainable copy of `core` with a new, randomly initialised head of K outputs."""
    model = copy.deepcopy(core).requires_grad_(True)
    model.config = replace(core.config, num_landmarks=num_landmarks)
    model.head = nn.Conv2d(core.config.width, num_landmarks, 1).to(core.head.weight.device)
    return model


def plain_state(model: LandmarkNetwork) -> dict[str, Tensor]:
    """The state of the plain network that computes what `model` does: W·theta as weights."""
    state = dict(model.state_dict())
    for name, layer in model.named_modules():
        if isinstance(layer, ProjectedConv2d):
            weight, bias = layer.folded()
            for part in ("projection", "theta", "theta_bias"):
                state.pop(f"{name}.{part}", None)
            state[f"{name}.weight"] = weight
            if bias is not None:
                state[f"{name}.bias"] = bias
    return {name: value.detach() for name, value in state.items()}


def category_state(model: LandmarkNetwork) -> dict[str, Tensor]:
    """What a category adds to its core: every trainable tensor and the batch-norm statistics.

    For `project(core, scope)` that is W, batch-norm and head, and nothing else; what names its
    points goes with it.
    """
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    return {
        name: value.detach()
        for name, value in model.state_dict().items()
        if name in trainable
        or name.endswith(("running_mean", "running_var"))
        or name.startswith("naming.")
    }


def load_category_state(model: LandmarkNetwork, state: dict[str, Tensor]) -> None:
    """Put `state` into a model made by the same call that made the saved one.

    Raises KeyError naming the first tensor that is missing, unexpected or of another shape.
    """
    expected = category_state(model)
    for name in sorted(expected.keys() ^ state.keys()):
        raise KeyError(f"tensor '{name}' is {'missing' if name in expected else 'unexpected'}")
    for name, value in state.items():
        if value.shape != expected[name].shape:
            got, want = tuple(value.shape), tuple(expected[name].shape)
            raise KeyError(f"tensor '{name}' has shape {got}, expected {want}")
    with torch.no_grad():
        for name, value in state.items():
            expected[name].copy_(value)
