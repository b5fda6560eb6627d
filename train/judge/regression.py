"""Points of one kind -> points of another: the linear regressors that landmarks are judged by."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmk.runtime.errors import UserError
from lmk.train.config import EvaluateConfig
from lmk.train.datasets import PointArray
from lmk.train.split import Indices

SIZES = (1, 5, 10, 100, 500, 1000, 5000)  # numbers of training images (paper, table 2)
THRESHOLDS = tuple(float(percent) for percent in range(51))  # of the cumulative curves


class LinearRegressor:
    """Ridge regression from points (N,P,2) to points (N,Q,2), with a constant term or without.

    The penalty is `ridge` times the largest entry of X'X, so that units do not matter. Without a
    constant term points count from the origin: give them relative to the centre of the crop.
    Raises UserError for fewer than `images_needed` images.
    """

    def __init__(self, x: PointArray, y: PointArray, ridge: float, bias: bool = True) -> None:
        needed = images_needed(x.shape[1], ridge, bias)
        if len(x) < needed:
            raise UserError(
                f"regressor from {x.shape[1]} points: got {len(x)} training images, expected "
                f"{needed} or more; give more, or make it solvable with --ridge over 0"
            )
        self.shape = y.shape[1:]
        self.x_mean = x.mean(axis=0) if bias else np.zeros(x.shape[1:], np.float32)
        self.y_mean = y.mean(axis=0) if bias else np.zeros(y.shape[1:], np.float32)
        a = (x - self.x_mean).reshape(len(x), -1).astype(np.float64)
        b = (y - self.y_mean).reshape(len(y), -1).astype(np.float64)
        gram = a.T @ a
        penalty = ridge * float(gram.max())
        if penalty > 0:
            self.weight = np.linalg.solve(gram + np.eye(len(gram)) * penalty, a.T @ b)
        else:  # points that never move, or always together, make X'X singular
            self.weight = np.linalg.lstsq(a, b, rcond=None)[0]

    def __call__(self, x: PointArray) -> PointArray:
        flat = (x - self.x_mean).reshape(len(x), -1) @ self.weight
        return (flat.reshape(len(x), *self.shape) + self.y_mean).astype(np.float32)


def images_needed(points: int, ridge: float, bias: bool = True) -> int:
    """Fewest training images of a regressor from so many points: its unknowns, or 1 with ridge."""
    return 1 if ridge > 0 else 2 * points + bias


def errors_percent(predicted: PointArray, truth: PointArray, lengths: PointArray) -> PointArray:
    """Mean distance of points (N,Q,2) in % of `lengths` (N,): an error (N,) for each image."""
    return np.linalg.norm(predicted - truth, axis=2).mean(axis=1) / lengths * 100


def regress(
    name: str,
    train: tuple[PointArray, PointArray],
    test: tuple[PointArray, PointArray],
    lengths: PointArray,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Errors of regressors x -> y fitted to `train` and measured on `test`, pairs of (N,P,2).

    Keys begin with `name`: _percent and _mean_shape_percent for all training images, _by_images
    for fewer, _images_needed, _curve. Raises UserError for fewer images than there are unknowns.
    """
    (x, y), (x_test, y_test) = train, test
    predicted = LinearRegressor(x, y, config.ridge, config.bias)(x_test)
    each = errors_percent(predicted, y_test, lengths)
    constant = errors_percent(_mean_shape(y), y_test, lengths)
    return {
        f"{name}_percent": float(each.mean()),
        f"{name}_mean_shape_percent": float(constant.mean()),
        f"{name}_images_needed": images_needed(x.shape[1], config.ridge, config.bias),
        f"{name}_by_images": _by_images(train, test, lengths, config),
        f"{name}_curve": {
            "threshold_percent": list(THRESHOLDS),
            "share": cumulative(each),
            "mean_shape_share": cumulative(constant),
        },
    }


def cumulative(errors: PointArray) -> list[float]:
    """Share of images whose error is at most each of THRESHOLDS."""
    return (errors[:, None] <= np.array(THRESHOLDS)).mean(axis=0).tolist()


def subsets(count: int, size: int, config: EvaluateConfig) -> list[Indices]:
    """Seeded random choices of `size` out of `count` training images, the same for every model."""
    draws = (np.random.default_rng((config.seed, size, i)) for i in range(config.repeats))
    return [draw.permutation(count)[:size] for draw in draws]


def _by_images(
    train: tuple[PointArray, PointArray],
    test: tuple[PointArray, PointArray],
    lengths: PointArray,
    config: EvaluateConfig,
) -> list[dict[str, Any]]:
    """Mean and spread of the error for each number of images that exists and can be solved."""
    (x, y), (x_test, y_test) = train, test
    needed = images_needed(x.shape[1], config.ridge, config.bias)
    rows = []
    for size in [s for s in SIZES if needed <= s < len(x)] + [len(x)]:
        chosen = subsets(len(x), size, config) if size < len(x) else [np.arange(len(x))]
        errors, constants = [], []
        for some in chosen:
            fitted = LinearRegressor(x[some], y[some], config.ridge, config.bias)
            errors.append(errors_percent(fitted(x_test), y_test, lengths).mean())
            constants.append(errors_percent(_mean_shape(y[some]), y_test, lengths).mean())
        rows.append(
            {
                "images": size,
                "repeats": len(chosen),
                "mean_percent": float(np.mean(errors)),
                "std_percent": float(np.std(errors, ddof=len(errors) > 1)),
                "mean_shape_percent": float(np.mean(constants)),
            }
        )
    return rows


def _mean_shape(points: PointArray) -> PointArray:
    """What one says without looking: (1,Q,2)."""
    return points.mean(axis=0, keepdims=True)


def pck(
    predicted: PointArray, truth: PointArray, lengths: PointArray, threshold: float = 0.2
) -> tuple[float, PointArray]:
    """Share of points (N,P,2) found within `threshold` × length (N,): overall, and each (P,)."""
    error = np.linalg.norm(predicted - truth, axis=2) / lengths[:, None]
    known = np.isfinite(error)
    correct = (error < threshold) & known
    each = correct.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return float(correct.sum() / max(known.sum(), 1)), each.astype(np.float32)
