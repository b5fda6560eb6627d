"""Layout `cats`: heads of cats with nine points (Zhang, Sun & Tang 2008).

`CAT_00/` to `CAT_06/`, in them `NAME.jpg` and `NAME.jpg.cat`: one line, "9 x1 y1 … x9 y9 ". Left
and right are the viewer's. The three points of an ear run from left to right in both: outer base,
tip, inner base of the left one, inner base, tip, outer base of the right one. The points are whole
pixels, set by hand, and taken as counting from 0; no source says.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmk.train.datasets.layouts.listing import Listing
from lmk.train.datasets.sample import CAT, Dataset, Layout

FOLDERS = tuple(f"CAT_{index:02}" for index in range(7))
# Four folders to train on and three to test, as in the paper, which does not say which: the first.
_TRAIN_FOLDERS = 4
# The makers of the data set withdrew the one for the other, which they hand out apart.
_WRONG, _RIGHT = "CAT_00/00000003_019.jpg.cat", "CAT_00/00000003_015.jpg.cat"


def open_cats(root: Path) -> Dataset:
    """Images of `CAT_00` to `CAT_06` in `root` with nine points: splits train and test.

    Images without points and points that cannot be read are left out and told in `problems`, as
    are absent folders, the annotation that is known to be wrong while its correction is absent,
    and a second copy of everything in `cats/`.
    """
    listing = Listing(LAYOUT.name, root, CAT)
    for index, folder in enumerate(FOLDERS):
        images = listing.scan(folder)
        for annotation in listing.scan(folder, {".cat"}):
            absent = annotation.removesuffix(".cat") not in listing.files
            if absent and annotation not in (_WRONG, _RIGHT):
                listing.leave_out("points whose image is absent", annotation)
        if not images:
            listing.leave_out("folders without images", f"{folder}/")
        split = "train" if index < _TRAIN_FOLDERS else "test"
        listing.take_each(images, _annotation_of, _points, split)
    if _WRONG in listing.files and _RIGHT not in listing.files:
        listing.leave_out(
            f"annotation known to be wrong, whose correction {_RIGHT} is absent", _WRONG
        )
    if _is_cats(root / "cats"):
        listing.leave_out("second copy of the data set, not read", "cats/")
    return listing.dataset(root.resolve().name)


def _annotation_of(name: str) -> str:
    return "" if f"{name}.cat" == _WRONG else f"{name}.cat"


def _points(path: Path) -> NDArray[np.float64]:
    """Points (9,2); raises ValueError with what there is instead."""
    cells = path.read_bytes().split()
    if not cells or cells[0] != b"9" or len(cells) != 19:
        raise ValueError(f"got {len(cells)} numbers, expected 9 and then 18")
    try:
        return np.array([float(cell) for cell in cells[1:]]).reshape(9, 2)
    except ValueError:
        raise ValueError("got something else than numbers") from None


def _is_cats(root: Path) -> bool:
    return any((root / folder).is_dir() for folder in FOLDERS)


LAYOUT = Layout(
    "cats",
    "CAT_00/ to CAT_06/ with NAME.jpg and NAME.jpg.cat",
    _is_cats,
    open_cats,
    CAT.names,
)
