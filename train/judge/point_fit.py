"""Found landmarks and a few annotated points -> weights that give the points, and their errors.

The paper's forward direction, for 5 to 50 images instead of thousands. A ridge regression from all
coordinates to all coordinates has twenty unknowns a coordinate, more than there are equations. Here
a point is a weighted mean of the landmarks plus an offset: x and y share the weights, which sum
to 1, so that the point goes where the landmarks go. Ridge draws the weights towards equal ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmk.train.datasets import PointArray
from lmk.train.split import Indices

Doubles = NDArray[np.float64]
# Strengths to choose from, strong ones first: they win ties. In units of the largest entry of X'X,
# as in `regression.py`, so that the size of images and crops does not matter.
RIDGES = tuple(float(10.0**power) for power in np.arange(1, -3.5, -0.5))
_TINY = 1e-12  # against 0/0 where no landmark moves


@dataclass(frozen=True)
class Fit:
    """How M points follow from K landmarks: `weight` (M,K), rows summing to 1, `offset` (M,2)."""

    weight: Doubles
    offset: Doubles
    ridge: float

    def __call__(self, found: PointArray) -> Doubles:
        """Landmarks (N,K,2) -> points (N,M,2), in the same pixels."""
        return np.einsum("mk,nka->nma", self.weight, found) + self.offset


def fit(found: PointArray, points: PointArray, ridge: float | None = None) -> Fit:
    """Fit landmarks `found` (N,K,2) to `points` (N,M,2), NaN where missing; N is 2 or more.

    ridge: the strength, over 0; None for the one of RIDGES whose error, images left out one at a
    time, is least on average over all images and points.
    """
    strengths = np.array(RIDGES if ridge is None else [ridge])
    groups = [_Group(found, points, columns) for columns in _alike(points)]
    if ridge is None:
        errors = np.concatenate([group.left_out(strengths) for group in groups], axis=1)
        ridge = float(strengths[np.argmin(errors.mean(axis=1))])
    count = points.shape[1]
    weight, offset = np.empty((count, found.shape[1])), np.empty((count, 2))
    for group in groups:
        weight[group.columns], offset[group.columns] = group.solve(ridge)
    return Fit(weight, offset, ridge)


def leave_one_out(found: PointArray, points: PointArray, ridge: float | None = None) -> Doubles:
    """Points (N,M,2) of each image by the fit to the others, which choose their own ridge."""
    others = ~np.eye(len(found), dtype=bool)
    each = [
        fit(found[kept], points[kept], ridge)(found[i : i + 1]) for i, kept in enumerate(others)
    ]
    return np.concatenate(each)


def mean_shape(points: PointArray) -> Doubles:
    """Points (N,M,2) of each image as the mean of the others': what one says without looking."""
    present = np.isfinite(points)
    total = np.where(present, points, 0.0).sum(axis=0)
    return (total - np.where(present, points, 0.0)) / np.maximum(present.sum(axis=0) - present, 1)


def _alike(points: PointArray) -> list[Indices]:
    """Groups of points that are missing in the same images."""
    masks = np.isfinite(points).all(axis=2)
    _, kinds = np.unique(masks, axis=1, return_inverse=True)
    return [np.flatnonzero(kinds.ravel() == kind) for kind in range(kinds.max() + 1)]


class _Group:
    """The points `columns`, on the images that have them; x and y are rows of their own."""

    def __init__(self, found: PointArray, points: PointArray, columns: Indices) -> None:
        self.columns = columns
        present = np.isfinite(points[:, columns[0]]).all(axis=1)
        self.found, self.points = found[present].astype(np.float64), points[present][:, columns]
        self.images, self.landmarks = self.found.shape[:2]
        # About the middle of each image's landmarks: it takes the point along, with no unknowns.
        middle = self.found.mean(axis=1, keepdims=True)
        x, y = self.found - middle, self.points - middle
        a = (x - x.mean(axis=0)).transpose(0, 2, 1).reshape(2 * self.images, -1)
        self.b = (y - y.mean(axis=0)).transpose(0, 2, 1).reshape(2 * self.images, -1)
        self.u, self.s, self.vt = np.linalg.svd(a, full_matrices=False)
        self.largest = float(np.abs(a.T @ a).max())

    def solve(self, ridge: float) -> tuple[Doubles, Doubles]:
        """Weights (M,K) and offsets (M,2)."""
        gain = self.s / np.maximum(self.s**2 + ridge * self.largest, _TINY)
        weight = 1 / self.landmarks + ((self.vt.T * gain) @ (self.u.T @ self.b)).T
        rest = self.points - np.einsum("mk,nka->nma", weight, self.found)
        return weight, rest.mean(axis=0)

    def left_out(self, ridges: Doubles) -> Doubles:
        """Errors (R, images times M) in pixels of what each image's fit without it would say.

        No fit is repeated: the residual of a left-out image is (I - H)^-1 times that of the whole
        fit, H (2,2) the image's block of the hat matrix, which holds the offset's part, 1/N, too.
        """
        squares = self.s**2
        kept = squares / np.maximum(squares + ridges[:, None] * self.largest, _TINY)  # (R,r)
        residual = self.b - (self.u * kept[:, None]) @ (self.u.T @ self.b)  # (R,2N,M)
        u = self.u.reshape(self.images, 2, -1)
        hat = np.einsum("nar,Rr,nbr->Rnab", u, kept, u) + np.eye(2) / self.images
        residual = residual.reshape(len(ridges), self.images, 2, -1)
        alone = np.linalg.solve(np.eye(2) - hat, residual)  # (R,N,2,M)
        return np.linalg.norm(alone, axis=2).reshape(len(ridges), -1)
