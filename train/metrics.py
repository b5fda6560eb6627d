"""Points against annotated points: which length errors are divided by, and PCK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PointArray = NDArray[np.float32]


@dataclass(frozen=True)
class Normaliser:
    """The length (pixels) that errors of an image are divided by."""

    label: str
    pair: tuple[int, int] | None  # distance between two landmarks; None: the box of all of them

    def lengths(self, points: PointArray) -> PointArray:
        """Points (N,P,2), NaN where missing -> lengths (N,), NaN where they cannot be had."""
        if self.pair is not None:
            first, second = self.pair
            lengths = np.linalg.norm(points[:, first] - points[:, second], axis=1)
        else:
            seen = np.isfinite(points).all(axis=2).sum(axis=1) >= 2
            extent = np.full((len(points), 2), np.nan, np.float32)
            extent[seen] = np.nanmax(points[seen], axis=1) - np.nanmin(points[seen], axis=1)
            lengths = np.sqrt(extent[:, 0] * extent[:, 1])
        return np.where(lengths > 1e-3, lengths, np.nan).astype(np.float32)


_PAIRS = (
    ("torso", "l_shoulder", "r_hip"),  # PCK of the Leeds Sports Pose literature
    ("inter-ocular", "l_eye", "r_eye"),
)
_OUTER_EYE_CORNERS = (36, 45)  # of the 68 iBUG points


def normaliser_for(landmark_names: Sequence[str]) -> Normaliser:
    """Torso (l_shoulder to r_hip), inter-ocular (eyes; outer corners of 68 points), else box.

    Box is the square root of the area of the box of the annotated points.
    """
    for label, first, second in _PAIRS:
        if first in landmark_names and second in landmark_names:
            return Normaliser(label, (landmark_names.index(first), landmark_names.index(second)))
    if len(landmark_names) == 68:
        return Normaliser("inter-ocular", _OUTER_EYE_CORNERS)
    return Normaliser("box", None)


def flip_map(landmark_names: Sequence[str]) -> list[int] | None:
    """Index of each landmark's mirror twin, from names `l_…`/`r_…` or `left_…`/`right_…`.

    None if no name has a side: then what a mirror image does to the points is not known.
    """
    twins = {"l_": "r_", "r_": "l_", "left_": "right_", "right_": "left_"}
    order = []
    for index, name in enumerate(landmark_names):
        side = next((s for s in twins if name.startswith(s)), None)
        twin = name if side is None else twins[side] + name[len(side) :]
        order.append(landmark_names.index(twin) if twin in landmark_names else index)
    return None if order == list(range(len(landmark_names))) else order


def pck(
    predicted: PointArray, truth: PointArray, lengths: PointArray, threshold: float = 0.2
) -> tuple[float, PointArray]:
    """Share of points (N,P,2) found within `threshold` × length (N,): overall, and each (P,)."""
    error = np.linalg.norm(predicted - truth, axis=2) / lengths[:, None]
    known = np.isfinite(error)
    correct = (error < threshold) & known
    each = correct.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return float(correct.sum() / max(known.sum(), 1)), each.astype(np.float32)
