"""The decoded cache: filled once and whole, right in its geometry, patient with bad files."""

import logging
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lmk.runtime.errors import UserError
from lmk.runtime.files import cache_folder
from lmk.train import augment
from lmk.train.datasets import decoded as module
from lmk.train.datasets.decoded import decode
from lmk.train.datasets.drawn.drawn import builtin
from lmk.train.datasets.layouts.folder import open_folder
from lmk.train.datasets.layouts.table import open_csv
from lmk.train.datasets.sample import Dataset, Sample, scheme_of

SIZE = 64


@pytest.fixture
def images(tmp_path):
    """A folder of three photos and a cache beside it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        noise = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
    return folder, tmp_path / "cache"


def counted(dataset, reads):
    """The data set with every reading noted in `reads`."""

    def reading(sample):
        def read():
            reads.append(sample.name)
            return sample.read()

        return replace(sample, read=read)

    return replace(dataset, samples=tuple(reading(sample) for sample in dataset.samples))


def spot(points, size):
    """An image (H,W,3) that is bright at `points` (x, y)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    image = sum(
        np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4.5) for x, y in points[:1]
    )  # of the first point alone
    return (np.repeat(image[..., None], 3, axis=2) * 255).round().astype(np.uint8)


def centroid(image):
    mass = image[..., 0].astype(float)
    rows, columns = np.mgrid[: mass.shape[0], : mass.shape[1]]
    return np.array([(columns * mass).sum(), (rows * mass).sum()]) / mass.sum()


@pytest.mark.parametrize("mode", ["image", "center", "annotation"])
@pytest.mark.parametrize("size", [(90, 150), (150, 90), (300, 310)])
def test_points_agree_with_pixels(tmp_path, mode, size):
    rng = np.random.default_rng(1)
    samples = []
    for index in range(4):
        points = (rng.uniform(0.35, 0.65, (3, 2)) * size[::-1]).astype(np.float32)
        points[0] = np.array(size[::-1]) * 0.5 + rng.uniform(-9, 9, 2)
        image = spot(points, size)
        samples.append(Sample(f"{index}", lambda image=image: image, points))
    data = decode(
        Dataset("spots", tuple(samples), "x", scheme_of(("a", "b", "c"))), SIZE, mode, tmp_path
    )
    assert data.images.shape == (4, 80, 80, 3) and data.points.shape == (4, 3, 2)
    for image, points in zip(data.images, data.points, strict=True):
        np.testing.assert_allclose(centroid(image), points[0], atol=0.2)


def blank(points):
    """A set of one black image, 100×50, with two points."""
    image = np.zeros((50, 100, 3), np.uint8)
    sample = Sample("a", lambda: image, np.array(points, np.float32))
    return Dataset("d", (sample,), "x", scheme_of(("a", "b")))


@pytest.mark.parametrize(
    ("mode", "edges", "expected"),
    [
        ("image", [[-0.5, -0.5], [99.5, 49.5]], [[-0.5, 15.5], [63.5, 47.5]]),  # of the image
        ("center", [[24.5, -0.5], [74.5, 49.5]], [[-0.5, -0.5], [63.5, 63.5]]),  # of the square
    ],
)
def test_the_image_or_its_middle_square_fits_the_central_crop(tmp_path, mode, edges, expected):
    data = decode(blank(edges), SIZE, mode, tmp_path)
    np.testing.assert_allclose(data.crop_points(np.array([0]), SIZE)[0], expected, atol=1e-4)
    assert data.crop_scale == 1.0


def test_annotated_points_fill_two_thirds_of_the_crop(tmp_path):
    data = decode(builtin("puppet", 6), SIZE, "annotation", tmp_path)
    extent = np.ptp(data.crop_points(np.arange(6), SIZE), axis=1).max(axis=1)
    np.testing.assert_allclose(extent, SIZE / 1.5, atol=0.5)
    assert data.crop_scale == 1.5


def test_crop_points_are_what_the_centred_warp_shows(tmp_path):
    data = decode(builtin("puppet", 4), SIZE, "annotation", tmp_path)
    matrix = augment.centred(1, data.images.shape[1], SIZE)[0].numpy()
    moved = data.crop_points(np.arange(4), SIZE) @ matrix[:2, :2].T + matrix[:2, 2]
    np.testing.assert_allclose(moved, data.points, atol=1e-4)


def test_central_crops_are_spread_over_the_set(tmp_path):
    data = decode(builtin("puppet", 7), SIZE, "image", tmp_path)
    crops = data.central_crops(3, SIZE)
    np.testing.assert_array_equal(crops, data.images[[0, 3, 6], 8:72, 8:72])
    assert len(data.central_crops(99, SIZE)) == 7


def test_too_few_points_take_the_whole_image(tmp_path):
    data, whole = (
        decode(blank([[20, 20], [np.nan, np.nan]]), SIZE, mode, tmp_path)
        for mode in ("annotation", "image")
    )
    np.testing.assert_array_equal(data.points, whole.points)
    assert np.isnan(data.points[0, 1]).all()


def test_decoded_once(images):
    folder, cache = images
    reads, seen = [], []
    data = counted(open_folder(folder), reads)
    first = decode(data, SIZE, "image", cache, lambda *done: seen.append(done))
    assert sorted(reads) == ["0.png", "1.png", "2.png"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    again = decode(counted(open_folder(folder), reads), SIZE, "image", cache)
    assert len(reads) == 3
    np.testing.assert_array_equal(first.images, again.images)
    assert first.names == again.names == ("0.png", "1.png", "2.png")
    kept = again.images.copy()
    again.images[:] = 0  # what is cached cannot be spoilt
    np.testing.assert_array_equal(decode(open_folder(folder), SIZE, "image", cache).images, kept)
    (index,) = cache.rglob("index.json")
    index.unlink()  # it is written last: killed before, the cache is filled again
    decode(counted(open_folder(folder), reads), SIZE, "image", cache)
    assert len(reads) == 6


def flipped(path):
    """Change one byte in the middle of what the file holds."""
    whole = bytearray(path.read_bytes())
    whole[-len(whole) // 3] ^= 1
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("images.npy", flipped),
        ("points.npy", flipped),
        ("lengths.npy", lambda path: path.write_bytes(path.read_bytes()[:-2])),
        ("images.npy", lambda path: path.write_bytes(path.read_bytes()[:9000])),
        ("images.npy", lambda path: np.save(path, np.zeros((1, 2), np.int64))),
        ("points.npy", lambda path: path.unlink()),
        ("lengths.npy", lambda path: path.write_bytes(path.read_bytes().replace(b"}", b"(", 1))),
        ("index.json", lambda path: path.write_bytes(b"\xff{")),
        ("index.json", lambda path: path.write_text("[" * 100_000)),
        ("index.json", lambda path: path.write_text('{"kept": [7], "skipped": [], "sums": [1]}')),
        ("index.json", lambda path: path.write_text('{"kept": 3}')),
    ],
)
def test_what_is_damaged_is_said_and_decoded_again(tmp_path, caplog, name, damage):
    data = builtin("puppet", 3)
    first = decode(data, SIZE, "annotation", tmp_path)
    images = first.images.copy()  # the damage is done to the file that is mapped
    (path,) = tmp_path.glob(f"*/{name}")
    damage(path)
    with caplog.at_level(logging.WARNING, logger="lmk"):
        again = decode(data, SIZE, "annotation", tmp_path)
    assert "damaged" in caplog.text and "decoded again" in caplog.text
    caplog.clear()
    for found in (again, decode(data, SIZE, "annotation", tmp_path)):
        assert found.identity == first.identity
        np.testing.assert_array_equal(found.images, images)
        np.testing.assert_array_equal(found.points, first.points)
    assert not caplog.text


@pytest.mark.parametrize("change", ["file", "size", "mode"])
def test_decoded_again_when_something_changes(images, change):
    folder, cache = images
    decode(open_folder(folder), SIZE, "image", cache)
    if change == "file":
        Image.new("RGB", (30, 30), "red").save(folder / "1.png")
    reads, size = [], 128 if change == "size" else SIZE
    mode = "annotation" if change == "mode" else "image"
    again = decode(counted(open_folder(folder), reads), size, mode, cache)
    assert len(reads) == 3
    if change == "file":
        assert again.images[1, 40, 40].tolist() == [255, 0, 0]


def mixture(folder):
    """Files of every sort, and how many of them cannot be read."""
    folder.mkdir()
    colour = Image.new("RGB", (48, 40), (200, 40, 40))
    colour.save(folder / "plain.jpg")
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    colour.convert("L").save(folder / "grey.png")
    colour.convert("P").save(folder / "palette.png")
    rgba = colour.convert("RGBA")
    rgba.putalpha(0)
    rgba.save(folder / "alpha.png")
    deep = np.full((40, 48), 40_000, np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    exif = colour.getexif()
    exif[0x0112] = 6  # lying on its side
    colour.save(folder / "turned.jpg", exif=exif)
    whole = (folder / "plain.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("hello")
    Image.new("RGB", (1, 1)).save(folder / "one_pixel.png")
    return 5


def test_unreadable_images_are_counted_and_left_out(tmp_path, caplog):
    bad = mixture(tmp_path / "photos")
    with caplog.at_level(logging.WARNING, logger="lmk"):
        data = decode(open_folder(tmp_path / "photos"), SIZE, "image", tmp_path / "cache")
    assert set(data.names) == {
        "plain.jpg", "cmyk.jpg", "grey.png", "palette.png", "alpha.png", "deep.png", "turned.jpg",
    }  # fmt: skip
    assert len(data.skipped) == bad and len(data.images) == 7
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "photos: 5 unreadable images skipped, first: " in warning and "\n" not in warning
    middle = {
        name: image[40, 40].tolist() for name, image in zip(data.names, data.images, strict=True)
    }
    for name in ("plain.jpg", "cmyk.jpg", "palette.png", "turned.jpg"):
        assert np.abs(np.array(middle[name]) - (200, 40, 40)).max() < 12, name
    assert middle["alpha.png"] == [255, 255, 255]
    assert middle["deep.png"] == [155, 155, 155]
    # A second opening warns again, and does not try them again.
    caplog.clear()
    decode(open_folder(tmp_path / "photos"), SIZE, "image", tmp_path / "cache")
    assert len(caplog.records) == 1


def test_points_and_splits_stay_with_their_images(tmp_path):
    rows = "file,split,a_x,a_y\n"
    for index in range(6):
        rows += f"{index}.png,{'test' if index > 3 else 'train'},{index},0\n"
        if index not in (0, 3):
            Image.new("RGB", (80, 80), (index * 40, 0, 0)).save(tmp_path / f"{index}.png")
    (tmp_path / "annotations.csv").write_text(rows)
    data = decode(open_csv(tmp_path), SIZE, "image", tmp_path / "cache")
    assert data.names == ("1.png", "2.png", "4.png", "5.png")
    assert data.splits == ("train", "train", "test", "test")
    reds = data.images[:, 40, 40, 0].tolist()
    assert reds == [40, 80, 160, 200]
    # 80 px of the image become 64 of the crop, after 8 px of context.
    expected = (np.array([1, 2, 4, 5]) + 0.5) * 0.8 + 7.5
    np.testing.assert_allclose(data.points[:, 0, 0], expected, atol=1e-4)


def test_nothing_readable(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "photos" / name).write_text("no image")
    for _ in range(2):
        with pytest.raises(UserError, match=r"photos: none of 2 images can be read; .*a\.jpg"):
            decode(open_folder(tmp_path / "photos"), SIZE, "image", tmp_path / "cache")


def test_a_disk_that_is_too_small(images, monkeypatch):
    folder, cache = images
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match="disk is full"):
        decode(open_folder(folder), SIZE, "image", cache)


def test_a_disk_that_fills_up(images, full_disk):
    folder, cache = images
    with full_disk(), pytest.raises(UserError, match="disk is full"):
        decode(open_folder(folder), SIZE, "image", cache)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert len(decode(open_folder(folder), SIZE, "image", cache).images) == 3


def test_a_cache_that_cannot_be_written(images):
    folder, cache = images
    cache.write_text("a file in the way")
    with pytest.raises(UserError, match="is a file, expected a folder.*LMK_CACHE"):
        decode(open_folder(folder), SIZE, "image", cache)


@pytest.mark.parametrize("when", [1, 3])
def test_an_interrupted_fill_leaves_no_half_cache(images, when):
    folder, cache = images

    def interrupt(done, total):
        if done == when:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(open_folder(folder), SIZE, "image", cache, interrupt)
    assert not [path for path in cache.rglob("*") if path.is_file()]
    reads = []
    data = decode(counted(open_folder(folder), reads), SIZE, "image", cache)
    assert len(reads) == 3 and len(data.images) == 3


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("LMK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lmk"
