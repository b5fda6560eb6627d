"""Image file -> pixels -> square crop: the one decoder and the one crop, in training and use."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lmk.runtime.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
MAX_PIXELS = 100_000_000  # above it a file is more likely a bomb (or a map) than a photo
# x, y, width, height; edges: the top-left pixel spans (0, 0) to (1, 1), its centre is (0.5, 0.5)
Box = tuple[float, float, float, float]


class UnreadableImage(UserError):
    """The file is not an image that can be used; the message says why."""


def read_image(path: Path, upright: bool = True) -> NDArray[np.uint8]:
    """Decode `path` to HWC uint8 RGB, upright.

    EXIF rotation is applied, unless `upright` is off (for points in pixels as stored). CMYK,
    palette, grey and 16-bit files are converted; alpha is laid over white. Raises UnreadableImage
    (a UserError) for anything that is not a whole image of 2 to 100 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of big images and odd EXIF; we check
            with Image.open(path) as image:
                _check_size(path, image.size)
                return np.asarray(_to_rgb(ImageOps.exif_transpose(image) if upright else image))
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:  # before we get to see the size
        raise UnreadableImage(
            f"{path}: got more than {MAX_PIXELS:,} pixels, expected 2 to {MAX_PIXELS:,}; resize it"
        ) from error
    except Exception as error:  # Pillow's plug-ins raise almost anything on corrupt bytes
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise UnreadableImage(f"{path}: cannot be read as an image ({reason})") from error


def _check_size(path: Path, size: tuple[int, int]) -> None:
    pixels = size[0] * size[1]
    if not 2 <= pixels <= MAX_PIXELS:
        raise UnreadableImage(
            f"{path}: got {size[0]}×{size[1]} pixels, expected 2 to {MAX_PIXELS:,}; resize it"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _from_deep(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey to 8 bits; Pillow's own conversion clips at 255 instead of scaling."""
    values = np.asarray(image).astype(np.float64)
    full_scale = 65535.0 if image.mode != "F" else max(float(values.max()), 1.0)
    grey = np.clip(values / full_scale * 255.0, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def square_around(box: Box, scale: float = 1.0) -> Box:
    """The square of `scale` times the longer side of `box`, about the centre of `box`."""
    x, y, width, height = box
    side = max(width, height) * scale
    return (x + (width - side) / 2, y + (height - side) / 2, side, side)


def whole(image: NDArray[np.uint8]) -> Box:
    """The box of the whole image."""
    return (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))


def crop(image: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    """Resample `box` of an HWC uint8 image to (size, size, 3), sub-pixel exact, anti-aliased.

    Outside the image its border is replicated. Inverse of the points: `to_frame`.
    """
    left, top, width, height = box
    # The window that holds the box and the resampling kernel's support around it.
    support = int(np.ceil(max(1.0, max(width, height) / size))) + 1
    rows = _window(top, height, support, image.shape[0])
    columns = _window(left, width, support, image.shape[1])
    patch = image[rows.inside, columns.inside]
    if rows.size * columns.size <= 2 * patch.shape[0] * patch.shape[1]:
        whole = np.pad(patch, (rows.repeats, columns.repeats, (0, 0)), mode="edge")
        return _resized(whole, (size, size), rows, columns)
    # Most of the window is border: that of a 20,000 x 100 image would not fit in memory. So the
    # border is repeated axis by axis, after the longer one has shrunk.
    if image.shape[0] > image.shape[1]:
        return _resize_columns(_resize_rows(patch, rows, size), columns, size)
    return _resize_rows(_resize_columns(patch, columns, size), rows, size)


class _Window(NamedTuple):
    """Pixels along an axis: some of the image's, with the first and the last of them repeated."""

    inside: slice
    repeats: tuple[int, int]
    start: float  # where in them the box begins
    length: float  # of the box

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.inside.stop - self.inside.start + sum(self.repeats)


def _window(start: float, length: float, support: int, limit: int) -> _Window:
    """All that `length` pixels from `start` on need, of an axis of `limit` pixels."""
    first = int(np.floor(start)) - support
    end = int(np.ceil(start + length)) + support
    size = end - first
    before, after = (min(max(beyond, 0), size - 1) for beyond in (-first, end - limit))
    inner = min(max(first + before, 0), limit - 1)
    inside = slice(inner, inner + size - before - after)
    return _Window(inside, (before, after), start - first, length)


def _resize_columns(image: NDArray[np.uint8], columns: _Window, size: int) -> NDArray[np.uint8]:
    """Resample the columns of a window to `size`; the rows stay."""
    every = _Window(slice(None), (0, 0), 0.0, float(image.shape[0]))
    window = np.pad(image, ((0, 0), columns.repeats, (0, 0)), mode="edge")
    return _resized(window, (size, image.shape[0]), every, columns)


def _resize_rows(image: NDArray[np.uint8], rows: _Window, size: int) -> NDArray[np.uint8]:
    """Resample the rows of a window to `size`; the columns stay."""
    every = _Window(slice(None), (0, 0), 0.0, float(image.shape[1]))
    window = np.pad(image, (rows.repeats, (0, 0), (0, 0)), mode="edge")
    return _resized(window, (image.shape[1], size), rows, every)


def _resized(
    window: NDArray[np.uint8], size: tuple[int, int], rows: _Window, columns: _Window
) -> NDArray[np.uint8]:
    """Resample the box in a window to (width, height)."""
    box = columns.start, rows.start, columns.start + columns.length, rows.start + rows.length
    # What shrinks to a quarter or less first shrinks by a whole number, to twice the size or more:
    # three times as fast, and the landmarks move by some hundredths of a pixel of the crop.
    bilinear = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(window).resize(size, bilinear, box, reducing_gap=2.0))


def to_frame(points: NDArray[np.float32], box: Box, size: int) -> NDArray[np.float32]:
    """Crop points (…,2) of a `size`-pixel crop -> points in the frame `box` lies in.

    Both in pixel-centre convention: the centre of the top-left pixel is (0, 0).
    """
    left, top, width, height = box
    scale = np.array([width / size, height / size], np.float32)
    return ((points + 0.5) * scale + np.array([left - 0.5, top - 0.5], np.float32)).astype(
        np.float32
    )


def to_crop(points: NDArray[np.float32], box: Box, size: int) -> NDArray[np.float32]:
    """Frame points (…,2) -> points in the crop: the inverse of `to_frame`."""
    left, top, width, height = box
    scale = np.array([size / width, size / height], np.float32)
    return ((points + 0.5 - np.array([left, top], np.float32)) * scale - 0.5).astype(np.float32)
