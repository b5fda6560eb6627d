"""Image -> heat-maps: the FAN hourglass (Bulat & Tzimiropoulos 2017), one stack."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmk.runtime.model import STRIDE
from lmk.train.config import Width

DEPTH = 4  # poolings inside the hourglass

SIZE_MULTIPLE = STRIDE * 2**DEPTH  # the deepest level must hold at least one cell


@dataclass(frozen=True)
class HourglassConfig:
    """What must be known to rebuild the network; saved with every weight file."""

    num_landmarks: int = 10
    width: int = 256  # channels of the hourglass; the stem starts with a quarter of it
    input_size: int = 128  # side of the square input in pixels, a multiple of 64
    skips: bool = True  # blocks on the skips of the hourglass; False: a student's, which has none

    def __post_init__(self) -> None:
        if self.num_landmarks < 1:
            raise ValueError(f"num_landmarks: got {self.num_landmarks}, expected 1 or more")
        if self.width < 16 or self.width % 16:
            raise ValueError(f"width: got {self.width}, expected a multiple of 16")
        if self.input_size < SIZE_MULTIPLE or self.input_size % SIZE_MULTIPLE:
            raise ValueError(
                f"input_size: got {self.input_size}, expected a multiple of {SIZE_MULTIPLE}"
            )

    def recorded(self) -> dict[str, Any]:
        """For a header: what most have in common is left out, as it was before it was a choice."""
        return {name: v for name, v in asdict(self).items() if name != "skips" or not v}


WIDTHS: dict[Width, int] = {"full": 256, "medium": 128, "small": 64, "tiny": 48}


class Block(nn.Module):
    """Hierarchical pre-activation block: three 3x3 convolutions, their outputs concatenated."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half, quarter = out_channels // 2, out_channels // 4
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.BatchNorm2d(in_channels),
                nn.ReLU(),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(F.relu(self.bn1(x)))
        second = self.conv2(F.relu(self.bn2(first)))
        third = self.conv3(F.relu(self.bn3(second)))
        return torch.cat((first, second, third), dim=1) + self.skip(x)


class Hourglass(nn.Module):
    """One level: a skip at full resolution beside a path at half of it."""

    def __init__(self, depth: int, width: int, skips: bool = True) -> None:
        super().__init__()
        self.skip = Block(width, width) if skips else nn.Identity()
        self.down = Block(width, width)
        self.inner = Hourglass(depth - 1, width, skips) if depth > 1 else Block(width, width)
        self.up = Block(width, width)

    def forward(self, x: Tensor) -> Tensor:
        low = self.up(self.inner(self.down(F.avg_pool2d(x, 2))))
        return self.skip(x) + F.interpolate(low, scale_factor=2, mode="nearest")


class LandmarkNetwork(nn.Module):
    """Images (B,3,H,W) float in [0, 1] -> heat-maps (B,K,H/4,W/4), unbounded.

    H and W are multiples of 64. Pre-activation blocks, average pooling, no input normalisation
    (method-facts section 1). 6,234,762 parameters at width 256 and K=10.
    """

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv_first = nn.Conv2d(3, width // 4, 7, stride=2, padding=3)
        self.bn_first = nn.BatchNorm2d(width // 4)
        self.block1 = Block(width // 4, width // 2)
        self.block2 = Block(width // 2, width // 2)
        self.block3 = Block(width // 2, width)
        self.hourglass = Hourglass(DEPTH, width, config.skips)
        self.top = Block(width, width)
        self.conv_last = nn.Conv2d(width, width, 1)
        self.bn_last = nn.BatchNorm2d(width)
        self.head = nn.Conv2d(width, config.num_landmarks, 1)
        self.naming: nn.Module | None = None  # what names its points: a `NamingLayer`

    def features(self, images: Tensor) -> list[Tensor]:
        """Stem features at strides 2, 4 and 4: what `perceptual.py` compares on."""
        first = self.block1(F.relu(self.bn_first(self.conv_first(images))))
        second = self.block2(F.avg_pool2d(first, 2))
        return [first, second, self.block3(second)]

    def maps(self, stem: Tensor) -> Tensor:
        """The last of `features` -> heat-maps."""
        x = self.top(self.hourglass(stem))
        return self.head(F.relu(self.bn_last(self.conv_last(x))))

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(self.features(images)[-1])
