"""Found landmarks and a few annotated points -> weights that give the points, and their errors.

The paper's forward direction, for 5 to 50 images instead of thousands. A ridge regression from all
coordinates to all coordinates has twenty unknowns a coordinate, more than there are equations. Here
a point is a weighted mean of the landmarks plus an offset: x and y share the weights, which sum
to 1, so that the point goes where the landmarks go. Ridge draws the weights towards those of a mean
of the landmarks near the point. Of images in which a point is further off than usual each counts
less, by Huber's weights: where a landmark was lost, it would spoil the fit for all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmk.train.datasets import PointArray

Doubles = NDArray[np.float64]
# Strengths to choose from, strong ones first: they win ties. A strength of 1 weighs as much as one
# image does, in units of the largest entry of X'X: the size of images and crops does not matter.
RIDGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
PARTS = 50  # fits for images left out
_NEAR = 0.3  # of the landmarks' spread: how near a landmark is to be
_ROUNDS = 5  # of counting what is far off for less: the fit then hardly changes
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
    there = np.asarray(np.isfinite(points).all(axis=2))
    landmarks, known = found.astype(np.float64), np.where(there[..., None], points, 0.0)
    near = _near(landmarks, known, there)
    # About the mean of the landmarks near by: it takes the point along, with no unknowns.
    middle = np.einsum("mk,nka->mna", near, landmarks)
    x = landmarks.transpose(0, 2, 1) - middle[..., None]
    y = known.transpose(1, 0, 2) - middle
    tried = [_solve(x, y, there.T, strength) for strength in (RIDGES if ridge is None else [ridge])]
    best = min(tried, key=lambda solved: float(np.nanmean(solved.left_out)))
    weight = near + best.extra - near * best.extra.sum(axis=1, keepdims=True)
    rest = known - np.einsum("mk,nka->nma", weight, landmarks)
    offset = np.einsum("mn,nma->ma", best.counts, rest) / best.counts.sum(axis=1, keepdims=True)
    return Fit(weight, offset, best.ridge)


def leave_one_out(found: PointArray, points: PointArray, ridge: float | None = None) -> Doubles:
    """Points (N,M,2) of each image by the fit to the others, which choose their own ridge.

    Of more than PARTS images several are left out at a time.
    """
    said = np.empty(points.shape)
    for part in np.array_split(np.arange(len(found)), min(len(found), PARTS)):
        others = np.setdiff1d(np.arange(len(found)), part)
        said[part] = fit(found[others], points[others], ridge)(found[part])
    return said


def mean_shape(points: PointArray) -> Doubles:
    """Points (N,M,2) of each image as the mean of the others': what one says without looking."""
    present = np.isfinite(points)
    total = np.where(present, points, 0.0).sum(axis=0)
    return (total - np.where(present, points, 0.0)) / np.maximum(present.sum(axis=0) - present, 1)


def _near(found: Doubles, points: Doubles, there: NDArray[np.bool_]) -> Doubles:
    """Weights (M,K) of the landmarks by how near they are to each point, typically."""
    shape = found.mean(axis=0)
    spread = np.square(shape - shape.mean(axis=0)).sum(axis=1).mean()
    away = np.square(found[:, None] - points[:, :, None]).sum(axis=3)  # (N,M,K)
    typical = np.einsum("nm,nmk->mk", there, away) / there.sum(axis=0)[:, None]
    typical /= max(2 * _NEAR**2 * spread, _TINY)
    weight = np.exp(typical.min(axis=1, keepdims=True) - typical)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class _Solved:
    ridge: float
    extra: Doubles  # (M,K): weights beside those of `_near`
    counts: Doubles  # (M,N): how much each image counts for each point
    left_out: Doubles  # (M,N): errors of what the others say of an image, NaN where unknown


def _solve(x: Doubles, y: Doubles, there: NDArray[np.bool_], ridge: float) -> _Solved:
    """Fit x (M,N,2,K) to y (M,N,2), where `there` (M,N).

    No fit is repeated to leave out images: the residual of one is (I - H)^-1 times that of the
    whole fit, H (2,2) its block of the hat matrix, which holds the offset's part, too.
    """
    points, images, _, landmarks = x.shape
    counts = there.astype(np.float64)
    for last in (*(False,) * _ROUNDS, True):
        shares = counts / counts.sum(axis=1, keepdims=True)
        moved = x - np.einsum("mn,mnak->mak", shares, x)[:, None]
        wanted = y - np.einsum("mn,mna->ma", shares, y)[:, None]
        a = moved.reshape(points, 2 * images, landmarks)
        weighted = a * np.repeat(counts, 2, axis=1)[..., None]
        square = weighted.transpose(0, 2, 1) @ a
        largest = np.einsum("mkk->mk", square).max(axis=1)
        strength = np.maximum(ridge / there.sum(axis=1) * largest, _TINY)
        inverse = np.linalg.inv(square + strength[:, None, None] * np.eye(landmarks))
        extra = inverse @ (weighted.transpose(0, 2, 1) @ wanted.reshape(points, -1, 1))
        residual = wanted - (a @ extra).reshape(wanted.shape)
        if not last:
            off = np.linalg.norm(residual, axis=2)
            counts = there / np.maximum(1.0, off / np.maximum(_median(off, there), _TINY))
    hat = counts[..., None, None] * (moved @ inverse[:, None] @ moved.transpose(0, 1, 3, 2))
    hat += shares[..., None, None] * np.eye(2)
    alone = np.linalg.norm(np.linalg.solve(np.eye(2) - hat, residual[..., None])[..., 0], axis=2)
    return _Solved(ridge, extra[..., 0], counts, np.where(there, alone, np.nan))


def _median(values: Doubles, there: NDArray[np.bool_]) -> Doubles:
    """Of each row (M,N) the median (M,1) of those that are there; np.nanmedian goes row by row."""
    ordered = np.sort(np.where(there, values, np.inf), axis=1)
    count = there.sum(axis=1, keepdims=True)
    two = np.concatenate([(count - 1) // 2, count // 2], axis=1)
    return np.take_along_axis(ordered, two, axis=1).mean(axis=1, keepdims=True)
