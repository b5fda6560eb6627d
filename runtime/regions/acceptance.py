"""What tells an object of a category from anything else: measured when its pack is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import LOW_SCORE, Detection
from lmk.runtime.finder import Finder
from lmk.runtime.images import Box

# Views of one object: shift and zoom of the box. The landmarks of an object stay where they are,
# those of a texture go with the crop.
View = tuple[float, float, float]
VIEWS: tuple[View, ...] = (  # besides the first, of the box as it is
    (0.1, 0.06, 1.0),
    (-0.1, -0.06, 1.0),
    (0.0, 0.0, 0.87),
    (0.0, 0.0, 1.15),
)
_SURE = 0.95  # of the objects should be taken for objects, if nothing else is then
_ROOM = 1.5  # of error and, inversely, of score, beyond those, where nothing else comes near
_LEAST_SCORE = 0.2
_MOST_ERROR = 1.0  # of a network that has learnt nothing, whose landmarks are anywhere
_FEWEST = 8  # objects that anything can be told from


@dataclass(frozen=True)
class Acceptance:
    """When a crop holds an object: by its mean score, and by its error between views.

    Without measurement, as of packs that say nothing, what fits those that ship: mean distance in
    sides, faces and cats 0.003 to 0.006 at scores of 0.85, shoes 0.008 at 0.75, the best of a
    thousand crops of background 0.012 at 0.65, typically 0.03 at 0.4; a cat's face for a human one
    0.007 at 0.65.
    """

    score: float = LOW_SCORE  # least
    error: float = 0.013  # most at a score of 1, and less in proportion; in sides of the box
    # Root mean square distance of the landmarks from their centre, in sides of the crop, if known.
    radius: float | None = None
    weights: tuple[float, ...] = ()  # of the landmarks, 1 on average; few that wobble count little

    def mean(self, values: NDArray[Any]) -> float:
        """The mean of values (…,K), each landmark by its weight."""
        weighed = np.broadcast_to(self.weights or 1.0, values.shape)
        return float((values * weighed).sum() / weighed.sum())

    def holds(self, score: float, error: float) -> bool:
        """Whether something of that mean score and error, both of `mean`, is an object."""
        return score >= self.score and error <= self.error * score

    def to_json(self) -> dict[str, Any]:
        """For the header of a pack, whose `acceptance` it is."""
        return asdict(self) | {"weights": list(self.weights)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> Acceptance:
        """What `to_json` gave, after the gate; that without measurement for None."""
        weights = tuple((values or {}).get("weights", ()))
        return cls(**{**(values or {}), "weights": weights})


@dataclass(frozen=True)
class Seen:
    """One place in an image, and in all `VIEWS`."""

    first: Detection  # in the first view, by landmarks
    errors: NDArray[np.float64]  # (K,): mean distances to the first view's, in sides of the box
    radius: float  # of the landmarks in the first view, in sides of the crop


def see(finder: Finder, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> list[Seen]:
    """What is in the squares `boxes[i]` of `images[i]` (HWC uint8 RGB), each in every view.

    All in one run of the model.
    """
    looks = [look for box in boxes for look in (box, *_views_of(box, VIEWS))]
    found = finder.batch([image for image in images for _ in range(1 + len(VIEWS))], looks)
    seen = []
    for start, box in zip(range(0, len(found), 1 + len(VIEWS)), boxes, strict=True):
        first, *others = (one.by_landmarks for one in found[start : start + 1 + len(VIEWS)])
        weights = first.scores.astype(np.float64)[:, None] + 1e-6
        centre = (weights * first.points).sum(axis=0) / weights.sum()
        squares = (weights * (first.points - centre) ** 2).sum() / weights.sum()
        radius = float(np.sqrt(squares)) / (box[2] * finder.contract.crop_scale)
        seen.append(Seen(first, _apart(first, others).mean(axis=0), radius))
    return seen


def wobble(
    finder: Finder, image: NDArray[np.uint8], first: Detection, views: Sequence[View]
) -> NDArray[np.float64]:
    """(V,K): how far the landmarks are from `first` in other views of its box, in sides of it."""
    boxes = _views_of(first.box, views)
    found = finder.batch([image] * len(boxes), boxes)
    return _apart(first, [one.by_landmarks for one in found])


def _views_of(box: Box, views: Sequence[View]) -> list[Box]:
    x, y, side = box[0] + box[2] / 2, box[1] + box[3] / 2, box[2]
    return [view_of(x, y, side, *view) for view in views]


def _apart(first: Detection, others: Sequence[Detection]) -> NDArray[np.float64]:
    points = np.stack([one.points for one in others]).astype(np.float64)
    return np.linalg.norm(points - first.points, axis=2) / first.box[2]


def view_of(x: float, y: float, side: float, right: float, down: float, zoom: float) -> Box:
    """The square of `side` about a place (edges), moved by shares of it and zoomed."""
    grown = side * zoom
    return (x + right * side - grown / 2, y + down * side - grown / 2, grown, grown)


def accept(objects: Sequence[Seen], others: Sequence[Seen]) -> Acceptance | None:
    """What tells such objects from such others; None where there are too few to tell.

    Landmarks weigh by how little they wobble. The limits leave out what is no object, with room
    where that is far off; where both are alike they are where the most of either fall to the right
    side, and at least half of the objects do.
    """
    if len(objects) < _FEWEST:
        return None
    wobble = np.median([one.errors for one in objects], axis=0)
    raw = 1 / (wobble**2 + max(float(np.median(wobble)), 1e-6) ** 2)
    weights = tuple(float(value) for value in (raw / raw.mean()).round(4).clip(1e-4))
    radius = float(np.median([one.radius for one in objects]))
    plain = Acceptance(weights=weights, radius=radius)
    scores, others_scores = (
        np.array([plain.mean(one.first.scores) for one in each]) for each in (objects, others)
    )
    ratios, others_ratios = (
        np.array([plain.mean(one.errors) for one in each]) / np.maximum(mean, 1e-3)
        for each, mean in ((objects, scores), (others, others_scores))
    )
    least = float(np.quantile(scores, 1 - _SURE)) / _ROOM
    score = min(max(least, _LEAST_SCORE), LOW_SCORE)
    doubtful = np.sort(others_ratios[others_scores >= score])  # told by their error alone
    sure = float(np.quantile(ratios, _SURE))
    limits = np.unique(np.append(np.quantile(ratios, np.linspace(0.5, _SURE, 19)), sure * _ROOM))
    gain = [
        (ratios <= each).mean() - (doubtful <= each).sum() / max(len(others), 1) for each in limits
    ]
    best = float(limits[np.flatnonzero(np.array(gain) >= max(gain) - 1e-9)[-1]])
    beyond = doubtful[doubtful > best]
    if len(beyond):  # half-way to it at most
        best = min(best, max(float(np.sqrt(min(sure, best) * beyond[0])), min(sure, best)))
    best = min(best, _MOST_ERROR)
    return Acceptance(round(score, 4), round(best, 5), round(radius, 4), weights)
