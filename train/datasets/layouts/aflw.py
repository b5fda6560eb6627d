"""Layouts `aflw` and `mtfl`: faces of Flickr with five points, in two preparations.

`aflw`: the lists of Jakab et al. (2018), `aflw_{train,test}_images.txt` and
`aflw_{train,test}_keypoints.mat`, which holds `gt` N×5×2 in the order (y, x) and `hw`, the sizes;
images in `output/`. Its points are taken as they are, as by every published reader. 132 faces are
in the test list twice.

`mtfl`: `testing.txt` (AFLW) and `training.txt` (LFW and the net) of Zhang et al. (2014): a path
with backslashes, five x, five y, four attributes. Made with Matlab, whose pixels count from 1
(Thewlis et al. subtract it as well): here from 0.

Left and right are the viewer's. The same images are numbered otherwise in the two: do not mix.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.train.datasets.layouts.listing import Listing, first_of
from lmk.train.datasets.layouts.matlab import ONE_BASED, read_mat
from lmk.train.datasets.sample import Dataset, Layout, scheme_of

SCHEME = scheme_of(("l_eye", "r_eye", "nose", "l_mouth", "r_mouth"))
_AFLW_IMAGES, _AFLW_POINTS = "aflw_{}_images.txt", "aflw_{}_keypoints.mat"
_MTFL = {"test": "testing.txt", "train": "training.txt"}
_MTFL_FOLDERS = ("AFLW", "lfw_5590", "net_7876")
_ATTRIBUTES = 4  # gender, smile, glasses, head pose


def open_aflw(root: Path) -> Dataset:
    """Images of the prepared lists in `root`: splits train (10,122) and test (2,859 and 132 twice).

    An image of both lists is held out: only in "test". One list may be missing, which `problems`
    tells. Raises UserError when a list and its points are not of equal length.
    """
    listing = Listing(AFLW.name, root / "output", SCHEME)
    listing.scan(deep=True)
    for split in ("test", "train"):  # the first to name an image keeps it
        source = root / _AFLW_IMAGES.format(split)
        if source.exists():
            names = [line.replace("\\", "/") for line in listing.lines(source) if line]
            points = _points(listing, root / _AFLW_POINTS.format(split), source, len(names))
            listing.take(names, points, split)
        else:
            listing.leave_out("absent lists", source.name)
    return listing.dataset(root.resolve().name)


def _points(listing: Listing, path: Path, source: Path, count: int) -> NDArray[np.floating]:
    """The points (N,5,2) in (x, y) of as many images as `source` lists."""
    points = read_mat(listing.use(path), "gt")
    if points.shape != (count, 5, 2) or points.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: got 'gt' of shape {points.shape} ({points.dtype}), expected numbers of shape "
            f"({count}, 5, 2), as {source.name} lists; get both files again"
        )
    return points[:, :, ::-1]


def open_mtfl(root: Path) -> Dataset:
    """Images of `testing.txt` (2,995) and `training.txt` (10,000) in `root`: splits test and train.

    One list may be missing, which `problems` tells.
    """
    listing = Listing(MTFL.name, root, SCHEME)
    for folder in _MTFL_FOLDERS:
        listing.scan(folder, deep=True)
    for split, name in _MTFL.items():  # the first to name an image keeps it
        if os.path.exists(root / name):
            paths, numbers = listing.table(root / name, 10 + _ATTRIBUTES)
            points = numbers[:, :10].reshape(-1, 2, 5).transpose(0, 2, 1) - ONE_BASED
            listing.take([path.replace("\\", "/") for path in paths], points, split)
        else:
            listing.leave_out("absent lists", name)
    return listing.dataset(root.resolve().name)


def _is_aflw(root: Path) -> bool:
    lists = (_AFLW_IMAGES.format(split) for split in ("train", "test"))
    return first_of(root, *lists) is not None and (root / "output").is_dir()


def _is_mtfl(root: Path) -> bool:
    return bool(first_of(root, *_MTFL.values()) and first_of(root, *_MTFL_FOLDERS))


AFLW = Layout(
    "aflw",
    "aflw_train_images.txt, aflw_test_images.txt, their …_keypoints.mat and output/",
    _is_aflw,
    open_aflw,
    SCHEME.names,
)
MTFL = Layout(
    "mtfl",
    f"training.txt, testing.txt and {', '.join(f'{name}/' for name in _MTFL_FOLDERS)}",
    _is_mtfl,
    open_mtfl,
    SCHEME.names,
)
