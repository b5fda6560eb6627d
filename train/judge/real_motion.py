"""Neighbouring frames of films -> whether landmarks go where the picture under them has gone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmk.train.datasets import PointArray

NEIGHBOUR_S = 0.25  # frames so near to each other show the same, moved a little
_HALF, _REACH = 6, 12  # of a patch and of the search for it, in pixels of a crop of 128
_LEAST_ALIKE = 0.8  # correlation of a patch with where it has gone
_PLAIN = 4.0  # grey levels: a patch that varies less looks like its surroundings
_RETURNS_PX = 2.0  # a patch that is followed there and back must come back so near
Pairs = Sequence[tuple[int, int]]


def neighbours(films: Sequence[tuple[str, int, float]]) -> Pairs:
    """Which of the crops, by film, track and seconds, show one object in frames close in time."""
    order = sorted(range(len(films)), key=films.__getitem__)
    return [
        (a, b)
        for a, b in zip(order, order[1:], strict=False)
        if films[a][:2] == films[b][:2] and 0 < films[b][2] - films[a][2] <= NEIGHBOUR_S
    ]


def moving_errors(images: NDArray[np.uint8], found: PointArray, pairs: Pairs) -> PointArray:
    """How far landmarks (N,K,2) of crops (N,S,S,3) are from where the picture at them has gone.

    Of each pair forward and backward: (2P,K) pixels of the crop. NaN where that cannot be told,
    for the picture is plain there, has changed, or is not found again on the way back.
    """
    scale = images.shape[1] / 128
    half, reach = max(2, round(_HALF * scale)), max(4, round(_REACH * scale))
    grey = np.pad(
        images.mean(axis=3, dtype=np.float32), ((0, 0), *((half + reach,) * 2,) * 2), mode="edge"
    )
    errors = np.full((2 * len(pairs), found.shape[1]), np.nan, np.float32)
    ways = [way for a, b in pairs for way in ((a, b), (b, a))]
    for row, (a, b) in enumerate(ways):
        for k, point in enumerate(found[a]):
            there = _followed(grey[a], grey[b], point, half, reach)
            back = None if there is None else _followed(grey[b], grey[a], there, half, reach)
            if back is not None and np.linalg.norm(back - point) <= _RETURNS_PX * scale:
                errors[row, k] = np.linalg.norm(found[b, k] - there)
    return errors


def _followed(
    one: NDArray[np.float32], other: NDArray[np.float32], point: PointArray, half: int, reach: int
) -> PointArray | None:
    """Where the patch about `point` of a padded picture is in another, within reach; or None."""
    size = one.shape[0] - 2 * (half + reach)
    x, y = (int(round(min(max(float(v), 0), size - 1))) for v in point)
    left, top = x + reach, y + reach  # of the patch, in the padded picture
    patch = one[top : top + 2 * half + 1, left : left + 2 * half + 1]
    if patch.std() < _PLAIN:
        return None
    area = other[y : y + 2 * (half + reach) + 1, x : x + 2 * (half + reach) + 1]
    windows = np.lib.stride_tricks.sliding_window_view(area, patch.shape)
    apart = windows - windows.mean(axis=(2, 3), keepdims=True)
    alike = (apart * (patch - patch.mean())).sum(axis=(2, 3))
    alike /= np.sqrt((apart**2).sum(axis=(2, 3)) * ((patch - patch.mean()) ** 2).sum()) + 1e-6
    row, column = np.unravel_index(int(alike.argmax()), alike.shape)
    if alike[row, column] < _LEAST_ALIKE:
        return None
    return point + np.array([column - reach, row - reach], np.float32)
