"""Image file -> pixels -> square crop: the one decoder and the one crop, in training and use."""

from __future__ import annotations

import warnings
from pathlib import Path

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
    rows, y = _window(top, height, support, image.shape[0])
    columns, x = _window(left, width, support, image.shape[1])
    patch = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # The longer axis shrinks first and the border is replicated axis by axis: the window of a
    # 20,000 x 100 image would not fit in memory.
    if image.shape[0] > image.shape[1]:
        patch = _resize_rows(patch, rows - rows[0], y, height, size)
        return _resize_columns(patch, columns - columns[0], x, width, size)
    patch = _resize_columns(patch, columns - columns[0], x, width, size)
    return _resize_rows(patch, rows - rows[0], y, height, size)


def _window(
    start: float, length: float, support: int, limit: int
) -> tuple[NDArray[np.intp], float]:
    """Indices, clipped to an axis of `limit` pixels, of all that `length` pixels from `start` need.

    Also returns where in them, in pixels, `start` lies.
    """
    first = int(np.floor(start)) - support
    end = int(np.ceil(start + length)) + support
    return np.arange(first, end).clip(0, limit - 1), start - first


def _resize_columns(
    image: NDArray[np.uint8], columns: NDArray[np.intp], x: float, width: float, size: int
) -> NDArray[np.uint8]:
    """Take `columns`, resample `width` of them from `x` on to `size`; the rows stay."""
    window = image if len(columns) == image.shape[1] else np.take(image, columns, axis=1)
    resized = Image.fromarray(window).resize(
        (size, window.shape[0]),
        Image.Resampling.BILINEAR,
        box=(x, 0, x + width, window.shape[0]),
    )
    return np.asarray(resized)


def _resize_rows(
    image: NDArray[np.uint8], rows: NDArray[np.intp], y: float, height: float, size: int
) -> NDArray[np.uint8]:
    """Take `rows`, resample `height` of them from `y` on to `size`; the columns stay."""
    window = image if len(rows) == image.shape[0] else np.take(image, rows, axis=0)
    resized = Image.fromarray(window).resize(
        (window.shape[1], size),
        Image.Resampling.BILINEAR,
        box=(0, y, window.shape[1], y + height),
    )
    return np.asarray(resized)


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
