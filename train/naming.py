"""Found landmarks -> named points: the last step of a network whose points were named."""

from __future__ import annotations

from torch import Tensor, nn

from lmk.train import bottleneck
from lmk.train.augment import to_pixels
from lmk.train.hourglass import LandmarkNetwork


class Naming(nn.Module):
    """K landmarks -> M points: weighted sums, and offsets in crop pixels; see `runtime/naming.py`.

    A network carries it as `naming`, and a pack as `naming.weight` (M,K) and `naming.offset` (M,2).
    """

    weight: Tensor
    offset: Tensor

    def __init__(self, weight: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.float())
        self.register_buffer("offset", offset.float())

    def forward(self, landmarks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks (B,K,2) in crop pixels and scores (B,K) -> points (B,M,2), scores (B,M)."""
        size = self.weight.abs()
        shares = size / size.sum(dim=1, keepdim=True)
        return self.weight @ landmarks + self.offset, scores @ shares.T


def find(model: LandmarkNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    """What `model` says of images (B,3,S,S) float in [0, 1]: its K landmarks, or named points.

    Returns (B,K,2) float32 in crop pixels and scores (B,K) in [0, 1].
    """
    maps = bottleneck.probabilities(model(images))
    cells = bottleneck.expectation(maps)
    landmarks, scores = to_pixels(cells), bottleneck.scores(maps, cells)
    return (landmarks, scores) if model.naming is None else model.naming(landmarks, scores)
