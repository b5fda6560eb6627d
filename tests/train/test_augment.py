"""Warps: points and pixels move alike, by one matrix."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.train import augment
from lmk.train.augment import GRID, Similarity, displacement, random_bend

SOURCE, SIZE = 80, 64


def draw(seed):
    return torch.Generator().manual_seed(seed)


def blobs(points, size=SOURCE, sigma=2.0):
    """Images (B,3,size,size) with a bright Gaussian at each of points (B,2), pixels."""
    steps = torch.arange(size, dtype=torch.float32)
    x = torch.exp(-((steps - points[:, :1]) ** 2) / (2 * sigma**2))
    y = torch.exp(-((steps - points[:, 1:]) ** 2) / (2 * sigma**2))
    return (y[:, None, :, None] * x[:, None, None, :]).expand(-1, 3, -1, -1)


def centroids(images):
    """Where the mass of images (B,3,S,S) lies: (B,2)."""
    mass = images.mean(dim=1)
    steps = torch.arange(images.shape[-1], dtype=torch.float32)
    total = mass.sum(dim=(1, 2))
    return torch.stack(
        ((mass.sum(dim=1) * steps).sum(1) / total, (mass.sum(dim=2) * steps).sum(1) / total), dim=1
    )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    rotation=st.floats(0, 180),
    scale=st.floats(0, 0.5),
    shift=st.floats(0, 0.1),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_points_and_pixels_move_alike(seed, rotation, scale, shift, flip):
    spec = Similarity(rotation, scale, shift, flip)
    matrices = augment.random_similarity(6, SOURCE, SIZE, spec, draw(seed))
    points = (SOURCE - 1) / 2 + (torch.rand(6, 2, generator=draw(seed + 1)) - 0.5) * 16
    moved = augment.move_points(points[:, None], torch.linalg.inv(matrices))[:, 0]
    found = centroids(augment.warp(blobs(points), matrices, SIZE))
    assert (found - moved).abs().max() < 0.1  # bilinear sampling keeps a blob's middle
    back = augment.move_points(moved[:, None], matrices)[:, 0]
    torch.testing.assert_close(back, points, atol=1e-3, rtol=0)


def test_the_nominal_similarity_is_the_central_crop():
    images = torch.rand(2, 3, SOURCE, SOURCE)
    spec = Similarity(0.0, 0.0, 0.0)
    still = augment.random_similarity(2, SOURCE, SIZE, spec, draw(0))
    torch.testing.assert_close(still, augment.centred(2, SOURCE, SIZE))
    crop = augment.warp(images, augment.centred(2, SOURCE, SIZE), SIZE)
    torch.testing.assert_close(crop, images[:, :, 8:72, 8:72], atol=1e-5, rtol=0)


def test_directions():
    """A positive rotation is clockwise on the screen, a scale over 1 enlarges, a shift adds."""
    limits = Similarity(rotation_deg=90.0, scale=1.0, shift=0.25)
    matrices = augment.random_similarity(200, SIZE, SIZE, limits, draw(3))
    # The same draws once more, in the order in which the function makes them.
    again = draw(3)
    angle, log_scale, x, y = (torch.rand(200, generator=again) * 2 - 1 for _ in range(4))
    centre = (SIZE - 1) / 2
    east = torch.tensor([[centre, centre], [centre + 10, centre]]).expand(200, 2, 2)
    moved = augment.move_points(east, torch.linalg.inv(matrices))
    middle = torch.stack((centre + 0.25 * SIZE * x, centre + 0.25 * SIZE * y), dim=1)
    torch.testing.assert_close(moved[:, 0], middle, atol=1e-2, rtol=0)
    radians, length = angle * math.pi / 2, 10 * torch.exp(log_scale * math.log(2))
    arm = torch.stack((torch.cos(radians), torch.sin(radians)), dim=1) * length[:, None]
    torch.testing.assert_close(moved[:, 1] - moved[:, 0], arm, atol=1e-2, rtol=0)


@given(st.integers(0, 1000))
def test_draws_stay_within_their_limits(seed):
    spec = Similarity(20.0, 0.1, 0.08)
    matrices = augment.random_similarity(16, SOURCE, SIZE, spec, draw(seed))
    factors = 1 / torch.linalg.det(matrices[:, :2, :2]).sqrt()
    assert factors.min() >= 1 / 1.1 - 1e-4 and factors.max() <= 1.1 + 1e-4
    angles = torch.atan2(matrices[:, 0, 1], matrices[:, 0, 0]).rad2deg()
    assert angles.abs().max() <= 20.01
    centre = torch.full((16, 1, 2), (SOURCE - 1) / 2)
    middle = augment.move_points(centre, torch.linalg.inv(matrices)) - (SIZE - 1) / 2
    assert middle.abs().max() <= 0.08 * SIZE + 1e-3


def test_the_generator_decides():
    spec = Similarity(20.0, 0.1, 0.08, 0.5)
    first, same, other = (
        augment.random_similarity(4, SOURCE, SIZE, spec, draw(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert len({tuple(m.flatten().tolist()) for m in first}) == 4  # one for each image


def test_mirrors():
    spec = Similarity(30.0, 0.2, 0.1, flip=0.5)
    matrices = augment.random_similarity(400, SOURCE, SIZE, spec, draw(0))
    mirrored = augment.mirrored(matrices)
    assert 150 < mirrored.sum() < 250
    assert not augment.mirrored(augment.centred(3, SOURCE, SIZE)).any()
    # With nothing but a mirror, the left column comes out on the right.
    always = Similarity(0.0, 0.0, 0.0, flip=1.0)
    images = torch.rand(1, 3, SIZE, SIZE)
    flipped = augment.warp(images, augment.random_similarity(1, SIZE, SIZE, always, draw(0)), SIZE)
    torch.testing.assert_close(flipped, images.flip(3), atol=1e-5, rtol=0)


def test_warps_compose():
    """Two warps are one by the product of their matrices, away from the border."""
    points = torch.tensor([[36.0, 42.0], [44.0, 35.0]])
    spec = Similarity(15.0, 0.1, 0.03)
    first = augment.random_similarity(2, SOURCE, SIZE, spec, draw(1))
    second = augment.random_similarity(2, SIZE, SIZE, spec, draw(2))
    images = blobs(points, sigma=4.0)
    twice = augment.warp(augment.warp(images, first, SIZE), second, SIZE)
    once = augment.warp(images, first @ second, SIZE)
    torch.testing.assert_close(twice, once, atol=0.02, rtol=0)
    assert (once - augment.warp(images, first, SIZE)).abs().max() > 0.1


@pytest.mark.parametrize(("border", "outside"), [("border", 1.0), ("reflection", 0.0)])
def test_borders(border, outside):
    images = torch.zeros(1, 3, 16, 16)
    images[..., 0] = 1.0  # a bright left column
    shifted = torch.eye(3)[None].clone()
    shifted[0, 0, 2] = -4.0  # four pixels from beyond the left border
    warped = augment.warp(images, shifted, 16, border)
    assert warped[0, 0, 8, 4] == pytest.approx(1.0, abs=1e-4)
    assert warped[0, 0, 8, 1] == pytest.approx(outside, abs=1e-4)


def test_move_points_keeps_what_is_missing():
    points = torch.tensor([[[math.nan, math.nan], [3.0, 4.0]]])
    moved = augment.move_points(points, augment.centred(1, SOURCE, SIZE))
    assert moved[0, 0].isnan().all()
    assert moved[0, 1].tolist() == [11.0, 12.0]


def test_gain_is_one_factor_a_channel():
    images = torch.rand(5, 3, 8, 8) * 0.5 + 0.2
    factors = augment.gain(images, augment.random_gain(len(images), 0.2, draw(0))) / images
    assert (factors.amax(dim=(2, 3)) - factors.amin(dim=(2, 3))).max() < 1e-5
    each = factors.mean(dim=(2, 3))
    assert each.min() >= 0.8 and each.max() <= 1.2 and each.std() > 0.05
    strong = augment.random_gain(9, 0.5, draw(0))
    assert augment.gain(torch.ones(9, 3, 4, 4), strong).max() == 1.0  # clipped
    none = augment.random_gain(len(images), 0.0, draw(0))
    assert torch.equal(augment.gain(images, none), images)


def test_cells_and_pixels():
    cells = torch.tensor([[0.0, 0.0], [31.0, 5.5]])
    assert augment.to_pixels(cells).tolist() == [[1.5, 1.5], [125.5, 23.5]]
    torch.testing.assert_close(augment.to_cells(augment.to_pixels(cells)), cells)


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
