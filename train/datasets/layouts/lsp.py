"""Layout `lsp`: Leeds Sports Pose and its extended training set, one person an image.

`joints.mat` beside `images/`. LSP: `joints` is 3×14×N, images `im0001.jpg` on, the first 1,000 for
training, the others for testing; its third row marks joints that are hidden, whose place is known
all the same, so they are kept, as in the PCK of the literature. LSPET: 14×3×N, images
`im00001.jpg` on, all for training; there the third column is 0 for joints that nobody placed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.images import read_image
from lmk.train.datasets.layouts.listing import Listing
from lmk.train.datasets.layouts.matlab import ONE_BASED, read_mat
from lmk.train.datasets.sample import Dataset, Layout, Sample, scheme_of

FILE_NAME = "joints.mat"
# fmt: off
NAMES = (
    "r_ankle", "r_knee", "r_hip", "l_hip", "l_knee", "l_ankle", "r_wrist", "r_elbow", "r_shoulder",
    "l_shoulder", "l_elbow", "l_wrist", "neck", "head_top",
)
# fmt: on
_TRAIN_COUNT = 1000  # of LSP


def open_lsp(root: Path) -> Dataset:
    """Read `root`/joints.mat: 14 points (x, y) a person, pixels of the image, NaN where missing.

    Absent images and people with NaN or without any point are left out and told in `problems`.
    Raises UserError if joints.mat cannot be read or has another shape, or nothing is left.
    """
    listing = Listing("lsp", root, scheme_of(NAMES))
    listing.scan("images")
    joints, extended = _joints(listing.use(root / FILE_NAME))
    digits = 5 if extended else 4
    for index, (xy, flags) in enumerate(joints):
        name = f"images/im{index + 1:0{digits}}.jpg"
        placed = flags > 0 if extended else np.ones(len(NAMES), bool)
        if name not in listing.files:
            listing.leave_out(f"images of {FILE_NAME} that are absent", name)
        elif not np.isfinite(xy[placed]).all():
            listing.leave_out("people with a point that is no number", name)
        elif not placed.any():
            listing.leave_out("people without any point", name)
        else:
            read = partial(read_image, root / name, upright=False)
            split = "train" if extended or index < _TRAIN_COUNT else "test"
            points = np.where(placed[:, None], xy - ONE_BASED, np.nan).astype(np.float32)
            listing.samples[name] = Sample(name, read, points, split)
    return listing.dataset(root.resolve().name)


def _joints(table: Path) -> tuple[list[tuple[NDArray[Any], NDArray[Any]]], bool]:
    """Points (14,2) and flags (14,) of each person, and whether it is the extended set."""
    values = read_mat(table, "joints")
    if values.ndim == 2:  # Matlab drops the last axis of a single person
        values = values[..., None]
    if values.dtype.kind not in "fiu" or values.shape[:2] not in ((3, 14), (14, 3)):
        raise UserError(
            f"{table}: got 'joints' of {'×'.join(map(str, values.shape))} {values.dtype}, "
            "expected 3×14×N (LSP) or 14×3×N (LSPET) numbers; get the original file"
        )
    values = values.astype(np.float64)
    extended = values.shape[0] == 14
    people = values.transpose(2, 0, 1) if extended else values.transpose(2, 1, 0)
    return [(person[:, :2], person[:, 2]) for person in people], extended


LAYOUT = Layout(
    "lsp",
    f"{FILE_NAME} (3×14×N or 14×3×N) and images/im0001.jpg or im00001.jpg on",
    lambda root: (root / FILE_NAME).is_file(),
    open_lsp,
    NAMES,
)
