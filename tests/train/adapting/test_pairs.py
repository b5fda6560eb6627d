"""Pairs: two views of one image, and how points move from one to the other."""

from dataclasses import replace

import torch

from lmk.train import augment
from lmk.train.adapting.pairs import Pairs
from lmk.train.augment import displacement


def make(adapt_config, data, **options):
    config = replace(adapt_config(batch=36, rotation=15.0, shift=0.05, **options), input_size=64)
    return Pairs(data, torch.arange(36), config, torch.device("cpu"))


def difference(one, other):
    """Mean over the middle, which both views show."""
    middle = (..., slice(16, 48), slice(16, 48))
    return (one[middle] - other[middle]).abs().mean()


def test_pairs_are_two_views_of_one_image(adapt_config, butterflies):
    pairs = make(adapt_config, butterflies)
    pair = pairs(3)
    # `between` moves pixels of y to where they are in y': sampling y' there gives y again.
    assert difference(augment.warp(pair.sources, pair.between, 64), pair.images) < 0.03
    assert difference(pair.sources, pair.images) > 0.06
    for first, second in zip(pairs(3), pairs(3), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(pairs(4).between, pair.between)


def test_bent_pairs_are_views_of_one_image_too(adapt_config, butterflies):
    straight, bent = (
        make(adapt_config, butterflies)(3),
        make(adapt_config, butterflies, bend=0.1)(3),
    )
    again = augment.warp(bent.sources, bent.between, 64, bend=bent.bend)
    assert difference(again, bent.images) < 0.03
    unbent = augment.warp(bent.sources, bent.between, 64)
    assert difference(unbent, bent.images) > difference(again, bent.images) + 0.02
    assert torch.equal(straight.sources, bent.sources)  # only y is bent, and nothing else is drawn


def test_colours_leave_the_images_alone(adapt_config, butterflies):
    plain = make(adapt_config, butterflies)(3)
    coloured = make(adapt_config, butterflies, jitter=0.3)(3)
    assert torch.equal(plain.images, coloured.images)
    assert coloured.gains.shape == (36, 2, 3, 1, 1)
    assert 0.7 <= coloured.gains.min() < 0.75 and 1.25 < coloured.gains.max() <= 1.3
    assert not torch.equal(coloured.gains[:, 0], coloured.gains[:, 1])


def test_a_bend_moves_a_marked_pixel_to_where_the_points_go(adapt_config, butterflies):
    pair = make(adapt_config, butterflies, bend=0.1)(0)
    points = torch.tensor([[[30.0, 30.0], [40.0, 22.0]]]).expand(36, 2, 2)
    moved = augment.move_points(points + displacement(points, pair.bend, 64), pair.between)
    assert (moved - augment.move_points(points, pair.between)).norm(dim=2).max() > 1.0
