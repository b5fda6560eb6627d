"""Pairs of images -> the loss of adaptation, term by term."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from lmk.train import augment, distributed, perceptual
from lmk.train.bottleneck import gaussian_maps, soft_argmax


class Objective(Protocol):
    """The part of an `AdaptConfig` that the loss depends on."""

    @property
    def equivariance(self) -> float: ...
    @property
    def separation(self) -> float: ...
    @property
    def sigma(self) -> float: ...
    @property
    def norm(self) -> str: ...
    @property
    def relative(self) -> bool: ...


def pair_losses(
    detector: nn.Module,
    painter: nn.Module,
    looks: perceptual.Features | None,
    images: Tensor,
    sources: Tensor,
    between: Tensor,
    config: Objective,
) -> dict[str, Tensor]:
    """The weighted terms of the loss for pairs y (`images`), y' (`sources`).

    pixel, perceptual: y painted from y' and the landmarks of y, against y (paper, eq. 1);
    equivariance: landmarks of y moved `between` must be those of y' (|Δ| in cells, those that
    leave the crop masked); separation: no two landmarks within about a cell.
    """
    batch, size = len(images), images.shape[-1] // augment.STRIDE
    both = torch.cat((images, sources)) if config.equivariance else images
    points = soft_argmax(detector(both))
    painted = painter(sources, gaussian_maps(points[:batch], size, config.sigma)).float()
    losses = {"pixel": (painted - images).square().mean()}
    if looks is not None:
        losses["perceptual"] = perceptual.distance(
            looks, painted, images, config.norm, config.relative
        )
    if config.equivariance:
        losses["equivariance"] = config.equivariance * equivariance(points, between, size)
    if config.separation:
        losses["separation"] = config.separation * separation(points)
    return losses


def equivariance(points: Tensor, between: Tensor, size: int) -> Tensor:
    """Mean |Δ| in cells between moved points of y and points of y': points (2B,K,2), y first."""
    first, second = points.chunk(2)
    moved = augment.to_cells(augment.move_points(augment.to_pixels(first), between))
    inside = ((moved >= 0) & (moved <= size - 1)).all(dim=2, keepdim=True)
    return distributed.mean_where((moved - second).abs().mean(dim=2, keepdim=True), inside)


def separation(points: Tensor, sigma: float = 1.0) -> Tensor:
    """Sum over a landmark's neighbours of exp(-d²/(2 sigma²)), in cells; mean over all (B,K,2)."""
    squared = (points[:, :, None] - points[:, None]).square().sum(dim=3)
    near = torch.exp(squared / (-2 * sigma**2))
    return near.sum(dim=2).mean() - 1  # each landmark is near itself
