"""The loss terms: zero where they should be, positive elsewhere, pulling the right way."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lmk.train import augment
from lmk.train.adapting.objective import (
    equivariance,
    from_identity,
    off_object,
    painted_share,
    pair_losses,
    separation,
)
from lmk.train.adapting.pairs import PairBatch
from lmk.train.augment import displacement, random_bend
from lmk.train.network.bottleneck import gaussian_maps
from lmk.train.network.hourglass import HourglassConfig, LandmarkNetwork
from lmk.train.network.projection import project

SIZE = 16  # cells


def similarity(seed, batch=3):
    spec = augment.Similarity(20.0, 0.1, 0.05)
    draw = torch.Generator().manual_seed(seed)
    return augment.random_similarity(batch, 64, 64, spec, draw)


def views(between, bend=None):
    """A pair of which only the geometry matters."""
    blank = torch.zeros(len(between), 3, 64, 64)
    return (
        PairBatch(blank, blank, between) if bend is None else PairBatch(blank, blank, between, bend)
    )


def moved_by(points, between):
    return augment.to_cells(augment.move_points(augment.to_pixels(points), between))


def test_equivariance_is_zero_for_points_that_move_with_the_image():
    torch.manual_seed(0)
    first, between = torch.rand(3, 5, 2) * 6 + 4, similarity(1)
    loss = equivariance(torch.cat((first, moved_by(first, between))), views(between))
    assert loss == pytest.approx(0, abs=1e-5)


def test_equivariance_is_the_mean_distance_in_cells():
    torch.manual_seed(0)
    first, between = torch.rand(3, 5, 2) * 6 + 4, similarity(1)
    off = moved_by(first, between) + torch.tensor([0.5, -1.5])
    loss = equivariance(torch.cat((first, off)), views(between))
    assert loss == pytest.approx(1.0, abs=1e-4)
    still = equivariance(torch.cat((first, first)), views(between))
    assert still > 0.2  # the image moved and the points did not


def test_equivariance_masks_what_leaves_the_crop():
    between = torch.eye(3)[None].clone()
    between[0, 0, 2] = 8.0  # two cells to the right
    first = torch.tensor([[[14.5, 8.0], [5.0, 8.0]]])
    second = torch.tensor([[[0.0, 0.0], [7.0, 8.0]]])
    assert equivariance(torch.cat((first, second)), views(between)) == pytest.approx(0, abs=1e-5)
    gone = torch.full((1, 2, 2), 15.0)
    assert equivariance(torch.cat((gone, second)), views(between)) == 0


def test_separation_is_zero_for_far_points_and_largest_for_one_place():
    grid = torch.tensor([[[0.0, 0.0], [6.0, 0.0], [0.0, 6.0], [6.0, 6.0]]])
    assert separation(grid, 1.0) == pytest.approx(0, abs=1e-6)
    assert separation(grid * 0, 1.0) == pytest.approx(3)  # three neighbours each
    near = torch.tensor([[[5.0, 5.0], [6.0, 5.0]]])
    assert separation(near, 1.0) == pytest.approx(math.exp(-0.5))
    assert separation(near, 3.0) == pytest.approx(math.exp(-1 / 18))


def test_off_object_is_how_many_cells_the_maps_lie_beside_it():
    away = torch.zeros(1, 2, 64, 64)
    away[:, 0] = (torch.arange(64.0) - 31.5).clamp(min=0)  # y: an object that fills the left half
    maps = torch.zeros(2, 2, SIZE, SIZE)
    maps[0, 0, 3, 2] = maps[0, 1, 3, 11] = 1  # on it, and 3.5 cells beside it
    maps[1, :, 5, 5] = 1  # y' is all object
    assert off_object(maps, away) == pytest.approx((11 - 7.5 - 0.5) / 4)
    assert off_object(maps[:1], away) == pytest.approx((11 - 7.5 - 0.5) / 2)  # y alone
    spread = torch.full((1, 1, SIZE, SIZE), 0.0, requires_grad=True)
    off_object(spread.flatten(2).softmax(2).view(spread.shape), away).backward()
    assert (spread.grad[..., 14] > 0).all() and (spread.grad[..., 3] < 0).all()  # towards it


def test_beside_the_object_nothing_is_painted():
    away = torch.tensor([0.0, 4.0, 6.0, 8.0, 90.0])
    assert painted_share(away).tolist() == [1, 1, 0.5, 0, 0]


def test_separation_pushes_apart():
    points = torch.tensor([[[5.0, 5.0], [6.0, 5.0]]], requires_grad=True)
    separation(points, 1.0).backward()
    (left, right), downhill = points.grad[0], -points.grad[0]
    assert downhill[0, 0] < 0 < downhill[1, 0]
    assert left[1] == right[1] == 0


class Detector(nn.Module):
    """Finds the one bright blob of an image: heat-maps are the channels, pooled."""

    def forward(self, images):
        return torch.nn.functional.avg_pool2d(images, 4) * 3


class Painter(nn.Module):
    """Keeps what it was given and returns a grey image."""

    def forward(self, images, maps):
        self.maps, self.images = maps, images
        return torch.full_like(images, 0.5)


def config(equivariance=0.0, separation=0.0, identity=0.0, off_object=0.0):
    return SimpleNamespace(
        off_object=off_object,
        equivariance=equivariance,
        separation=separation,
        spacing=2.0,
        identity=identity,
        sigma=0.5,
        norm="l1",
        relative=False,
    )


@pytest.fixture
def pair():
    torch.manual_seed(0)
    points = torch.tensor([[20.0, 30.0], [40.0, 22.0]])
    images = _spots(points)
    between = torch.eye(3).repeat(2, 1, 1)
    between[:, 0, 2] = 8.0
    return PairBatch(images, _spots(points + torch.tensor([8.0, 0.0])), between)


def _spots(points):
    """Images (B,3,64,64): a spot in every channel, 8 px apart from one to the next."""
    cells = torch.stack(
        [augment.to_cells(points + 8 * torch.tensor([0.0, c])) for c in range(3)], 1
    )
    maps = gaussian_maps(cells, SIZE, sigma=0.7)
    return torch.nn.functional.interpolate(maps, scale_factor=4, mode="nearest")


def test_the_painter_gets_the_other_image_and_the_landmarks_of_this_one(pair):
    images, painter = pair.images, Painter()
    losses = pair_losses(Detector(), painter, None, pair, config(equivariance=1.0))
    assert torch.equal(painter.images, pair.sources)
    peaks = painter.maps.flatten(2).argmax(dim=2)
    assert torch.equal(peaks, Detector()(images).flatten(2).argmax(dim=2))
    assert losses["pixel"] == pytest.approx(float((images - 0.5).square().mean()))
    assert losses["equivariance"] < 0.2  # this detector follows the spots


def test_terms_are_weighted_and_left_out(pair):
    still = pair._replace(between=torch.eye(3).repeat(2, 1, 1))  # which is not what happened

    def terms(**options):
        return pair_losses(Detector(), Painter(), None, still, config(**options))

    assert set(terms()) == {"pixel"}
    one, three = terms(separation=1.0, equivariance=1.0), terms(separation=3.0, equivariance=3.0)
    assert set(one) == {"pixel", "equivariance", "separation"}
    for name in ("equivariance", "separation"):
        assert one[name] > 0
        torch.testing.assert_close(three[name], 3 * one[name])


def test_only_the_object_needs_to_be_painted(pair):
    away = torch.full((2, 2, 64, 64), 99.0)
    away[:, 0, 10:20, 10:30] = 0
    losses = pair_losses(Detector(), Painter(), None, pair._replace(away=away), config())
    inside = (pair.images - 0.5)[:, :, 10:20, 10:30].square().sum() / pair.images.numel()
    assert losses["pixel"] == pytest.approx(float(inside), rel=1e-4)
    weighted = pair_losses(
        Detector(), Painter(), None, pair._replace(away=away), config(off_object=2.0)
    )
    assert weighted["off_object"] > 0


def test_perceptual_term_compares_features(pair):
    losses = pair_losses(Detector(), Painter(), lambda x: [x * 2], pair, config())
    expected = float((2 * (pair.images - 0.5)).abs().mean())
    assert losses["perceptual"] == pytest.approx(expected, rel=1e-4)  # summed in float32


def test_equivariance_is_zero_for_points_that_bend_with_the_image():
    torch.manual_seed(0)
    first, between = torch.rand(3, 5, 2) * 6 + 4, similarity(1)
    bend = random_bend(3, 64, 0.05, torch.Generator().manual_seed(2))
    pixels = augment.to_pixels(first)
    bent = augment.to_cells(pixels + displacement(pixels, bend, 64))
    both = torch.cat((first, moved_by(bent, between)))
    assert equivariance(both, views(between, bend)) == pytest.approx(0, abs=1e-5)
    assert equivariance(both, views(between)) > 0.1


def test_only_the_detector_sees_other_colours(pair):
    seen, painter = [], Painter()

    def detector(images):
        seen.append(images)
        return Detector()(images)

    gains = torch.full((2, 2, 3, 1, 1), 0.5)
    gains[:, 1] = 0.25
    losses = pair_losses(
        detector, painter, None, pair._replace(gains=gains), config(equivariance=1.0)
    )
    torch.testing.assert_close(seen[0], torch.cat((pair.images * 0.5, pair.sources * 0.25)))
    assert torch.equal(painter.images, pair.sources)
    assert losses["pixel"] == pytest.approx(float((pair.images - 0.5).square().mean()))


def test_identity_is_the_mean_square_distance_of_each_projection():
    model = project(LandmarkNetwork(HourglassConfig(3, width=16, input_size=64)), 5)
    assert float(from_identity(model).detach()) == 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("projection"):
                parameter += 0.5 * torch.eye(len(parameter))
    loss = from_identity(model)
    assert float(loss.detach()) == pytest.approx(0.25)
    loss.backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None}
    assert moved and all(name.endswith("projection") for name in moved)
