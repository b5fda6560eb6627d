"""Photographs before a plain background: what stands out, and when nothing is said."""

import numpy as np
import pytest

from lmk.train.datasets.decoded import decode
from lmk.train.datasets.find import open_dataset
from lmk.train.datasets.plain import is_plain, standing_out

SIDE = 80


@pytest.fixture
def photo():
    """A dark ring before nearly white, with the noise of a camera, and its mask without a hole."""
    y, x = np.mgrid[:SIDE, :SIDE]
    away = np.hypot(x - 45, y - 35)
    image = np.full((SIDE, SIDE, 3), 250.0)
    image[(away < 20) & (away >= 8)] = (90, 40, 20)
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8), away < 20


@pytest.fixture
def busy():
    return np.random.default_rng(1).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)


def test_the_object_is_what_stands_out_and_its_holes(photo):
    image, mask = photo
    found = standing_out(image)
    assert (found != mask).mean() < 0.005
    image[3, 3] = 0  # a speck
    assert not standing_out(image)[3, 3]


def test_an_object_that_is_cut_by_the_picture_is_found_still(photo):
    image, mask = photo
    cut, whole = image[:, :55], mask[:, :55]
    assert (standing_out(cut) != whole).mean() < 0.01


def test_nothing_is_said_of_other_pictures(photo, busy):
    image, mask = photo
    assert standing_out(busy) is None
    assert standing_out(np.full_like(image, 200)) is None  # there is no object
    tiny = np.full_like(image, 200)
    tiny[40:43, 40:43] = 0
    assert standing_out(tiny) is None
    shaded = np.where(mask[..., None], image, np.arange(SIDE, dtype=np.uint8)[:, None, None] * 3)
    assert standing_out(shaded) is None


def test_a_set_is_plain_if_most_of_it_is(photo, busy):
    image = photo[0]
    assert is_plain(np.stack([image] * 9 + [busy]))
    assert not is_plain(np.stack([image] * 7 + [busy] * 3))
    assert not is_plain(np.empty((0, SIDE, SIDE, 3), np.uint8))


def test_distances_to_the_object_are_kept_with_the_crops(photo, busy, tmp_path):
    from PIL import Image

    folder = tmp_path / "shoes"
    folder.mkdir()
    for number in range(10):
        Image.fromarray(busy if number == 9 else photo[0]).save(folder / f"{number}.png")
    for _ in "filled", "loaded":
        away = decode(open_dataset(str(folder), None), 64, "image", tmp_path / "cache").away
        assert away.shape == (10, SIDE, SIDE) and away.dtype == np.uint8
        assert away[0, 36, 30] == 0 and away[0, 36, 10] == pytest.approx(18, abs=2)
        assert not away[9].any()  # of one that is not plain nothing is known
    for number in range(4):
        Image.fromarray(busy).save(folder / f"{number}.png")
    assert decode(open_dataset(str(folder), None), 64, "image", tmp_path / "cache").away is None
