"""Adapted network and data -> how good its landmarks are: the paper's three measures (sec. 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.train.config import EvaluateConfig
from lmk.train.datasets import CropMode, DecodedSet, PointArray
from lmk.train.judge import consistency
from lmk.train.judge.regression import regress
from lmk.train.network import LandmarkNetwork
from lmk.train.split import Indices, split_indices

REFERENCE = 128  # pixels; networks of another input are compared at this one
COLLAPSED_SPREAD = 6.0  # pixels: under it the landmarks sit on one blob and mean nothing
COLLAPSED_FOLLOWING = 0.2  # under it they stay where they are, whatever the image shows
# How far a landmark speaks for the object around it: ten that are spread well cover all of it.
REACH = 0.25  # of the root of the object's area


def evaluate(
    model: LandmarkNetwork,
    data: DecodedSet,
    config: EvaluateConfig,
    split_seed: int = 0,
    fit_on: DecodedSet | None = None,
    crop: CropMode = "image",
) -> dict[str, Any]:
    """Measure `model` on the images of `data` that were held out; the result is fit for JSON.

    Pixels are those of crops of 128, whatever the network's input; a crop that is fitted to the
    annotation (`crop`, for the report) tells where points are, hence leak_free. consistency_px:
    mean distance between the landmarks of a transformed image and the transformed landmarks; _each
    ascending, _landmarks in their order with None for one that never was in sight, _still_px what
    landmarks that never move would get. following: 1 if they move as the image does, 0 if they
    stay. spread_px: rms distance of the landmarks from their centre. collapsed: the landmarks sit
    on one blob or stay, collapsed_because in words, and no other number means anything.

    With annotated points also covered_percent, the share of them that have a landmark within REACH
    (the object's area: that of the smallest box of its points, however turned), and what
    `regression.regress` gives for forward (found to annotated) and backward, in % of the
    normaliser. Regressors are fitted to the training images of `fit_on`, else of `data`; where
    `data` has no split, with `fit_on` all its images are tested. Left out and counted:
    images_incomplete (a point is missing), images_without_length (no normaliser).
    Raises UserError for too few images, another scheme in `fit_on`, or a device that is not there.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    train, test = _split(data, split_seed, fit_on)
    test = spread_over(test, config.images)
    ready, size = consistency.prepared(model, config), model.config.input_size
    found = consistency.find_landmarks(ready, data, test, config.batch)
    moves = consistency.transforms(test, size, config)
    again = consistency.find_landmarks(ready, data, test, config.batch, moves)
    report: dict[str, Any] = {
        "data": data.name,
        "crop": crop,
        "leak_free": crop != "annotation",
        "test_images": len(test),
        "batch_norm": config.batch_norm,
        "options": asdict(config),
        **_steadiness(found, again, consistency.moved(found, moves), size),
    }
    if data.landmark_names:
        source = _Truth(fit_on or data, spread_over(train, config.regressor_images), size)
        target = _Truth(data, test, size)
        report["covered_percent"] = _covered(target.points, found)
        report |= _regressions(ready, source, target, found, config)
    return report


def may_have_learnt(data: DecodedSet, header: Mapping[str, Any]) -> bool:
    """Whether other images of `data` count as held out than when the pack of `header` was made.

    Then it has learnt from some of them, unless `data` is another set of that name.
    """
    then = header.get("held_out") or {}
    if isinstance(then, str):  # of an earlier version
        then = {header["data"]: then}
    now = data.held_out_digests(header["config"]["seed"])
    return any(now.get(name, digest) != digest for name, digest in then.items())


def within_reach(places: PointArray, landmarks: PointArray, area: float) -> NDArray[np.bool_]:
    """Which places (P,2) of an object of that area have one of its landmarks (K,2) within REACH."""
    away = np.linalg.norm(places[:, None] - landmarks, axis=2).min(axis=1)
    return np.asarray(away <= REACH * math.sqrt(area))


def spread_over(indices: Indices, count: int | None) -> Indices:
    """At most `count` of `indices`, evenly spaced: sets are often sorted by person or kind."""
    if count is None or count >= len(indices):
        return indices
    return indices[np.arange(count) * len(indices) // count]


def _split(data: DecodedSet, seed: int, fit_on: DecodedSet | None) -> tuple[Indices, Indices]:
    """Training images, of `fit_on` if given, and test images."""
    train, test = split_indices(data.splits, seed)
    if fit_on is not None:
        if fit_on.landmark_names != data.landmark_names:
            got, expected = (_named(s.landmark_names) for s in (fit_on, data))
            raise UserError(
                f"{fit_on.name}: got landmarks {got}, expected those of {data.name}: {expected}; "
                "fit the regressors to a set annotated alike"
            )
        train = split_indices(fit_on.splits, seed)[0]
        if not any(data.splits):
            test = np.arange(len(data.splits))
    if not len(test):
        raise UserError(f"{data.name}: got no image to evaluate on, expected 2 or more images")
    return train, test


def _covered(points: PointArray, found: PointArray) -> float | None:
    """Percentage of points (N,P,2), NaN where missing, in reach of landmarks found (N,K,2).

    None if there are no two apart in any image.
    """
    near: list[NDArray[np.bool_]] = []
    for each, landmarks in zip(points, found, strict=True):
        there = each[np.isfinite(each).all(axis=1)]
        if area := _area(there):
            near.append(within_reach(there, landmarks, area))
    return 100 * float(np.concatenate(near).mean()) if near else None


def _area(points: PointArray) -> float:
    """Area of the smallest box about points (P,2), however turned; a narrow one is half as wide.

    So it is the same of an object that turns, and that of two eyes does not hang on their level.
    """
    if not len(points):
        return 0.0
    angles = np.deg2rad(np.arange(90.0))
    axes = np.array([[np.cos(angles), np.sin(angles)], [-np.sin(angles), np.cos(angles)]])
    sides = np.ptp(np.tensordot(axes, points, (1, 1)), axis=2)  # (2,90), of one box each
    smallest = sides.prod(axis=0).argmin()
    longer, shorter = sides[:, smallest].max(), sides[:, smallest].min()
    return float(longer * max(shorter, longer / 2))


def _named(landmarks: tuple[str, ...]) -> str:
    """How many and the first of them: 68 do not fit in a line."""
    more = ", …" if len(landmarks) > 5 else ""
    return f"{len(landmarks)} ({', '.join(landmarks[:5])}{more})"


def _steadiness(
    found: PointArray, again: PointArray, expected: PointArray, size: int
) -> dict[str, Any]:
    """Consistency, spread and collapse, of points (N,K,2) in pixels of crops of `size`."""
    scale = REFERENCE / size
    errors = consistency.consistency_errors(again, expected, size)
    still = consistency.consistency_errors(found, expected, size)
    seen = np.isfinite(errors).any(axis=0)
    each = scale * np.nanmean(errors[:, seen], axis=0)
    landmarks: list[float | None] = [None] * found.shape[1]
    for index, value in zip(np.flatnonzero(seen), each, strict=True):
        landmarks[index] = float(value)
    spread = scale * float(np.sqrt(((found - found.mean(1, keepdims=True)) ** 2).sum(2).mean()))
    following = consistency.following(found, again, expected)
    because = ""
    if spread < COLLAPSED_SPREAD:
        because = f"the landmarks sit on one blob, within {spread:.1f} px"
    elif following is not None and following < COLLAPSED_FOLLOWING:
        because = f"the landmarks stay where they are: they follow the image by {following:.0%}"
    return {
        "consistency_px": float(each.mean()) if len(each) else None,
        "consistency_px_each": sorted(float(value) for value in each),
        "consistency_px_landmarks": landmarks,
        "consistency_still_px": float(scale * np.nanmean(still)) if seen.any() else None,
        "following": following,
        "spread_px": spread,
        "collapsed": bool(because),
        "collapsed_because": because,
    }


@dataclass
class _Truth:
    """The images of a set whose points are all there, in pixels of the network's crop."""

    data: DecodedSet
    indices: Indices
    size: int

    def __post_init__(self) -> None:
        self.points = self.data.crop_points(self.indices, self.size)
        self.whole = np.isfinite(self.points).all(axis=(1, 2))
        normaliser, given = self.data.scheme.normaliser, self.data.lengths[self.indices]
        self.lengths = normaliser.lengths(self.points, given)


def _regressions(
    model: LandmarkNetwork,
    source: _Truth,
    target: _Truth,
    found: PointArray,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Forward and backward, fitted to the images of `source`; `found` are those of `target`."""
    normaliser = target.data.scheme.normaliser
    measured = target.whole & np.isfinite(target.lengths)
    fitted = source.indices[source.whole]
    if len(fitted) < 2 or not target.whole.any():
        raise UserError(
            f"{target.data.name}: got {len(fitted)} training images of {source.data.name} and "
            f"{target.whole.sum()} test images with every point annotated, expected at least 2 "
            "and 1; annotate more, or name a set to fit the regressors to by --fit-data"
        )
    if not measured.any():
        raise UserError(
            f"{target.data.name}: got no test image whose length to divide by "
            f"({normaliser.label}) is over 0, expected 1 or more; correct the annotation"
        )
    # About the centre of the crop, for regressors without a constant term.
    centre = np.float32((source.size - 1) / 2)
    found_source = consistency.find_landmarks(model, source.data, fitted, config.batch) - centre
    truth_source = source.points[source.whole] - centre
    found, truth = found[measured] - centre, target.points[measured] - centre
    lengths = target.lengths[measured]
    return {
        "normaliser": normaliser.label,
        "fitted_on": source.data.name,
        "regressor_images": len(fitted),
        "regressor_test_images": int(measured.sum()),
        "images_incomplete": int((~source.whole).sum() + (~target.whole).sum()),
        "images_without_length": int((target.whole & ~measured).sum()),
        **regress("forward", (found_source, truth_source), (found, truth), lengths, config),
        **regress("backward", (truth_source, found_source), (truth, found), lengths, config),
    }
