"""Similarity warps: image and points moved by one matrix, a batch at a time, on any device.

A matrix (3,3) maps *output* pixels to *source* pixels, both as (x, y, 1) in the pixel-centre
convention; so images are sampled with the matrix and points are moved with its inverse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lmk.runtime.model import CELL_OFFSET, STRIDE

GRID = 5  # control points a side, evenly spread over the crop


@dataclass(frozen=True)
class Similarity:
    """Ranges of a random similarity about the image centre; draws are uniform."""

    rotation_deg: float = 20.0  # ±
    scale: float = 0.1  # factor exp(±log(1 + scale))
    shift: float = 0.08  # ± fraction of the crop side, in x and in y
    flip: float = 0.0  # probability of a mirror image


def centred(batch: int, source_size: int, size: int) -> Tensor:
    """Matrices (B,3,3) that cut the central `size` pixels out of `source_size` ones."""
    matrix = torch.eye(3)
    matrix[:2, 2] = (source_size - size) / 2
    return matrix.expand(batch, 3, 3)


def random_similarity(
    batch: int, source_size: int, size: int, spec: Similarity, generator: torch.Generator
) -> Tensor:
    """Random matrices (B,3,3) float32 on the CPU, output `size` px <- source `source_size` px.

    A positive rotation turns the object clockwise on the screen; a scale over 1 enlarges it.
    """

    def uniform(limit: float) -> Tensor:
        return (torch.rand(batch, generator=generator) * 2 - 1) * limit

    angle = uniform(math.radians(spec.rotation_deg))
    inverse_scale = torch.exp(-uniform(math.log1p(spec.scale)))
    shift_x, shift_y = uniform(spec.shift * size), uniform(spec.shift * size)
    mirror = 1 - 2 * (torch.rand(batch, generator=generator) < spec.flip).float()
    cos, sin = torch.cos(angle) * inverse_scale, torch.sin(angle) * inverse_scale
    zero, one = torch.zeros(batch), torch.ones(batch)
    linear = torch.stack(
        (cos * mirror, sin * mirror, zero, -sin, cos, zero, zero, zero, one), dim=1
    ).view(batch, 3, 3)
    to_centre = _translation(-(size - 1) / 2 - shift_x, -(size - 1) / 2 - shift_y)
    from_centre = _translation(*(torch.full((batch,), (source_size - 1) / 2) for _ in "xy"))
    return from_centre @ linear @ to_centre


def turns(angles: Tensor, size: int) -> Tensor:
    """Matrices (B,3,3) that turn a square of `size` px about its centre, clockwise on the screen.

    Angles (B,) are in radians.
    """
    cos, sin, middle = torch.cos(angles), torch.sin(angles), (size - 1) / 2
    x, y = middle - cos * middle - sin * middle, middle + sin * middle - cos * middle
    zero, one = torch.zeros_like(angles), torch.ones_like(angles)
    rows = torch.stack((cos, sin, x, -sin, cos, y, zero, zero, one), dim=-1)
    return rows.view(*angles.shape, 3, 3).float()


def _translation(x: Tensor, y: Tensor) -> Tensor:
    matrix = torch.eye(3).repeat(len(x), 1, 1)
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def warp(
    images: Tensor, matrices: Tensor, size: int, border: str = "border", bend: Tensor | None = None
) -> Tensor:
    """Sample images (B,3,S,S) float by matrices (B,3,3): (B,3,size,size), bilinear.

    `border` is "border" (replicate) or "reflection" for what lies outside the source. Splines
    `bend` (B,28,2), if there are any, move the output pixels before the matrices do.
    """
    source_size = images.shape[-1]
    steps = torch.arange(size, dtype=torch.float32, device=images.device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    pixels = torch.stack((x, y), dim=-1).view(1, -1, 2)
    if bend is not None and bend.numel():
        pixels = pixels + displacement(pixels, bend, size)
    source = move_points(pixels, matrices)
    grid = ((2 * source + 1) / source_size - 1).view(len(images), size, size, 2)
    return F.grid_sample(images, grid, padding_mode=border, align_corners=False)


def move_points(points: Tensor, matrices: Tensor) -> Tensor:
    """Apply matrices (B,3,3) to points (B,P,2): output points -> source points.

    With `torch.linalg.inv(matrices)` it moves source points to where `warp` puts them.
    """
    matrices = matrices.to(points)
    return points @ matrices[:, :2, :2].transpose(1, 2) + matrices[:, None, :2, 2]


def mirrored(matrices: Tensor) -> Tensor:
    """Which matrices (B,3,3) contain a mirror: bool (B,)."""
    return torch.linalg.det(matrices[:, :2, :2]) < 0


def random_gain(batch: int, limit: float, generator: torch.Generator) -> Tensor:
    """Random factors (B,3,1,1) of the channels in 1 ± `limit`, on the CPU."""
    return 1 + (torch.rand(batch, 3, 1, 1, generator=generator) * 2 - 1) * limit


def gain(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply each channel (B,3,H,W) by its factor (B,3,1,1); clipped to [0, 1]."""
    return (images * factors.to(images.device)).clamp(0, 1)


def to_cells(points: Tensor) -> Tensor:
    """Pixels of the crop -> heat-map cells; cell c is centred on pixel 4·c + 1.5."""
    return (points - CELL_OFFSET) / STRIDE


def to_pixels(points: Tensor) -> Tensor:
    """Heat-map cells -> pixels of the crop: the inverse of `to_cells`."""
    return points * STRIDE + CELL_OFFSET


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


def _controls(size: int, device: torch.device) -> Tensor:
    steps = torch.linspace(0, size - 1, GRID, device=device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), dim=1)
