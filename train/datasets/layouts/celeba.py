"""Layouts `celeba` and `mafl`: aligned celebrity faces with five points.

Images lie in `Img/img_align_celeba/`, the annotations in `Anno/list_landmarks_align_celeba.txt`
and `Eval/list_eval_partition.txt`, as CelebA is distributed, or both beside each other; the images
may be those of the mirror of VGG, `img_align_celeba_hq/`. MAFL is a selection of them:
`MAFL/training.txt` and `MAFL/testing.txt`, a file name a line.

Left and right are the viewer's. The points are whole numbers of which no source says whether they
count from 0 or 1; all published readers take them as they are, and so does this one.
"""

from __future__ import annotations

import io
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.files import open_regular
from lmk.runtime.images import Box
from lmk.train.datasets.layouts.listing import Listing, first_of
from lmk.train.datasets.sample import Dataset, Layout, scheme_of

SCHEME = scheme_of(("l_eye", "r_eye", "nose", "l_mouth", "r_mouth"))
# The central 80 % of the 178x218 pixels, as Jakab et al. (2018) crop: the images are aligned, so
# one box fits all of them without knowing their points.
BOX: Box = (17.8, 21.8, 142.4, 174.4)
_COLUMNS = (
    "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y "
    "leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
)
_LANDMARKS = ("Anno/list_landmarks_align_celeba.txt", "list_landmarks_align_celeba.txt")
_PARTITION = ("Eval/list_eval_partition.txt", "list_eval_partition.txt")
_IMAGES = (
    "Img/img_align_celeba",
    "img_align_celeba",
    "Img/img_align_celeba_hq",
    "img_align_celeba_hq",
)
_TRAIN, _TEST = "MAFL/training.txt", "MAFL/testing.txt"


def open_celeba(root: Path) -> Dataset:
    """All images of CelebA under `root`.

    Split "test" are the images of MAFL/testing.txt where that file is, and all others "train", as
    in the paper; else the official partition: train, val, test. With neither, there is no split,
    and `problems` says so. Raises UserError when the annotations are something else.
    """
    listing, names, points = _open(root, "celeba")
    testing, partition = first_of(root, _TEST), first_of(root, *_PARTITION)
    if testing:
        held_out = set(_annotated(listing, testing, listing.lines(testing), set(names)))
        splits = ["test" if name in held_out else "train" for name in names]
    elif partition:
        splits = _partition(listing, partition, names)
    else:
        listing.leave_out("no split, for want of", f"{_TEST} or {_PARTITION[0]}")
        splits = [""] * len(names)
    listing.take(names, points, splits, BOX)
    return listing.dataset(root.resolve().name)


def open_mafl(root: Path) -> Dataset:
    """The images of MAFL in a CelebA folder: splits train (19,000) and test (1,000).

    An image of both lists is held out: only in "test". Raises UserError as `open_celeba`.
    """
    listing, names, points = _open(root, "mafl")
    rows = {name: row for row, name in enumerate(names)}
    for split, source in (("test", root / _TEST), ("train", root / _TRAIN)):
        chosen = _annotated(listing, source, listing.lines(source), rows.keys())
        listing.take(chosen, points[[rows[name] for name in chosen]], split, BOX)
    return listing.dataset(root.resolve().name)


def _open(root: Path, layout: str) -> tuple[Listing, list[str], NDArray[np.float64]]:
    """The listing, with the images scanned, all names and their points (N,5,2)."""
    folder, source = first_of(root, *_IMAGES), first_of(root, *_LANDMARKS)
    assert folder and source, "what makes a folder be recognised"
    listing = Listing(layout, folder, SCHEME)
    listing.scan()
    promised = _header(source)
    names, numbers = listing.table(source, 10, skip=2)
    if promised != len(names):
        got = f"{len(names):,}, and {promised:,} by its header"
        listing.leave_out(f"annotations in {source.name}", got)
    return listing, names, numbers.reshape(-1, 5, 2)


def _header(source: Path) -> int:
    """The number of images that a landmark file promises; raises UserError if it is not one."""
    with io.TextIOWrapper(open_regular(source), "utf-8-sig", "replace") as file:
        count, columns = file.readline().strip(), " ".join(file.readline().split())
    if not count.isdecimal() or columns != _COLUMNS:
        raise UserError(
            f"{source}: got '{count[:40]}', '{columns[:40]}' in its first two lines, expected the "
            "number of images and the names of ten columns, lefteye_x …; get the file again"
        )
    return int(count)


def _annotated(
    listing: Listing, source: Path, listed: list[str], names: AbstractSet[str]
) -> list[str]:
    """Those of `listed`, the lines of `source`, that are among `names`; the others are told."""
    for name in listed:
        if name and name not in names:
            listing.leave_out(f"images of {source.name} without an annotation", name)
    return [name for name in listed if name in names]


def _partition(listing: Listing, source: Path, names: list[str]) -> list[str]:
    listed, numbers = listing.table(source, 1)
    _annotated(listing, source, listed, set(names))
    words = {0.0: "train", 1.0: "val", 2.0: "test"}
    splits = dict(zip(listed, (words.get(number, "") for number in numbers[:, 0]), strict=True))
    for name in names:
        if not splits.get(name):
            listing.leave_out(f"images that {source.name} puts nowhere, now without a split", name)
    return [splits.get(name, "") for name in names]


def _is_celeba(root: Path) -> bool:
    return first_of(root, *_IMAGES) is not None and first_of(root, *_LANDMARKS) is not None


def _is_mafl(root: Path) -> bool:
    return _is_celeba(root) and (root / _TRAIN).is_file() and (root / _TEST).is_file()


CELEBA = Layout(
    "celeba", f"{_IMAGES[0]}/ and {_LANDMARKS[0]}", _is_celeba, open_celeba, SCHEME.names
)
MAFL = Layout(
    "mafl",
    f"{_IMAGES[0]}/, {_LANDMARKS[0]}, {_TRAIN} and {_TEST}",
    _is_mafl,
    open_mafl,
    SCHEME.names,
)
