"""Image file -> pixels -> square crop: the one decoder and the one crop, in training and use."""

from __future__ import annotations

import functools
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from lmk.runtime.errors import UserError, install_line

_PICTURES = ".jpg .jpeg .jpe .jfif .png .bmp .webp .tif .tiff .gif .avif .jp2 .j2k .jpx .ppm .pgm"
_HEIC = frozenset({".heic", ".heif"})  # read with pillow-heif
IMAGE_SUFFIXES = frozenset(f"{_PICTURES} .pbm .pnm .apng".split()) | _HEIC
# All that Pillow is to open, whatever a file is called: for others it may start programs.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
_PAGED = ("PNG", "WEBP", "TIFF", "GIF", "AVIF")  # may hold pictures that are shown one by one
MAX_PIXELS = 100_000_000  # above it a file is more likely a bomb (or a map) than a photo
MAX_SIDE = 100_000
_ORIENTATION = 274  # of EXIF; from 5 on rows and columns are swapped
_REDUCED, _MAX_VALUE = 254, 281  # tags of TIFF: bit 0: a smaller copy; the brightest value there is
_GAP = 8  # pixels of the image a pixel of the crop: more are not needed where most is border
# x, y, width, height; edges: the top-left pixel spans (0, 0) to (1, 1), its centre is (0.5, 0.5)
Box = tuple[float, float, float, float]
_logger = logging.getLogger(__name__)


class UnreadableImage(UserError):
    """The file is not an image that can be used; the message says why."""


def read_image(
    path: Path,
    upright: bool = True,
    annotated: tuple[int, int] | None = None,
    page: int | None = None,
) -> NDArray[np.uint8]:
    """Decode `path` to HWC uint8 RGB, upright.

    EXIF rotation is applied, unless `upright` is off (for points in pixels as stored), or only the
    stored pixels have the size `annotated`, (height, width), that points were given for. CMYK,
    palette, grey and 16-bit files are converted, the latter from the bits that are used; alpha is
    laid over white. page: of a file of several pictures, see `num_pages`. Raises UnreadableImage (a
    UserError) for anything that is not a whole image of 2 to 100 million pixels, and for several
    pictures of which none is asked for.
    """
    with open_image(path) as image:
        pages = pages_of(image)
        if page is None and len(pages) > 1:
            raise UnreadableImage(
                f"{path}: got {len(pages)} pictures, expected one; `lmk detect` takes it as a film"
            )
        if page:
            image.seek(pages[page])
        return to_rgb(image, path, upright, annotated)


def num_pages(path: Path) -> int:
    """How many pictures are shown one after the other; 1 also if the file cannot be read.

    Thumbnails and pyramids, the second picture of a JPEG and the like are not shown.
    """
    if path.suffix.lower() in (".jpg", ".jpeg"):  # most files: spares looking into them
        return 1
    try:
        with open_image(path) as image:
            return len(pages_of(image))
    except UnreadableImage:
        return 1


def pages_of(image: Image.Image) -> list[int]:
    """The numbers by which Pillow seeks the pictures that are shown."""
    count = getattr(image, "n_frames", 1) if image.format in _PAGED else 1
    pages = []
    for number in range(count) if count > 1 else ():
        if isinstance(image, TiffImageFile):
            image.seek(number)
            if image.tag_v2.get(_REDUCED, 0) & 1:
                continue
        pages.append(number)
    if count > 1:
        image.seek(0)
    return pages or [0]


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """The file, opened by Pillow; what is wrong with it, there or in the block: UnreadableImage."""
    with image_errors(path):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableImage(f"{path}: got no regular file, expected an image")
        with Image.open(path, formats=_formats(path)) as image:
            yield image


@contextmanager
def image_errors(path: Path) -> Iterator[None]:
    """Whatever goes wrong with the image at `path` in the block becomes UnreadableImage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of big images and odd EXIF; we check
            yield
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:  # before we get to see the size
        raise UnreadableImage(
            f"{path}: got more than {MAX_PIXELS:,} pixels, expected 2 to {MAX_PIXELS:,}; resize it"
        ) from error
    except FileNotFoundError as error:
        raise UnreadableImage(f"{path}: got no such file; check the path") from error
    except Exception as error:  # Pillow's plug-ins raise almost anything on corrupt bytes
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise UnreadableImage(f"{path}: cannot be read as an image ({reason})") from error


def _formats(path: Path) -> tuple[str, ...]:
    if path.suffix.lower() not in _HEIC:
        return _FORMATS
    try:
        import pillow_heif
    except ImportError as error:
        raise UnreadableImage(
            f"{path}: cannot be read without pillow-heif ({error}); {install_line('heic')}"
        ) from error
    pillow_heif.register_heif_opener()
    return (*_FORMATS, "HEIF")


def to_rgb(
    image: Image.Image,
    path: Path,
    upright: bool = True,
    annotated: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """The picture at which an open file is -> HWC uint8 RGB; see `read_image`."""
    width, height = image.size
    if not 2 <= width * height <= MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise UnreadableImage(
            f"{path}: got {width}×{height} pixels, expected 2 to {MAX_PIXELS:,}, at most "
            f"{MAX_SIDE:,} a side; resize it"
        )
    if annotated == (height, width) and image.getexif().get(_ORIENTATION, 1) >= 5:
        upright = upright and height == width
    if image.mode.startswith(("I", "F")):
        image = _from_deep(image, path)
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _from_deep(image: Image.Image, path: Path) -> Image.Image:
    """16- and 32-bit grey to 8 bits; Pillow's own conversion clips at 255 instead of scaling."""
    values = np.asarray(image).astype(np.float64)
    white = _white(path, os.stat(path).st_mtime_ns)
    grey = Image.fromarray(np.clip(values / white * 255.0, 0, 255).astype(np.uint8))
    grey.info["exif"] = image.getexif().tobytes()  # it may have to be turned
    return grey


@functools.lru_cache(maxsize=16)
def _white(path: Path, modified_ns: int) -> float:
    """The value of white: what the file says, else the end of the bits that its pictures use.

    Microscopes and depth cameras fill 10, 12 or 14 of 16 bits.
    """
    with open_image(path) as image:
        if isinstance(image, TiffImageFile) and image.tag_v2.get(_MAX_VALUE):
            return float(np.max(image.tag_v2[_MAX_VALUE]))
        brightest = 1.0
        for page in pages_of(image):
            image.seek(page)
            brightest = max(brightest, float(np.max(np.asarray(image))))
        if image.mode == "F":
            return brightest
    bits = max(8, int(brightest).bit_length())
    if bits < 16:
        _tell_of(bits)
    return float(2**bits - 1)


@functools.cache
def _tell_of(bits: int) -> None:
    """Once for all pictures of a run."""
    _logger.warning("of 16 bits a pixel %d are used: %d is taken for white", bits, 2**bits - 1)


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
        if any(rows.repeats + columns.repeats):
            patch = np.pad(patch, (rows.repeats, columns.repeats, (0, 0)), mode="edge")
        return _resized(patch, (size, size), rows, columns)
    # Most of the window is border: that of a 20,000 x 100 image would not fit in memory. So the
    # border is repeated axis by axis, after the longer one has shrunk; where not even
    # that fits, for the box is far larger than the image, of a smaller image.
    if min(rows.size * image.shape[1], columns.size * image.shape[0]) > MAX_PIXELS:
        shrink = min(max(2, int(max(width, height) / size / _GAP)), max(image.shape[:2]))
        if shrink == 1:
            return np.broadcast_to(image, (size, size, 3)).copy()
        small = np.asarray(Image.fromarray(image).reduce(shrink))
        return crop(small, (left / shrink, top / shrink, width / shrink, height / shrink), size)
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
    # How far outside is all the same to the crop, but 1e20 + 30 is no other number than 1e20.
    start = min(max(start, -length - support), float(limit + support))
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
    return np.asarray(picture_of(window).resize(size, bilinear, box, reducing_gap=2.0))


def picture_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """HWC uint8 RGB pixels for Pillow; those cut out of a larger image are not copied twice."""
    (height, width), (row, *inner) = pixels.shape[:2], pixels.strides
    if inner != [3, 1] or row < 3 * width:
        return Image.fromarray(pixels)
    memory = np.lib.stride_tricks.as_strided(pixels, ((height - 1) * row + 3 * width,), (1,))
    return Image.frombytes("RGB", (width, height), memory, "raw", "RGB", row, 1)


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
