"""Photographs before a plain background: what stands out, and when nothing is said."""

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.runtime.owner import check_same
from lmk.train.datasets.decoded import decode
from lmk.train.datasets.find import open_dataset
from lmk.train.datasets.plain import standing_out

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
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    pool = np.clip(245 - np.hypot(x, y) * 1.2, 0, 255)[..., None]  # of light, darker at the rim
    pool = np.where((np.hypot(x, y) < 6)[..., None], 20, pool)
    assert standing_out(np.broadcast_to(pool, image.shape).astype(np.uint8)) is None


@pytest.mark.parametrize("rows, columns", [(1, 1), (3, 3), (8, 8), (16, 0), (0, 20)])
def test_a_picture_in_a_frame_is_no_object(busy, rows, columns):
    framed = np.zeros_like(busy)
    inside = slice(rows, SIDE - rows), slice(columns, SIDE - columns)
    framed[inside] = busy[inside]
    assert standing_out(framed) is None


def test_white_parts_within_an_outline_are_the_objects():
    """A shoe with a white toe before white: its outline is grey, and open for three pixels."""
    image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    away = np.hypot(x - 40, y - 40)
    image[(away < 25) & ((x < 30) | (away > 22))] = 150
    image[39:42, 60:] = 255
    assert (standing_out(image) != (away < 25)).mean() < 0.01
    image[(away < 25) & (x >= 30) & (image[..., 0] == 255)] = 246  # no outline, hardly grey
    image[away > 22] = np.where((away < 25) & (x >= 30), 246, image[..., 0])[away > 22][:, None]
    assert (standing_out(image) != (away < 25)).mean() < 0.02


def test_distances_to_the_object_are_kept_with_the_crops(photo, busy, tmp_path):
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


def test_what_is_beside_the_photo_is_no_object(photo, tmp_path):
    """Crops have pixels beside the photo, of its border: a speck there is drawn out to a bar."""
    folder = tmp_path / "shoes"
    folder.mkdir()
    image = photo[0].copy()
    image[60:68, -4:] = 0
    for number in range(3):
        Image.fromarray(image).save(folder / f"{number}.png")
    crops = decode(open_dataset(str(folder), None), 64, "image", tmp_path / "cache")
    margin = (SIDE - 64) // 2
    assert (crops.away[:, :, -margin:] > 0).all() and (crops.away[:, :, -margin - 3 :] == 0).any()


def test_a_set_that_grows_is_told_by_what_came(photo, busy, tmp_path):
    """Also if the whole is plain no more: the images that were there are the same."""
    folder = tmp_path / "shoes"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(photo[0]).save(folder / f"{number}.png")

    def identity():
        return decode(open_dataset(str(folder), None), 64, "image", tmp_path / "cache").identity

    before = identity()
    for number in range(4, 7):
        Image.fromarray(busy).save(folder / f"{number}.png")
    with pytest.raises(UserError, match=r"images: 4\.png was not there before"):
        check_same(tmp_path, before, identity())


def test_a_damaged_file_of_distances_is_made_again(photo, tmp_path, caplog):
    folder = tmp_path / "shoes"
    folder.mkdir()
    Image.fromarray(photo[0]).save(folder / "0.png")

    def away():
        return decode(open_dataset(str(folder), None), 64, "image", tmp_path / "cache").away

    before = np.array(away())
    (file,) = (tmp_path / "cache").rglob("away.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert (away() == before).all() and "damaged" in caplog.text
