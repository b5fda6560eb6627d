"""Whole frame -> where the objects are, by the landmarks alone: a coarse search over scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Detection
from lmk.runtime.finder import Finder
from lmk.runtime.images import Box
from lmk.runtime.regions.acceptance import Acceptance, see
from lmk.runtime.regions.region import overlap

# Landmarks are found in crops from 0.6 to 1.6 times the size of those in training, and a third of
# their side beside the object; the steps of the grid stay within that.
_SHRINK = 1.6
_STEP = 0.4  # of the crop's side
_STEP_BACK = 1.1  # below the object's own size a crop may be so much, and still show it whole
_SMALLEST = 0.25  # of the frame's shorter side: objects down to about a seventh of it are found
_BATCH = 16
_BEST = 6  # crops of a search that are looked at closer
# Root mean square distance of the landmarks from their centre, in sides of the crop they were
# learnt in, where that was not measured. The packs that ship: bodies 0.15, faces and cats 0.18,
# shoes 0.27. In too wide or too tight a crop scores fall, so that is tried.
_RADII = (0.15, 0.18, 0.25)
_NORMAL_RADIUS = 0.18
_SIZES = (0.87, 1.0, 1.15)  # of a radius that was measured


@dataclass(frozen=True)
class Candidate:
    """Where an object may be."""

    detection: Detection  # in the box that suits the landmarks, by these
    score: float  # mean over the landmarks by their weights, in [0, 1]
    error: float  # so the mean distance of landmarks between views of it, in sides of the box
    is_object: bool  # and no texture


def grid(height: int, width: int) -> list[list[Box]]:
    """Overlapping square crops that cover a frame, large ones first, one list a size; pixels."""
    longer, shorter = max(height, width), min(height, width)
    whole: Box = ((width - longer) / 2, (height - longer) / 2, float(longer), float(longer))
    count = 1 + math.ceil(math.log(1 / _SMALLEST) / math.log(_SHRINK) - 1e-9)
    sides = np.geomspace(shorter, shorter * _SMALLEST, count)
    levels: list[list[Box]] = [[whole]] if longer > _SHRINK * shorter else []
    for side in map(float, sides):
        lefts, tops = _starts(width, side), _starts(height, side)
        levels.append([(x, y, side, side) for y in tops for x in lefts])
    return levels


def _starts(length: int, side: float) -> list[float]:
    count = 1 + math.ceil((length - side) / (_STEP * side) - 1e-9)
    return [float(start) for start in np.linspace(0, length - side, count)]


def nearest_first(boxes: Sequence[Box], last: Box) -> list[Box]:
    """`boxes` in the order in which an object that was at `last` is to be searched.

    Those in which it would show, if its size is as it was, come before all others.
    """
    x, y, width, height = last
    side = max(width, height)

    def order(box: Box) -> tuple[bool, float]:
        away = math.hypot(box[0] + box[2] / 2 - x - width / 2, box[1] + box[3] / 2 - y - height / 2)
        return not 1 / _STEP_BACK <= box[2] / side < _SHRINK / _STEP_BACK, away

    return sorted(boxes, key=order)  # stable: the same order every time


def search(
    finder: Finder, image: NDArray[np.uint8], crops: Sequence[Box], best: int = _BEST
) -> list[Candidate]:
    """The objects in an HWC uint8 RGB image that some of `crops` show, the best first.

    The `best` crops are looked at closer. Boxes do not overlap by half or more.
    """
    scale, acceptance = finder.contract.crop_scale, acceptance_of(finder)
    radius = acceptance.radius or _NORMAL_RADIUS
    seen = _run(finder, image, [_about(*_centre(crop), crop[2] / scale) for crop in crops])
    seen = sorted(seen, key=lambda one: -acceptance.mean(one.scores))[:best]
    for _ in range(2):
        seen = _run(finder, image, [_fitted(one, scale, radius) for one in seen])
        seen = _distinct(seen)
    # A third of the score that counts is more than most textures have, in whatever size of crop.
    seen = [one for one in seen if acceptance.mean(one.scores) >= acceptance.score / 3]
    found = [_judge(finder, image, one) for one in seen]
    objects = sorted((one for one in found if one.is_object), key=lambda one: one.error)
    kept = _distinct([one.detection for one in objects])
    return [one for one in objects if any(one.detection is other for other in kept)]


def search_frame(finder: Finder, image: NDArray[np.uint8], wanted: int) -> list[Candidate]:
    """Up to `wanted` objects in an HWC uint8 RGB image, the best first.

    Large ones are searched first, and smaller ones only if those do not suffice.
    """
    found: list[Candidate] = []
    for crops in grid(*image.shape[:2]):
        for one in search(finder, image, crops, best=_BEST + 2 * wanted):
            if all(overlap(one.detection.box, other.detection.box) < 0.5 for other in found):
                found.append(one)
        if len(found) >= wanted:
            break
    return sorted(found, key=lambda one: one.error)[:wanted]


def look_again(finder: Finder, image: NDArray[np.uint8], box: Box) -> Candidate:
    """What is in the square `box` of an HWC uint8 RGB image, seen in several views."""
    acceptance, seen = acceptance_of(finder), see(finder, image, box)
    score, error = acceptance.mean(seen.first.scores), acceptance.mean(seen.errors)
    return Candidate(seen.first, score, error, acceptance.holds(score, error))


def acceptance_of(finder: Finder) -> Acceptance:
    """What tells its objects from anything else."""
    return Acceptance.from_json(finder.contract.acceptance)


def _run(finder: Finder, image: NDArray[np.uint8], boxes: Sequence[Box]) -> list[Detection]:
    found: list[Detection] = []
    for start in range(0, len(boxes), _BATCH):
        part = boxes[start : start + _BATCH]
        found += [one.by_landmarks for one in finder.batch([image] * len(part), part)]
    return found


def _judge(finder: Finder, image: NDArray[np.uint8], rough: Detection) -> Candidate:
    """Try the box at several sizes, and the best one in several views."""
    scale, acceptance = finder.contract.crop_scale, acceptance_of(finder)
    known = acceptance.radius
    radii = [factor * known for factor in _SIZES] if known else _RADII
    sizes = _run(finder, image, [_fitted(rough, scale, radius) for radius in radii])
    best = max(sizes, key=lambda one: acceptance.mean(one.scores))
    return look_again(finder, image, best.box)


def _fitted(detection: Detection, crop_scale: float, radius: float) -> Box:
    """The box in whose crop the landmarks would have that radius and be in the middle."""
    weights = detection.scores.astype(np.float64)[:, None] + 1e-6
    points = detection.points.astype(np.float64) + 0.5  # edges, as boxes have them
    x, y = (weights * points).sum(axis=0) / weights.sum()
    squares = (weights * (points - (x, y)) ** 2).sum() / weights.sum()
    side = math.sqrt(squares) / (radius * crop_scale)
    most = 2 * max(detection.box[2:])  # landmarks all over the place tell nothing
    return _about(float(x), float(y), min(max(side, 1.0), most))


def _about(x: float, y: float, side: float) -> Box:
    return (x - side / 2, y - side / 2, side, side)


def _centre(box: Box) -> tuple[float, float]:
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def _distinct(found: Sequence[Detection]) -> list[Detection]:
    """`found`, in order, without those that lie where an earlier one does."""
    kept: list[Detection] = []
    for one in found:
        if all(overlap(one.box, other.box) < 0.5 for other in kept):
            kept.append(one)
    return kept
