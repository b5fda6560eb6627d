"""Pairs of images -> the loss of adaptation, term by term."""

from __future__ import annotations

import functools
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmk.train import augment, distributed
from lmk.train.adapting.pairs import PairBatch
from lmk.train.augment import displacement
from lmk.train.network import (
    ProjectedConv2d,
    expectation,
    gaussian_maps,
    perceptual,
    probabilities,
)


class Objective(Protocol):
    """The part of an `AdaptConfig` that the loss depends on."""

    @property
    def equivariance(self) -> float: ...
    @property
    def separation(self) -> float: ...
    @property
    def spacing(self) -> float: ...
    @property
    def off_object(self) -> float: ...
    @property
    def identity(self) -> float: ...
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
    pair: PairBatch,
    config: Objective,
) -> dict[str, Tensor]:
    """The weighted terms of the loss for pairs y, y'.

    pixel, perceptual: y painted from y' and the landmarks of y, against y (paper, eq. 1);
    equivariance: landmarks of y moved as the image was must be those of y' (|Δ| in cells, those
    that leave the crop masked); separation: no two landmarks within about `spacing` cells;
    off_object: their maps lie on the object; identity: ours. Where it is known what is the object,
    nothing else needs to be painted right.
    """
    images, sources = pair.images, pair.sources
    batch, size = len(images), images.shape[-1] // augment.STRIDE
    maps = probabilities(detector(_seen(pair, both=config.equivariance > 0)))
    points = expectation(maps)
    seen = pair.other if pair.other.numel() else sources
    painted = painter(seen, gaussian_maps(points[:batch], size, config.sigma)).float()
    if pair.away.numel():
        painted = torch.lerp(images, painted, painted_share(pair.away[:, :1]))
    losses = {"pixel": (painted - images).square().mean()}
    if looks is not None:
        losses["perceptual"] = perceptual.distance(
            looks, painted, images, config.norm, config.relative
        )
    if config.equivariance:
        losses["equivariance"] = config.equivariance * equivariance(points, pair)
    if config.separation:
        losses["separation"] = config.separation * separation(points, config.spacing)
    if config.off_object and pair.away.numel():
        losses["off_object"] = config.off_object * off_object(maps, pair.away)
    if config.identity:
        losses["identity"] = config.identity * from_identity(detector)
    return losses


def _seen(pair: PairBatch, both: bool) -> Tensor:
    """What the detector sees: y, or y and y' (2B,3,H,W), in other colours if there are any."""
    views = [pair.images, pair.sources] if both else [pair.images]
    if pair.gains.numel():
        views = [augment.gain(view, pair.gains[:, i]) for i, view in enumerate(views)]
    return torch.cat(views)


def equivariance(points: Tensor, pair: PairBatch) -> Tensor:
    """Mean |Δ| in cells between moved points of y and points of y': points (2B,K,2), y first."""
    first, second = points.chunk(2)
    side = pair.images.shape[-1]
    size, pixels = side // augment.STRIDE, augment.to_pixels(first)
    if pair.bend.numel():
        pixels = pixels + displacement(pixels, pair.bend, side)
    moved = augment.to_cells(augment.move_points(pixels, pair.between))
    inside = ((moved >= 0) & (moved <= size - 1)).all(dim=2, keepdim=True)
    return distributed.mean_where((moved - second).abs().mean(dim=2, keepdim=True), inside)


def separation(points: Tensor, sigma: float) -> Tensor:
    """Sum over a landmark's neighbours of exp(-d²/(2 sigma²)), in cells; mean over all (B,K,2)."""
    squared = (points[:, :, None] - points[:, None]).square().sum(dim=3)
    near = torch.exp(squared / (-2 * sigma**2))
    return near.sum(dim=2).mean() - 1  # each landmark is near itself


def painted_share(away: Tensor) -> Tensor:
    """1 on the object and up to a cell beside it, 0 from two cells on; away (…) in pixels."""
    return (2 - away / augment.STRIDE).clamp(0, 1)


def off_object(maps: Tensor, away: Tensor) -> Tensor:
    """Mean over landmarks of how many cells the mass of their maps lies off the object.

    maps: probabilities (V·B,K,h,w), of y first; away (B,2,H,W) in pixels. Less than half a cell off
    is on it.
    """
    cells = functional.avg_pool2d(away, augment.STRIDE) / augment.STRIDE  # (B,2,h,w)
    cells = torch.cat(cells.unbind(1))[: len(maps), None]
    return (maps * (cells - 0.5).clamp(min=0)).sum(dim=(2, 3)).mean()


def from_identity(detector: nn.Module) -> Tensor:
    """Mean over the projections W (C,C) of |W - I|² / C."""
    layers = [m.projection for m in detector.modules() if isinstance(m, ProjectedConv2d)]
    if not layers:
        return torch.zeros((), device=next(detector.parameters()).device)
    eye = functools.partial(torch.eye, device=layers[0].device)
    return torch.stack([(w - eye(len(w))).square().sum() / len(w) for w in layers]).mean()
