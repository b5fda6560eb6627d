"""Data set -> memory-mapped uint8 crops: every image is decoded once, not once an epoch."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.files import atomic_path, write_bytes
from lmk.runtime.images import Box, UnreadableImage, crop, square_around, to_crop, whole
from lmk.runtime.regions import Finding
from lmk.train.datasets.plain import MOST, standing_out
from lmk.train.datasets.sample import Dataset, Sample, Scheme
from lmk.train.split import drawn_digest

CONTEXT = 1.25  # cached side / crop side: room for rotation and shift without inventing pixels
CROP_MARGIN = 1.5  # crop side / longer side of the box of the annotated points
CropMode = Literal["image", "center", "object", "annotation"]
LAYOUT_VERSION = 6
_FAR = 255  # pixels, and more
_FEWEST = 16  # pixels across, of a photograph that shows what its background is
log = logging.getLogger(__name__)
# Pixels, points, the length that errors are divided by, what of it is the object.
_Crop = tuple[NDArray[np.uint8], NDArray[np.float32], np.float32, NDArray[np.bool_] | None]


@dataclass(frozen=True)
class DecodedSet:
    """N square crops with context: the central 1/1.25 of each is what a network sees."""

    name: str
    images: NDArray[np.uint8]  # (N,S,S,3) RGB, memory-mapped
    points: NDArray[np.float32]  # (N,P,2) pixels of `images`, NaN where missing
    names: tuple[str, ...]  # of the images
    splits: tuple[str, ...]
    scheme: Scheme  # of the points
    lengths: NDArray[np.float32]  # (N,) given with the images, pixels of `images`; else NaN
    skipped: tuple[str, ...]  # reasons, one an unreadable image
    crop_scale: float  # crop side / longer side of the object box, for the runtime
    crop: CropMode = "image"  # what the crops are fitted to
    # (N,S,S) pixels to the object, 0 on it, 255: or more; 0 all over: not known of this image;
    # None: nothing tells what is the object
    away: NDArray[np.uint8] | None = None
    plain: bool = False  # `away` is from a plain background
    films: tuple[tuple[str, int, float], ...] = ()  # film, track, seconds of each, of films alone
    headings: NDArray[np.float32] | None = None  # (N,) radians from x towards y, NaN: not known
    finding: Finding | None = None  # how the boxes of films were found
    drawn: Mapping[str, str] = field(default_factory=dict)  # joined sets' `drawn_digest`, by name

    @property
    def landmark_names(self) -> tuple[str, ...]:
        """Of `points`; () for unlabelled data."""
        return self.scheme.names

    @functools.cached_property
    def known(self) -> NDArray[np.bool_]:
        """(N,) of which images it is known what is the object."""
        if self.away is None:
            return np.zeros(len(self.images), bool)
        return np.array([bool(each.any()) for each in self.away])

    @functools.cached_property
    def sums(self) -> list[int]:
        """CRC-32 of each image's pixels, points, length and, unless they tell it, `away`."""
        away = [None] * len(self.images) if self.away is None or self.plain else self.away
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(_sum, self.images, self.points, self.lengths, away))

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this set from another, ready for JSON; see `owner.check_same`.

        Of each image, by its name, split and sum; one that holds several objects has them all.
        """
        images: dict[str, list[Any]] = {}
        for name, split, crc in zip(self.names, self.splits, self.sums, strict=True):
            images.setdefault(name, []).extend((split, crc))
        plain = {"plain background": True} if self.plain else {}
        return {"data": self.name, "crop": self.crop, "images": images, **plain}

    def held_out_digests(self, seed: int) -> dict[str, str]:
        """What tells whether a run of `seed` holds out the same images, of each set by its name.

        Sets of which splits alone say what is held out have none.
        """
        alone = drawn_digest(self.names, self.splits, seed)
        return dict(self.drawn) or ({self.name: alone} if alone else {})

    def crop_points(self, indices: NDArray[np.intp], input_size: int) -> NDArray[np.float32]:
        """Annotated points (N,P,2) of `indices` in pixels of the central crop of `input_size`."""
        return self.points[indices] - np.float32((self.images.shape[1] - input_size) / 2)

    def central_crops(self, count: int, input_size: int) -> NDArray[np.uint8]:
        """Up to `count` crops (N,S,S,3), spread over the set, as the runtime would cut them."""
        margin = (self.images.shape[1] - input_size) // 2
        chosen = np.linspace(0, len(self.images) - 1, min(count, len(self.images))).astype(int)
        return np.ascontiguousarray(self.images[chosen, margin:-margin, margin:-margin])


def object_box(
    sample: Sample, image: NDArray[np.uint8], mode: CropMode, margin: float = CROP_MARGIN
) -> tuple[Box, float]:
    """The box to crop about and its scale.

    image: the whole image, of an object of a film its box; center: the largest square in the
    middle; object: the box that the data set gives, else as image; annotation: the annotated points
    and `margin`, else as image. Only the last one knows where the points are.
    """
    if mode == "center":
        height, width = image.shape[:2]
        side = min(height, width)
        return ((width - side) / 2, (height - side) / 2, side, side), 1.0
    seen = sample.points[np.isfinite(sample.points).all(axis=1)]
    if mode != "annotation" or len(seen) < 2:
        is_boxed = mode == "object" or sample.track is not None
        return (is_boxed and sample.box) or whole(image), 1.0
    (x0, y0), (x1, y1) = seen.min(axis=0), seen.max(axis=0)
    return (x0 + 0.5, y0 + 0.5, max(x1 - x0, 1.0), max(y1 - y0, 1.0)), margin


def decode(
    dataset: Dataset,
    input_size: int,
    mode: CropMode,
    cache: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    margin: float = CROP_MARGIN,
) -> DecodedSet:
    """Return the decoded crops of `dataset` for networks of `input_size`, from `cache` if there.

    What is damaged there is said, and decoded again. Unreadable images are left out, counted in a
    warning and listed in `skipped`. Raises UserError when no image is readable or the disk is full.
    """
    size = round(input_size * CONTEXT / 2) * 2
    key = f"{LAYOUT_VERSION} {dataset.fingerprint} {size} {mode} {margin}"
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:20]
    decoded = None
    if (folder / "index.json").exists():
        try:
            decoded = _load(dataset, folder, size, (mode, margin))
        except (
            Exception
        ) as error:  # of a damaged header numpy tells by the errors of a tokenizer too
            log.warning("%s: damaged (%s); its images are decoded again", folder, error)
    if decoded is None:
        try:
            _fill(dataset, size, (mode, margin), folder, progress)
        except UserError as error:
            raise UserError(f"decoded images: {error}; LMK_CACHE names another folder") from error
        decoded = _load(dataset, folder, size, (mode, margin))
    skipped = decoded.skipped
    if skipped:
        log.warning(
            "%s: %d unreadable images skipped, first: %s", dataset.name, len(skipped), skipped[0]
        )
    if not decoded.names:
        raise UserError(f"{dataset.name}: none of {len(skipped)} images can be read; {skipped[0]}")
    return decoded


def _load(dataset: Dataset, folder: Path, size: int, fit: tuple[CropMode, float]) -> DecodedSet:
    """What `_fill` has left in `folder`; raises ValueError, and others, for what it never leaves.

    All pixels are read once: a byte that has changed on the disk would be learnt from.
    """
    index = json.loads((folder / "index.json").read_text())
    kept = [dataset.samples[i] for i in index["kept"]]
    mode, margin = fit
    filmed = all(math.isfinite(sample.time_s) for sample in dataset.samples)
    decoded = DecodedSet(
        name=dataset.name,
        images=np.load(folder / "images.npy", mmap_mode="c")[: len(kept)],
        points=np.load(folder / "points.npy"),
        names=tuple(sample.name for sample in kept),
        splits=tuple(sample.split for sample in kept),
        scheme=dataset.scheme,
        lengths=np.load(folder / "lengths.npy"),
        skipped=tuple(index["skipped"]),
        crop_scale=margin if mode == "annotation" and dataset.landmark_names else 1.0,
        crop=mode,
        away=None if index["away"] is None else np.load(folder / "away.npy", mmap_mode="c"),
        plain=index["plain"],
        films=tuple((s.name.rpartition("#")[0], s.track or 0, s.time_s) for s in kept if filmed),
        headings=np.array([np.nan if s.heading is None else s.heading for s in kept], np.float32),
        finding=dataset.finding,
        drawn=dataset.drawn,
    )
    points = (len(kept), len(dataset.landmark_names), 2)
    for name, array, dtype, shape in (
        ("images", decoded.images, np.uint8, (len(kept), size, size, 3)),
        ("points", decoded.points, np.float32, points),
        ("lengths", decoded.lengths, np.float32, points[:1]),
        ("away", decoded.away, np.uint8, (len(kept), size, size)),
    ):
        if array is None:
            continue
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} are {array.dtype} {array.shape}, not {dtype} {shape}")
    if len(kept) + len(decoded.skipped) != len(dataset.samples) or decoded.sums != index["sums"]:
        raise ValueError("not the images that were written")
    if decoded.away is not None and zlib.crc32(decoded.away.data) != index["away"]:
        raise ValueError("not what was written of their objects")
    return decoded


def _fill(
    dataset: Dataset,
    size: int,
    fit: tuple[CropMode, float],
    folder: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Decode everything into `folder`; index.json comes last and marks it complete."""
    total = len(dataset.samples)
    masked = all(sample.mask is not None for sample in dataset.samples)
    filmed = any(math.isfinite(sample.time_s) for sample in dataset.samples)

    def one(sample: Sample) -> _Crop | str:
        try:
            image = sample.read()
        except UnreadableImage as error:
            return str(error)
        except MemoryError:
            return f"{sample.name}: does not fit into memory"
        box, scale = object_box(sample, image, *fit)
        square = square_around(box, scale * CONTEXT)
        length = np.float32(sample.length * size / square[2])
        cut, shown = crop(image, square, size), None
        if masked and sample.mask:
            mask = np.repeat(np.uint8(255) * sample.mask()[..., None], 3, axis=2)
            shown = crop(mask, square, size)[..., 0] > 127
        elif not filmed:
            shown = _before_plain(cut, image.shape, square)
        return cut, to_crop(sample.points, square, size), length, shown

    kept: list[int] = []
    points: list[NDArray[np.float32]] = []
    lengths: list[np.float32] = []
    skipped: list[str] = []
    objects: list[NDArray[np.uint8] | None] = []  # a bit a pixel
    with (
        atomic_path(folder / "images.npy") as temporary,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        _check_space(folder, total * size * size * 3)
        images = np.lib.format.open_memmap(temporary, "w+", np.uint8, (total, size, size, 3))
        for done, result in enumerate(pool.map(one, dataset.samples)):
            if isinstance(result, str):
                skipped.append(result)
            else:
                images[len(kept)], found, length, shown = result
                objects.append(None if shown is None else np.packbits(shown))
                kept.append(done)
                points.append(found)
                lengths.append(length)
            progress(done + 1, total)
        known = sum(each is not None for each in objects)
        away = None
        if known >= (1 if masked else max(1, MOST * len(kept))):
            distances = pool.map(functools.partial(_distances, size=size), objects)
            away = _write_away(folder, distances, (len(kept), size, size), progress)
        beside = [None] * len(kept) if away is None or not masked else away
        sums = list(pool.map(_sum, images[: len(kept)], points, lengths, beside))
        images.flush()
    with atomic_path(folder / "points.npy") as temporary:
        count = len(dataset.landmark_names)
        np.save(temporary, np.array(points, np.float32).reshape(len(kept), count, 2))
    with atomic_path(folder / "lengths.npy") as temporary:
        np.save(temporary, np.array(lengths, np.float32))
    index = {"kept": kept, "skipped": skipped, "sums": sums}
    index |= {"away": away if away is None else zlib.crc32(away.data)}
    index |= {"plain": away is not None and not masked}
    write_bytes(folder / "index.json", json.dumps(index).encode())


def _write_away(
    folder: Path,
    distances: Iterator[NDArray[np.uint8]],
    shape: tuple[int, int, int],
    progress: Callable[[int, int], None],
) -> NDArray[np.uint8]:
    """Keep the distances (S,S) of each of N images beside their pixels, as large as the disk."""
    _check_space(folder, math.prod(shape))
    with atomic_path(folder / "away.npy") as temporary:
        away = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        for number, each in enumerate(distances):
            away[number] = each
            progress(number + 1, shape[0])
        away.flush()
    return away


def _before_plain(
    cut: NDArray[np.uint8], shape: tuple[int, ...], square: Box
) -> NDArray[np.bool_] | None:
    """What stands out in a crop (S,S,3) of an image of that shape; nothing does beside the image.

    There the crop has pixels that were invented, from which nothing can be told.
    """
    size = len(cut)
    height, width = shape[:2]
    corners = to_crop(np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]), square, size) + 0.5
    (left, top), (right, bottom) = corners.clip(0, size)
    inside = slice(math.ceil(top), int(bottom)), slice(math.ceil(left), int(right))
    photo = cut[inside]
    found = standing_out(photo) if min(photo.shape[:2]) >= _FEWEST else None
    if found is None:
        return None
    shown = np.zeros((size, size), bool)
    shown[inside] = found
    return shown


def _distances(bits: NDArray[np.uint8] | None, size: int) -> NDArray[np.uint8]:
    """How far each pixel of a crop is from its object; 0 all over where that is not known."""
    from scipy import ndimage

    if bits is None:
        return np.zeros((size, size), np.uint8)
    shown = np.unpackbits(bits, count=size * size).reshape(size, size).astype(bool)
    if not shown.any():
        return np.full(shown.shape, _FAR, np.uint8)
    return np.minimum(ndimage.distance_transform_edt(~shown), _FAR).round().astype(np.uint8)


def _sum(
    image: NDArray[np.uint8],
    points: NDArray[np.float32],
    length: np.float32,
    away: NDArray[np.uint8] | None,
) -> int:
    crc = zlib.crc32(np.ascontiguousarray(points, np.float32).data, zlib.crc32(image.data))
    return zlib.crc32(length.tobytes() + (b"" if away is None else away.tobytes()), crc)


def _check_space(folder: Path, needed: int) -> None:
    """A memory map on a full disk dies by SIGBUS, so ask before."""
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
