"""Layout `300w-lp`: faces of 300W turned to large poses, 68 points (Zhu et al. 2016).

Images of 450x450 pixels in `AFW/`, `HELEN/`, `IBUG/` and `LFPW/`, their points in
`landmarks/AFW/NAME_pts.mat` and so on. Of the two sets of points in it, `pts_3d` is taken: where
the points of the skull are seen, not where its outline is, as LS3D-W is annotated and as the
experiments that test on LS3D-W train. The mirrored copies in `AFW_Flip/` and so on are left to
augmentation. Points are taken as counting from 0: the training code of the makers of LS3D-W adds
1 for Torch, which counts from 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lmk.runtime.images import Box
from lmk.train.datasets.layouts.listing import Listing, first_of
from lmk.train.datasets.layouts.matlab import read_mat
from lmk.train.datasets.sample import Dataset, Layout, scheme_of

SCHEME = scheme_of([f"p{index}" for index in range(68)])
FOLDERS = ("AFW", "HELEN", "IBUG", "LFPW")
# The same for all images, so it owes nothing to the points: Bulat & Tzimiropoulos (2017) crop 360
# pixels about (225, 275), and every face was put there before it was turned.
BOX: Box = (45.0, 95.0, 360.0, 360.0)


def open_w300lp(root: Path) -> Dataset:
    """Images of the four folders in `root`, 68 points each; all are in split "train".

    Images without points, and points that cannot be read or are not 68×2, are left out and told in
    `problems`, as are absent folders.
    """
    listing = Listing(LAYOUT.name, root, SCHEME)
    for folder in FOLDERS:
        images = listing.scan(folder)
        if not images:
            listing.leave_out("folders without images", f"{folder}/")
        listing.scan(f"landmarks/{folder}", {".mat"})
        listing.take_each(images, _annotation_of, _points, "train", BOX)
        if (root / f"{folder}_Flip").is_dir():
            listing.note("mirrored copies, not read", f"{folder}_Flip/")
    return listing.dataset(root.resolve().name)


def _annotation_of(name: str) -> str:
    return f"landmarks/{name.rpartition('.')[0]}_pts.mat"


def _points(path: Path) -> NDArray[Any]:
    found = read_mat(path, "pts_3d")
    if found.shape != (68, 2) or found.dtype.kind not in "fiu":
        raise ValueError(f"got {found.shape}, expected 68 points")
    return found


def _is_w300lp(root: Path) -> bool:
    return any((root / "landmarks" / name).is_dir() for name in FOLDERS) and bool(
        first_of(root, *FOLDERS)
    )


LAYOUT = Layout(
    "300w-lp",
    "AFW/, HELEN/, IBUG/, LFPW/ and landmarks/ with NAME_pts.mat",
    _is_w300lp,
    open_w300lp,
    SCHEME.names,
)
