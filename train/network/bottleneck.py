"""Heat-maps -> points -> Gaussian maps: the only way from detector to generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmk.train.augment import to_pixels
from lmk.train.network.hourglass import LandmarkNetwork

BETA = 10.0  # soft-argmax sharpness; the authors' temperature of 0.1
SCORE_RADIUS = 1.5  # cells around the point whose soft-max mass is its score


def _grid(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, dtype=torch.float32, device=like.device)


def probabilities(heatmaps: Tensor, beta: float = BETA) -> Tensor:
    """Soft-max over all cells of each map: (B,K,h,w) -> (B,K,h,w) float32, each summing to 1."""
    flat = (heatmaps.float() * beta).flatten(2)
    return flat.softmax(dim=2).view(heatmaps.shape)


def expectation(maps: Tensor) -> Tensor:
    """Mean position of probability maps (B,K,h,w): points (B,K,2) as (x, y) in cells."""
    x = (maps.sum(dim=2) * _grid(maps.shape[3], maps)).sum(dim=2)
    y = (maps.sum(dim=3) * _grid(maps.shape[2], maps)).sum(dim=2)
    return torch.stack((x, y), dim=2)


def soft_argmax(heatmaps: Tensor, beta: float = BETA) -> Tensor:
    """Heat-maps (B,K,h,w) -> points (B,K,2) float32, (x, y) in cells (paper, sec. 3.2)."""
    return expectation(probabilities(heatmaps, beta))


def scores(maps: Tensor, points: Tensor) -> Tensor:
    """Mass of probability maps (B,K,h,w) within 1.5 cells of points (B,K,2): (B,K) in [0, 1]."""
    return (maps * (squared_distances(points, maps) <= SCORE_RADIUS**2)).sum(dim=(2, 3))


def squared_distances(points: Tensor, like: Tensor) -> Tensor:
    """Squared distance in cells from each point (B,K,2) to each cell of maps (…,h,w): (B,K,h,w)."""
    x = (_grid(like.shape[-1], like) - points[..., 0:1]) ** 2
    y = (_grid(like.shape[-2], like) - points[..., 1:2]) ** 2
    return y[..., :, None] + x[..., None, :]


def gaussian_maps(points: Tensor, size: int, sigma: float = 0.5) -> Tensor:
    """Points (B,K,2) in cells -> maps (B,K,size,size): exp(-d²/(2 sigma²)), peak 1, sigma in cells.

    sigma 0.5 is the authors' exp(-d²/0.5). Gradients reach the points.
    """
    like = points.new_empty((size, size))
    return torch.exp(squared_distances(points, like) / (-2 * sigma**2))


def local_argmax(heatmaps: Tensor) -> Tensor:
    """Highest cell of each map (B,K,h,w), refined by the mean of its 3x3 surround: (B,K,2) cells.

    For maps that were regressed to Gaussians, where a weak peak must not be drawn to the centre.
    """
    size = heatmaps.shape[-1]
    best = heatmaps.flatten(2).argmax(dim=2)
    peak = torch.stack((best % size, best // size), dim=2).float()
    near = squared_distances(peak, heatmaps) <= 2
    weights = heatmaps.clamp(min=0) * near + 1e-6 * near
    return expectation(weights / weights.sum(dim=(2, 3), keepdim=True))


class NamingLayer(nn.Module):
    """K landmarks -> M points: weighted sums, and offsets in crop pixels.

    A network carries it as `naming`, and a pack as `naming.weight` (M,K) and `naming.offset` (M,2).
    The last `kept` points are the landmarks themselves, for following.
    """

    weight: Tensor
    offset: Tensor

    def __init__(self, weight: Tensor, offset: Tensor, kept: int = 0) -> None:
        super().__init__()
        self.kept = kept
        self.register_buffer("weight", weight.float())
        self.register_buffer("offset", offset.float())

    @classmethod
    def keeping(cls, weight: Tensor, offset: Tensor, kept: int) -> NamingLayer:
        """With the first `kept` landmarks behind the points that `weight` and `offset` make."""
        weights = torch.cat((weight, torch.eye(kept, weight.shape[1], dtype=weight.dtype)))
        return cls(weights, torch.cat((offset, torch.zeros(kept, 2, dtype=offset.dtype))), kept)

    def forward(self, landmarks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks (B,K,2) in crop pixels and scores (B,K) -> points (B,M,2), scores (B,M)."""
        size = self.weight.abs()
        shares = size / size.sum(dim=1, keepdim=True)
        return self.weight @ landmarks + self.offset, scores @ shares.T


def find(model: LandmarkNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    """What `model` says of images (B,3,S,S) float in [0, 1]: its K landmarks, or named points.

    Returns (B,K,2) float32 in crop pixels and scores (B,K) in [0, 1].
    """
    maps = probabilities(model(images))
    cells = expectation(maps)
    landmarks, found = to_pixels(cells), scores(maps, cells)
    return (landmarks, found) if model.naming is None else model.naming(landmarks, found)


def find_given(model: LandmarkNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    """As `find`, without the landmarks that a pack of named points keeps for following."""
    points, scores = find(model, images)
    kept = model.naming.kept if isinstance(model.naming, NamingLayer) else 0
    given = points.shape[1] - kept
    return points[:, :given], scores[:, :given]
