"""The bottleneck: points -> maps -> points, and what the maps are."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmk.train.network.bottleneck import (
    BETA,
    expectation,
    gaussian_maps,
    local_argmax,
    probabilities,
    scores,
    soft_argmax,
)

inner = st.floats(3.0, 12.0, width=32)


def points_of(*xy):
    return torch.tensor(xy, dtype=torch.float32).view(1, -1, 2)


@given(x=st.floats(4.0, 11.0, width=32), y=st.floats(4.0, 11.0, width=32))
def test_soft_argmax_finds_the_middle_of_a_gaussian(x, y):
    # The Gaussian is the soft-max itself; 0.01 is what the border of the map cuts off.
    maps = gaussian_maps(points_of(x, y), 16, sigma=1.0).clamp(min=1e-30).log() / BETA
    assert (soft_argmax(maps) - points_of(x, y)).abs().max() < 0.01


@given(x=st.integers(3, 12), y=st.integers(3, 12))
def test_soft_argmax_of_the_maps_that_the_generator_gets(x, y):
    # A peak of exp(10) in 255 cells of 1 draws the point up to 0.1 to the middle.
    found = soft_argmax(gaussian_maps(points_of(x, y), 16))
    assert (found - points_of(x, y)).abs().max() < 0.1


@given(x=st.floats(1.0, 14.0, width=32), y=st.floats(1.0, 14.0, width=32))
def test_a_map_of_log_probabilities_gives_its_mean_exactly(x, y):
    # Linear interpolation between four cells: a distribution whose mean is the point.
    ramp = torch.arange(16.0)
    weights_x = (1 - (ramp - x).abs()).clamp(min=0)
    weights_y = (1 - (ramp - y).abs()).clamp(min=0)
    maps = (weights_y[:, None] * weights_x[None]).clamp(min=1e-30).log()[None, None] / BETA
    torch.testing.assert_close(soft_argmax(maps), points_of(x, y), atol=1e-4, rtol=0)


def test_gaussian_values():
    maps = gaussian_maps(points_of((5.0, 9.0), (5.5, 9.0)), 16)
    assert maps.shape == (1, 2, 16, 16)
    peak, between = maps[0]
    assert peak[9, 5] == 1  # row y, column x
    for row, column in ((9, 4), (9, 6), (8, 5), (10, 5)):
        assert peak[row, column] == pytest.approx(math.exp(-2), abs=1e-6)  # 0.135
    assert peak[8, 4] == pytest.approx(math.exp(-4), abs=1e-6)  # 0.018
    assert between[9, 5] == between[9, 6] == pytest.approx(math.exp(-0.5), abs=1e-6)
    wide = gaussian_maps(points_of(5.0, 9.0), 16, sigma=2.0)
    assert wide[0, 0, 9, 7] == pytest.approx(math.exp(-0.5), abs=1e-6)


def test_gaussian_gradients_reach_the_points():
    points = points_of(5.3, 9.0).requires_grad_(True)
    gaussian_maps(points, 16)[0, 0, 9, 6].backward()
    dx, dy = points.grad[0, 0]
    assert dx > 0.5 and dy == 0  # moving right raises the cell to the right


def test_expectation_is_x_then_y():
    maps = torch.zeros(1, 1, 4, 8)
    maps[0, 0, 1, 6] = 0.75
    maps[0, 0, 3, 2] = 0.25
    torch.testing.assert_close(expectation(maps), points_of(5.0, 1.5))


def test_probabilities_sum_to_one_in_float32():
    maps = (torch.randn(2, 3, 16, 16) * 50).bfloat16()
    mass = probabilities(maps)
    assert mass.dtype == torch.float32 and mass.shape == maps.shape
    torch.testing.assert_close(mass.sum(dim=(2, 3)), torch.ones(2, 3))


@given(spread=st.floats(0.0, 100.0), seed=st.integers(0, 1000))
def test_scores_are_shares(spread, seed):
    maps = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * spread
    mass = probabilities(maps)
    values = scores(mass, expectation(mass))
    assert values.shape == (2, 3)
    assert values.min() >= 0 and values.max() <= 1 + 1e-5


def test_scores_of_sure_unsure_and_torn_maps():
    maps = torch.zeros(1, 3, 16, 16)
    maps[0, 0, 8, 8] = 10.0  # one cell
    maps[0, 2, 2, 2] = maps[0, 2, 13, 13] = 10.0  # two far cells: the mean lies on neither
    mass = probabilities(maps)
    sure, unsure, torn = scores(mass, expectation(mass))[0]
    assert sure > 0.999 and torn < 1e-6
    # The point of the flat map lies between four cells; the next are 1.58 away.
    assert unsure == pytest.approx(4 / 256, abs=1e-4)


@given(x=inner, y=inner)
def test_local_argmax_finds_the_peak(x, y):
    found = local_argmax(gaussian_maps(points_of(x, y), 16, sigma=1.0))
    assert (found - points_of(x, y)).abs().max() < 0.5


def test_local_argmax_is_not_drawn_by_what_is_far():
    maps = 0.4 * gaussian_maps(points_of((11.0, 4.0)), 16, sigma=1.0)
    alone = local_argmax(maps)
    maps += 0.3 * gaussian_maps(points_of((2.0, 13.0)), 16, sigma=1.0)
    torch.testing.assert_close(local_argmax(maps), alone, atol=1e-3, rtol=0)
    torch.testing.assert_close(alone, points_of(11.0, 4.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_local_argmax_of_maps_without_a_peak(value):
    found = local_argmax(torch.full((1, 1, 16, 16), value))
    assert found.isfinite().all() and found.min() >= 0 and found.max() <= 15


@pytest.mark.parametrize("corner", [(0.0, 0.0), (15.0, 0.0), (15.0, 15.0)])
def test_local_argmax_in_a_corner(corner):
    found = local_argmax(gaussian_maps(points_of(corner), 16, sigma=1.0))
    assert found.min() >= 0 and found.max() <= 15
    assert (found - points_of(corner)).abs().max() < 0.6
