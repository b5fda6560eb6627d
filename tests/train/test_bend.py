"""Thin-plate splines: exact at the control points, smooth between, one law for image and points."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.train import augment
from lmk.train.augment import GRID, displacement, random_bend

SIZE = 64


def bend(seed, limit=0.08, batch=2):
    return random_bend(batch, SIZE, limit, torch.Generator().manual_seed(seed))


def controls():
    steps = torch.linspace(0, SIZE - 1, GRID)
    return torch.cartesian_prod(steps, steps).flip(1)[None]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), limit=st.floats(0.001, 0.2))
def test_control_points_move_by_what_was_drawn(seed, limit):
    draw = torch.Generator().manual_seed(seed)
    drawn = (torch.rand(2, GRID**2, 2, generator=draw) * 2 - 1) * limit * SIZE
    moved = displacement(controls(), bend(seed, limit), SIZE)
    torch.testing.assert_close(moved, drawn, atol=1e-3 * SIZE * limit, rtol=1e-3)


def test_no_limit_moves_nothing():
    points = torch.rand(2, 7, 2) * SIZE
    torch.testing.assert_close(displacement(points, bend(1, 0.0), SIZE), torch.zeros(2, 7, 2))


def test_near_points_move_alike():
    points = torch.rand(2, 50, 2) * (SIZE - 2) + 1
    there, beside = (displacement(p, bend(3), SIZE) for p in (points, points + 0.1))
    assert (there - beside).abs().max() < 0.1


def test_an_image_is_bent_as_points_are():
    spline, point = bend(5, 0.06), torch.tensor([[[28.0, 36.0]]]).expand(2, 1, 2)
    target = point + displacement(point, spline, SIZE)  # where the pixel (28, 36) is taken from
    steps = torch.arange(SIZE, dtype=torch.float32)
    x, y = (torch.exp(-((steps - target[:, 0, i, None]) ** 2) / 50) for i in (0, 1))
    images = (y[:, None, :, None] * x[:, None, None, :]).expand(-1, 3, -1, -1)
    bent = augment.warp(images, augment.centred(2, SIZE, SIZE), SIZE, bend=spline)
    assert bent[:, :, 36, 28] == pytest.approx(torch.ones(2, 3), abs=0.02)
