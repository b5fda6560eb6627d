"""Pairs: two views of one image, and how points move from one to the other."""

from dataclasses import replace

import torch

from lmk.train import augment
from lmk.train.adapting.pairs import OtherFrames, Pairs
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


def test_what_is_painted_from_may_be_another_frame(adapt_config, butterflies):
    films = tuple(("a" if n < 30 else "b", n % 2, n / 10) for n in range(40))
    data = replace(butterflies, films=films)
    frames, draw = OtherFrames(films, torch.arange(36), 1.0), torch.Generator().manual_seed(0)
    chosen = torch.arange(36).repeat(20)
    others = frames(chosen, draw)
    assert others.max() < 36 and (others != chosen).float().mean() > 0.6
    for one, other in zip(chosen.tolist(), others.tolist(), strict=True):
        assert films[one][:2] == films[other][:2] and abs(films[one][2] - films[other][2]) <= 1.0
    assert len(set(others[chosen == 14].tolist())) > 4
    lone = OtherFrames((("a", 0, 0.0), ("a", 0, 9.0)), torch.arange(2), 1.0)
    assert lone(torch.arange(2), draw).tolist() == [0, 1]

    same, pair = make(adapt_config, butterflies)(3), make(adapt_config, data, apart_s=1.0)(3)
    assert not same.other.numel() and pair.other.shape == pair.sources.shape
    assert torch.equal(pair.sources, same.sources) and torch.equal(pair.images, same.images)
    assert difference(pair.other, pair.sources) > 0.06
    still = make(adapt_config, data, apart_s=1.0).fixed(torch.arange(4))
    assert not still.other.numel()  # what a run is watched by


def test_turns_grow_about_the_heading(adapt_config, butterflies):
    """Images that are bright where the object heads: bright above at first, everywhere later."""
    headings = torch.linspace(-3, 3, 40)
    size = butterflies.images.shape[1]
    y, x = torch.meshgrid(*(torch.arange(size) - (size - 1) / 2,) * 2, indexing="ij")
    ahead = headings.cos()[:, None, None] * x + headings.sin()[:, None, None] * y
    images = (255 * (ahead > 0)[..., None].expand(-1, -1, -1, 3)).numpy().astype("uint8")
    data = replace(butterflies, images=images, headings=headings.numpy())
    films = tuple(("a", 0, n / 10) for n in range(40))
    config = replace(adapt_config(batch=36, rotation=180.0, shift=0.05, apart_s=2.0), input_size=64)
    pairs = Pairs(replace(data, films=films), torch.arange(36), config, torch.device("cpu"))

    def brighter_above(views):
        return (views[:, 0, :32].mean(dim=(1, 2)) - views[:, 0, 32:].mean(dim=(1, 2))) > 0.5

    start, end = pairs(3, progress=0.0), pairs(3, progress=config.turn_ramp)
    for views in (start.images, start.sources, start.other):
        assert brighter_above(views).all()
    for views in (end.images, end.sources, pairs.fixed(torch.arange(36)).images):
        assert 0 < brighter_above(views).sum() < 20
    # `between` goes from one view to the other at any time.
    for pair in (start, pairs(3, progress=0.3)):
        again = augment.warp(pair.sources, pair.between, 64)
        assert difference(again, pair.images) < 0.03
