"""Every kind of image file is read right or named; crops are exact to a fraction of a pixel."""

import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lmk.runtime import images
from lmk.runtime.images import UnreadableImage, read_image

boxes = st.tuples(
    st.floats(-500, 500), st.floats(-500, 500), st.floats(1, 2000), st.floats(1, 2000)
)


def _gradient(height=24, width=32):
    """Red grows to the right, green downwards, blue is 90."""
    rows, columns = np.mgrid[:height, :width]
    blue = np.full_like(rows, 90)
    return np.stack([columns * 6, rows * 8, blue], -1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_rgb_is_read_as_it_is(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(_gradient()).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    np.testing.assert_array_equal(read_image(path), _gradient())


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA", "YCbCr", "LAB"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    # Mid-grey but in "1": the one colour all modes can say.
    value = 255 if mode == "1" else 128
    image = Image.fromarray(np.full((9, 7, 3), value, np.uint8))
    image = _lab(image) if mode == "LAB" else image.convert(mode, palette=Image.Palette.ADAPTIVE)
    suffix = ".tif" if mode in ("CMYK", "YCbCr", "LAB") else ".png"
    path = tmp_path / f"image{suffix}"
    image.save(path)
    read = read_image(path)
    assert read.shape == (9, 7, 3) and read.dtype == np.uint8
    assert np.abs(read.astype(int) - value).max() <= 3


def _lab(image):
    from PIL import ImageCms

    return ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "cmyk.jpg"
    Image.fromarray(np.full((16, 16, 3), (200, 40, 60), np.uint8)).convert("CMYK").save(
        path, quality=95
    )
    assert np.abs(read_image(path).astype(int) - (200, 40, 60)).max() <= 6


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for suffix in (".png", ".tif"):
        path = tmp_path / f"deep{suffix}"
        Image.fromarray(values).save(path)
        expected = values.astype(float) / 257
        assert np.abs(read_image(path)[..., 1] - expected).max() <= 1


def test_alpha_lies_over_white(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :2] = (10, 20, 30, 255)
    pixels[:, 2] = (0, 0, 0, 128)
    path = tmp_path / "alpha.png"
    Image.fromarray(pixels).save(path)
    read = read_image(path)
    assert read[0, 0].tolist() == [10, 20, 30] and read[0, 3].tolist() == [255, 255, 255]
    assert np.abs(read[0, 2].astype(int) - 127).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that undoes it
    stored = Image.fromarray(_gradient())
    if orientation in inverse:
        stored = stored.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), _gradient())


def test_one_row_is_an_image_one_pixel_is_not(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    with pytest.raises(UnreadableImage, match="1×1 pixels"):
        read_image(tmp_path / "one.png")
    Image.new("RGB", (2, 1)).save(tmp_path / "two.png")
    assert read_image(tmp_path / "two.png").shape == (1, 2, 3)


def test_bomb_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(UnreadableImage, match="more than 100,000,000 pixels, expected 2 to"):
        read_image(path)


@pytest.mark.parametrize("shape", [(20_000, 40), (40, 20_000)])
def test_20_000_pixels_long(tmp_path, shape):
    path = tmp_path / "long.png"
    Image.fromarray(np.full((*shape, 3), 77, np.uint8)).save(path)
    image = read_image(path)
    assert image.shape == (*shape, 3)
    # Its square holds 400 million pixels: the crop must not build it.
    crop = images.crop(image, images.square_around(images.whole(image), 1.5), 64)
    assert crop.shape == (64, 64, 3) and (crop == 77).all()


@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.95])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_file_is_named(tmp_path, suffix, part):
    path = tmp_path / f"cut{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(UnreadableImage, match=f"cut{suffix}: cannot be read"):
        read_image(path)


@given(boxes, st.integers(1, 512))
@settings(deadline=None)
def test_points_go_to_the_crop_and_back(box, size):
    points = np.random.default_rng(0).uniform(-20, size + 20, (7, 2)).astype(np.float32)
    back = images.to_crop(images.to_frame(points, box, size), box, size)
    # float32 holds 24 bits: a thousandth of a pixel of a frame of some thousand pixels
    tolerance = 1e-3 * max(1.0, size / min(box[2:]))
    np.testing.assert_allclose(back, points, atol=tolerance)


@given(
    st.floats(-30, 60), st.floats(-30, 60), st.floats(20, 150), st.integers(16, 96), st.booleans()
)
@settings(deadline=None, max_examples=60)
def test_crop_is_exact_to_a_fraction_of_a_pixel(x, y, side, size, tall):
    """Of a linear ramp every crop pixel is known: the ramp at the point it maps back to."""
    height, width = (120, 100) if tall else (100, 120)
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([columns * 2, rows * 2, columns + rows], -1).astype(np.uint8)
    box = (x, y, side, side)
    crop = images.crop(image, box, size).astype(float)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).astype(np.float32)
    points = images.to_frame(grid, box, size)
    # Where the kernel meets the border the ramp is bent by the replicated pixels.
    reach = 1.5 + max(side / size, 1.0)
    inside = (points > reach).all(-1) & (points < np.array([width, height]) - 1 - reach).all(-1)
    expected = np.stack([points[..., 0] * 2, points[..., 1] * 2, points.sum(-1)], -1)
    tolerance = 1.5  # two roundings to 8 bits
    if side >= 4 * size:  # shrunk in two steps: a tenth of a pixel of the crop
        tolerance += 0.1 * 2 * side / size
    assert np.abs(crop - expected)[inside].max(initial=0) <= tolerance


def test_crop_replicates_the_border():
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, 0], image[:, -1] = 200, 100
    crop = images.crop(image, (-30, 0, 70, 10), 70)
    assert (crop[:, :20] == 200).all() and (crop[:, -20:] == 100).all()


@pytest.mark.parametrize("place", [60.0, 1e9, 1e20, 1e300])
def test_however_far_outside_there_is_the_border(place):
    image = np.random.default_rng(0).integers(0, 256, (20, 12, 3), dtype=np.uint8)
    for side in (3.0, 30.0, 300.0):
        below = images.crop(image, (2.0, place, 8.0, side), 16)
        before = images.crop(image, (-place - side, -place - side, side, side), 16)
        assert np.ptp(below.astype(int), axis=0).max() <= 1  # rounded twice
        assert np.abs(before - image[0, 0].astype(int)).max() <= 1


def test_identity_crop_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(images.crop(image, images.whole(image), 32), image)


def test_square_around_keeps_the_centre():
    assert images.square_around((10, 20, 30, 10), 2.0) == (-5, -5, 60, 60)


def test_box_far_larger_than_the_image_takes_little_memory():
    image = np.full((30, 20, 3), 50, np.uint8)
    image[:15] = 200
    for side in (1e4, 1e7, 1e12):
        crop = images.crop(image, (-side / 2, -side / 2, side, side), 64)
        assert crop.shape == (64, 64, 3) and crop.min() >= 50 and crop.max() <= 200
    crop = images.crop(image, (-5e3, -5e3, 1e4, 1e4), 64)
    assert (crop[:20] == 200).all() and (crop[-20:] == 50).all()


def test_a_format_that_was_not_meant_is_not_opened(tmp_path, monkeypatch):
    """PostScript starts a program; here it must not even come to its plug-in."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given: pytest.fail("started"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    for name, save in (("photo.png", "EPS"), ("photo.jpg", "TGA")):
        Image.new("RGB", (8, 8)).save(tmp_path / name, save)
        with pytest.raises(UnreadableImage, match=f"{name}: cannot be read as an image"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", [".avif", ".jp2", ".ppm", ".jfif"])
def test_rarer_formats(tmp_path, suffix):
    Image.fromarray(_gradient()).save(tmp_path / f"a{suffix}")
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - _gradient()).mean() < 8


def test_a_strip_is_refused_by_its_side(tmp_path):
    Image.new("1", (200_000, 2)).save(tmp_path / "strip.png")
    with pytest.raises(UnreadableImage, match="got 200000×2 pixels, .*at most 100,000 a side"):
        read_image(tmp_path / "strip.png")


def test_named_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match="a.png: got no regular file"):
        read_image(tmp_path / "a.png")


def test_memory_that_does_not_suffice_costs_one_image(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def fail(*given):
        raise MemoryError

    monkeypatch.setattr(images, "to_rgb", fail)
    with pytest.raises(UnreadableImage, match=r"a.png: cannot be read as an image \(MemoryError\)"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_of_several_pictures_one_has_to_be_asked_for(tmp_path, name):
    first, *rest = (Image.new("RGB", (8, 6), (60 * n, 0, 0)) for n in range(4))
    first.save(tmp_path / name, save_all=True, append_images=rest, lossless=True)
    assert images.num_pages(tmp_path / name) == 4
    with pytest.raises(UnreadableImage, match=f"{name}: got 4 pictures, expected one"):
        read_image(tmp_path / name)
    for page in range(4):
        red = read_image(tmp_path / name, page=page)[..., 0].astype(int)
        assert np.abs(red - 60 * page).max() < 3


def test_a_thumbnail_is_no_page(tmp_path):
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    small = Image.new("RGB", (4, 3))
    tags = ImageFileDirectory_v2()
    tags[254] = 1
    small.encoderinfo = {"tiffinfo": tags}
    Image.new("RGB", (8, 6)).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert images.num_pages(tmp_path / "a.tif") == 1
    assert read_image(tmp_path / "a.tif").shape == (6, 8, 3)


def test_white_of_12_bits_is_that_of_the_stack(tmp_path, caplog):
    images._tell_of.cache_clear()
    dark, bright = (np.full((4, 4), value, np.uint16) for value in (1000, 4000))
    pages = [Image.fromarray(page) for page in (dark, bright)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert (read_image(tmp_path / "a.tif", page=0) == 1000 * 255 // 4095).all()
    assert (read_image(tmp_path / "a.tif", page=1) == 4000 * 255 // 4095).all()
    assert "of 16 bits a pixel 12 are used: 4095 is taken for white" in caplog.text


def test_white_that_a_file_names(tmp_path):
    Image.fromarray(np.full((4, 4), 500, np.uint16)).save(tmp_path / "a.tif", tiffinfo={281: 1023})
    assert (read_image(tmp_path / "a.tif") == 500 * 255 // 1023).all()


def test_pixels_as_stored_only_where_the_annotated_size_is_theirs(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(_gradient(24, 32)).save(tmp_path / "a.png", exif=exif)
    for annotated in (None, (32, 24), (7, 7)):
        assert read_image(tmp_path / "a.png", annotated=annotated).shape == (32, 24, 3)
    assert read_image(tmp_path / "a.png", annotated=(24, 32)).shape == (24, 32, 3)


def test_16_bit_photo_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    values = np.linspace(0, 65535, 6 * 9).astype(np.uint16).reshape(6, 9)
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    assert np.abs(read_image(tmp_path / "a.png")[..., 0] - np.rot90(values, -1) / 257).max() <= 1


def test_heic_names_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.HEIC").write_bytes(b"heic")
    with pytest.raises(UnreadableImage, match=r"without pillow-heif .*pip install .*\[heic\]"):
        read_image(tmp_path / "a.HEIC")
