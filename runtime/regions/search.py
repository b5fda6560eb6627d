"""Whole frame -> where the objects are, by the landmarks alone: a coarse search over scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Detection
from lmk.runtime.finder import Finder
from lmk.runtime.images import Box, picture_of
from lmk.runtime.regions.acceptance import VIEWS, Acceptance, wobble
from lmk.runtime.regions.region import overlap

# Landmarks are found in crops from 0.6 to 1.6 times the size of those in training, and a third of
# their side beside the object; the steps of the grid stay within that.
_SHRINK = 1.6
_STEP = 0.4  # of the crop's side
_STEP_BACK = 1.1  # below the object's own size a crop may be so much, and still show it whole
_ROOMY = 1.2  # times its side is the crop in which an object of known size is searched
_SMALLEST = 0.25  # of the frame's shorter side: objects down to about a seventh of it are found
_REACH = 40  # of the crops for a small object in a row and in a column: some seconds of search
_BATCH = 16
_BEST = 6  # crops of a search that are looked at closer
_PROMISING = 0.4  # of the score that counts; below it a crop of the grid shows nothing
_LIKELY = 1 / 3  # of it, in a crop that fits the landmarks: more than most textures have
_HOPELESS = 1.5  # times the error that counts, in the first two views: the others are spared
# Root mean square distance of the landmarks from their centre, in sides of the crop they were
# learnt in, where that was not measured. The packs that ship: faces and cats 0.18, shoes
# 0.27; athletes 0.15. In too wide or too tight a crop scores fall, so that is tried.
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


def fine_grid(height: int, width: int, known: Box) -> list[Box]:
    """Crops for objects as small as one in the square `known`, the nearest to it first; pixels.

    They cover the frame, or, of the smallest objects, what is around `known`. None for an object
    that shows in those of `grid`.
    """
    x, y, object_side, _ = known
    smallest = min(height, width) * _SMALLEST
    if object_side >= smallest or _shows(object_side, smallest):
        return []
    side = _ROOMY * object_side
    lefts, tops = (
        sorted(_starts(length, side), key=lambda start: abs(start + side / 2 - middle))[:_REACH]
        for length, middle in ((width, x + object_side / 2), (height, y + object_side / 2))
    )
    return nearest_first([(left, top, side, side) for top in tops for left in lefts], known)


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
        return not _shows(side, box[2]), away

    return sorted(boxes, key=order)  # stable: the same order every time


def _shows(side: float, crop: float) -> bool:
    """Whether an object of that side is found in a crop of that side."""
    return 1 / _STEP_BACK <= crop / side < _SHRINK / _STEP_BACK


def search(
    finder: Finder, pyramid: Pyramid, crops: Sequence[Box], best: int = _BEST, wanted: int = 1
) -> list[Candidate]:
    """Up to `wanted` objects that some of `crops` of an image show, the most likely first.

    The `best` crops are looked at closer, one after the other until that many are found. Boxes do
    not overlap by half or more.
    """
    scale, acceptance = finder.contract.crop_scale, acceptance_of(finder)
    radius = acceptance.radius or _NORMAL_RADIUS

    def likely(found: Sequence[Detection], share: float) -> list[Detection]:
        """Those with that share of the score that counts, the best first."""
        scores = {id(one): acceptance.mean(one.scores) for one in found}
        left = [one for one in found if scores[id(one)] >= share * acceptance.score]
        return sorted(left, key=lambda one: -scores[id(one)])

    seen = pyramid.run(finder, [_about(*_centre(crop), crop[2] / scale) for crop in crops])
    seen = likely(seen, _PROMISING)[:best]
    seen = likely(pyramid.run(finder, [_fitted(one, scale, radius) for one in seen]), _LIKELY)
    found: list[Candidate] = []
    for rough in _distinct(seen):
        one = _judge(finder, pyramid, rough)
        if one and all(overlap(one.detection.box, other.detection.box) < 0.5 for other in found):
            found.append(one)
        if len(found) == wanted:
            break
    return found


def search_frame(finder: Finder, image: NDArray[np.uint8], wanted: int) -> list[Candidate]:
    """Up to `wanted` objects in an HWC uint8 RGB image, the best first.

    Large ones are searched first, and smaller ones only if those do not suffice.
    """
    found: list[Candidate] = []
    pyramid = Pyramid(image)
    for crops in grid(*image.shape[:2]):
        for one in search(finder, pyramid, crops, _BEST + 2 * wanted, wanted):
            if all(overlap(one.detection.box, other.detection.box) < 0.5 for other in found):
                found.append(one)
        if len(found) >= wanted:
            break
    return sorted(found, key=lambda one: one.error)[:wanted]


def look_again(
    finder: Finder, image: NDArray[np.uint8], first: Detection, most: float
) -> Candidate:
    """What was found in the square box of `first` in an HWC uint8 RGB image, in other views of it.

    most: the error at which it is given up; where it is far above, not all views are looked at.
    """
    acceptance = acceptance_of(finder)
    score, errors = acceptance.mean(first.scores), np.empty((0, len(first.points)))
    for views in (VIEWS[:2], VIEWS[2:]):
        errors = np.concatenate([errors, wobble(finder, image, first, views)])
        error = acceptance.mean(errors.mean(axis=0))
        if error > _HOPELESS * most:
            break
    return Candidate(first, score, error, acceptance.holds(score, error))


def acceptance_of(finder: Finder) -> Acceptance:
    """What tells its objects from anything else."""
    return Acceptance.from_json(finder.contract.acceptance)


class Pyramid:
    """An image and its halves, made as crops of it ask for them: large crops cost what small do."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.halves = [image]

    def run(self, finder: Finder, boxes: Sequence[Box]) -> list[Detection]:
        """What is in `boxes` of the image, by landmarks."""
        found: list[Detection] = []
        for start in range(0, len(boxes), _BATCH):
            part = boxes[start : start + _BATCH]
            crops = np.stack([self._crop(finder, box) for box in part])
            found += [one.by_landmarks for one in finder.locate(crops, part)]
        return found

    def _crop(self, finder: Finder, box: Box) -> NDArray[np.uint8]:
        finer = max(box[2:]) * finder.contract.crop_scale / finder.contract.input_size
        half = max(0, int(math.log2(max(finer, 1.0))))  # still as fine as the crop
        while len(self.halves) <= half and max(self.halves[-1].shape[:2]) > 1:
            self.halves.append(np.asarray(picture_of(self.halves[-1]).reduce(2)))
        half = min(half, len(self.halves) - 1)
        x, y, width, height = (value / 2**half for value in box)
        return finder.crop(self.halves[half], (x, y, width, height))


def _judge(finder: Finder, pyramid: Pyramid, rough: Detection) -> Candidate | None:
    """The object, if it is one: in a box of the best size, and in several views of that."""
    scale, acceptance = finder.contract.crop_scale, acceptance_of(finder)
    known = acceptance.radius
    less, usual, more = [factor * known for factor in _SIZES] if known else _RADII
    sizes = pyramid.run(finder, [_fitted(rough, scale, usual)])
    sizes += pyramid.run(finder, [_fitted(sizes[0], scale, radius) for radius in (less, more)])
    best = max(sizes, key=lambda one: acceptance.mean(one.scores))
    score = acceptance.mean(best.scores)
    if score < acceptance.score:
        return None
    found = look_again(finder, pyramid.halves[0], best, acceptance.error * score)
    return found if found.is_object else None


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
