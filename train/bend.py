"""Thin-plate splines: smooth random deformations of a crop (Bookstein 1989), a batch at a time."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

GRID = 5  # control points a side, evenly spread over the crop


def random_bend(batch: int, size: int, limit: float, generator: torch.Generator) -> Tensor:
    """Splines (B,28,2) for crops of `size` pixels, on the CPU; see `displacement`.

    Each of the 25 control points is moved by up to ± `limit` of the crop side in x and in y.
    """
    moves = (torch.rand(batch, GRID**2, 2, generator=generator) * 2 - 1) * limit * size
    controls = _controls(size, moves.device)
    system = torch.zeros(GRID**2 + 3, GRID**2 + 3)
    system[: GRID**2] = _basis(controls, size)
    system[GRID**2 :, : GRID**2] = system[: GRID**2, GRID**2 :].T  # side conditions: no affine part
    rhs = torch.cat((moves, torch.zeros(batch, 3, 2)), dim=1)
    return torch.linalg.solve(system.double(), rhs.double()).float()


def displacement(points: Tensor, bend: Tensor, size: int) -> Tensor:
    """By how much splines (B,28,2) move points (B,N,2), or the same (1,N,2) for all: (B,N,2).

    Both in pixels of the crop of `size`, (x, y).
    """
    return _basis(points, size) @ bend.to(points)


def _basis(points: Tensor, size: int) -> Tensor:
    """U(r) = r² log r² to each control point, then 1, x, y: (…,N,2) -> (…,N,28); in crop sides."""
    away = points[..., :, None, :] - _controls(size, points.device)
    squared = away.square().sum(dim=-1) / size**2
    radial = squared * squared.clamp(min=1e-9).log()
    ones = torch.ones_like(points[..., :1])
    return torch.cat((radial, ones, points / size), dim=-1)


@functools.cache
def _controls(size: int, device: torch.device) -> Tensor:
    steps = torch.linspace(0, size - 1, GRID, device=device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), dim=1)
