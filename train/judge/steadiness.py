"""The same images under transforms -> which landmarks are steady, wobbly or stuck, without labels.

A landmark that marks a thing follows the image when that is turned, scaled or shifted. How far it
moves from image to image does not tell: on pictures that are aligned to the object good landmarks
hardly move either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.model import STRIDE
from lmk.train.datasets import PointArray
from lmk.train.judge.consistency import Views, following
from lmk.train.judge.evaluation import COLLAPSED_SPREAD, REFERENCE, within_reach

# Under the transforms of `evaluate` a landmark that sees nothing is off by 4 % of the crop (median;
# measured on an untrained network). Steady is, typically, half of that,
STEADY_MEDIAN = 0.02  # share of the crop's side
# and not even in one view of ten as much as that.
STEADY_P90 = 0.04  # share of the crop's side
# Half-way between a landmark that never moves, 0, and one that moves as the image does, 1.
# Measured: 0.85 to 1.02 after adaptation, -0.01 to 0.08 without.
FOLLOWS = 0.5
# The network sees cells of so many pixels: two landmarks nearer than one cannot be told apart.
SAME_PX = float(STRIDE)
# Below it less than half of the heat-map's mass is near the landmark: it is spread, or in two
# places.
STEADY_SCORE = 0.5
# A turned image asks for a landmark elsewhere, not for the same one to the pixel: another that has
# taken its place is off by far more.
TURNS_MEDIAN = STEADY_P90  # share of the crop's side
# A landmark that is beside the object in more images than this marks something else.
BACKGROUND = 0.2
# How far landmarks may have moved, and the loss fallen, in the second half of a run that is over.
STILL_MOVING, STILL_FALLING = STEADY_MEDIAN, 0.1
FEW_IMAGES = 20  # with fewer, one view in ten is hardly a view


@dataclass(frozen=True)
class Landmark:
    """How one landmark behaves; lengths in pixels of the crop, NaN where it was never in sight."""

    index: int
    name: str
    verdict: Literal["steady", "wobbly", "stuck", "background"]
    median_px: float  # distance from where a transform should have put it
    p90_px: float  # the distance that one view in ten exceeds
    still_px: float  # the median if it never moved
    follows: float  # how far it moves in proportion to the image: 1 wholly, 0 not at all
    spread_px: float  # rms distance from its mean place in the crop, from image to image
    score: float  # mean, in [0, 1]
    turned_px: float  # the larger of the medians under turns by 90 and by 180 degrees
    turns: bool  # it goes with these
    moving_px: float  # median distance from where the picture has gone in the next frame
    off_object: float  # share of images in which it is beside the object; NaN: not known
    same_as: str | None  # the steadier landmark that it sits on

    @property
    def rough(self) -> bool:
        """Whether it is wobbly, but much better than one that never moves."""
        better = self.median_px <= self.still_px / 2
        return self.verdict == "wobbly" and better and not self.useless

    @property
    def useless(self) -> bool:
        """Whether it tells nothing: it sits on another, does not follow or is wilder than still."""
        follows = self.follows >= FOLLOWS and self.median_px <= self.still_px
        return self.same_as is not None or not follows or self.verdict == "background"


@dataclass(frozen=True)
class Steadiness:
    """How the landmarks of one pack behave on N images, seen under one or more transforms."""

    landmarks: tuple[Landmark, ...]
    size: int  # side of the crop in pixels
    images: int  # N
    views: int  # transforms of each image
    errors_px: PointArray  # (N,) mean over landmarks and views; NaN: none in sight
    spread_px: float  # rms distance of an image's landmarks from their centre
    collapsed: bool  # that is so small that nothing else counts
    wrong: int  # images whose landmarks are off, on average, by more than STEADY_P90 of the crop
    neighbours: int = 0  # pairs of neighbouring frames that were looked at
    moved_px: float = math.nan  # of the landmarks in the second half of the run; NaN: not known
    fallen: float = math.nan  # share of the loss, between the last two quarters of it
    covered: float = math.nan  # share of the object with a landmark within REACH; NaN: not known

    @property
    def still_px(self) -> float:
        """What a landmark that never moved would typically be off by; NaN: none was in sight."""
        each = [landmark.still_px for landmark in self.landmarks]
        return float(np.mean([px for px in each if math.isfinite(px)] or [math.nan]))

    def having(self, verdict: str) -> list[Landmark]:
        """The landmarks of that verdict, in order."""
        return [landmark for landmark in self.landmarks if landmark.verdict == verdict]

    @property
    def useless(self) -> list[Landmark]:
        """The landmarks to drop, in order."""
        return [landmark for landmark in self.landmarks if landmark.useless]

    @property
    def off_object(self) -> float:
        """Share of all landmarks that are beside the object; NaN: not known."""
        return float(np.mean([landmark.off_object for landmark in self.landmarks]))

    @property
    def longer(self) -> int:
        """How many times as long the run should be, as far as it tells; 1: it was long enough."""
        moving = self.moved_px / (STILL_MOVING * self.size)
        if moving > 2:
            return 4
        # A loss falls to the end, as the rate of learning does; it counts where that may help.
        falling = self.fallen > STILL_FALLING and len(self.having("steady")) < len(self.landmarks)
        return 2 if moving > 1 or falling else 1

    @property
    def poor(self) -> bool:
        """Whether most landmarks are of little use, so that dropping some is no cure."""
        good = sum(mark.rough or mark.verdict == "steady" for mark in self.landmarks)
        return 2 * good < len(self.landmarks)

    @property
    def turns(self) -> bool:
        """Whether all steady landmarks go with an object that is turned."""
        steady = self.having("steady")
        return bool(steady) and all(landmark.turns for landmark in steady)

    @property
    def turning(self) -> str:
        """The same in one sentence."""
        steady = self.having("steady")
        if not steady:
            return "None is steady, so whether they turn with the object cannot be said."
        if self.turns:
            return "Turns with the object: what is steady is found again at 90° and 180° too."
        go = sum(landmark.turns for landmark in steady)
        return (
            f"Holds for upright only: at 90° and 180°, {go or 'none'} of the {len(steady)} "
            "steady landmarks go with the object."
        )

    @property
    def summary(self) -> str:
        """What a terminal says of it."""
        short = (
            f" The run was too short: give it {self.longer} times as long."
            if self.longer > 1
            else ""
        )
        return f"{self.headline if self.collapsed else f'{self.headline} {self.turning}'}{short}"

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        total = len(self.landmarks)
        if self.collapsed:
            return f"Collapsed: all {total} landmarks sit on one blob."
        words = (
            "steady",
            "wobbly",
            "stuck",
            *(["background"] if self.having("background") else []),
        )
        counts = [(word, len(self.having(word))) for word in words]
        for word, count in counts:
            if count == total:
                return f"All {total} landmarks are {word}."
        parts = [f"{count or 'none'} {word}" for word, count in counts[1:]]
        return f"{counts[0][1]} of {total} landmarks are steady, {', '.join(parts)}."


def measure(
    views: Views,
    turned: Views,
    scores: PointArray,
    names: tuple[str, ...],
    moving: PointArray | None = None,
    off: NDArray[np.bool_] | None = None,
    course: Mapping[str, float] | None = None,
    covered: float = math.nan,
) -> Steadiness:
    """Judge the K landmarks `names` by two or more `views`, and by those of images `turned` about.

    Scores (N,K) are those of view 0. moving: errors (2P,K) as of `moving_errors`, of films. off
    (N,K): which landmarks of view 0 are beside the object, where that is known. course: how the run
    was at its end, `moved_px` and `fallen`. covered: as of `coverage`.

    Raises ValueError when there is nothing but view 0, or numbers that do not match.
    """
    count, images, landmarks = views.found.shape[:3]
    if count < 2 or scores.shape != (images, landmarks) or len(names) != landmarks:
        raise ValueError(
            f"views {views.found.shape}, scores {scores.shape}, {len(names)} names: "
            "expected (V,N,K,2) with V over 1, (N,K) and K"
        )
    size, still = views.images.shape[2], views.found[0]
    errors = views.errors[1:]
    medians, p90s = (_percentiles(errors, percent) for percent in (50, 90))
    at_turns = np.array([_percentiles(turn[None], 50) for turn in turned.errors[1:]])
    spreads = np.sqrt(((still - still.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
    means, same = scores.mean(axis=0), _same(still, p90s)
    beside = np.full(landmarks, np.nan) if off is None else off.mean(axis=0)
    moving = np.zeros((0, landmarks), np.float32) if moving is None else moving
    in_motion = _percentiles(moving[None], 50)
    judged = []
    for k, name in enumerate(names):
        still_px, moves_px, follows = _motion(views, k)
        stuck = follows < FOLLOWS and moves_px <= still_px
        steady = medians[k] <= STEADY_MEDIAN * size and p90s[k] <= STEADY_P90 * size
        steady = steady and means[k] >= STEADY_SCORE and not in_motion[k] > TURNS_MEDIAN * size
        verdict: Literal["steady", "wobbly", "stuck", "background"]
        verdict = "stuck" if stuck else "steady" if steady else "wobbly"
        turned_px = float(at_turns[:, k].max())  # NaN where one of them has it out of sight
        judged.append(
            Landmark(
                index=k,
                name=name,
                verdict="background" if beside[k] > BACKGROUND else verdict,
                median_px=medians[k],
                p90_px=p90s[k],
                still_px=still_px,
                follows=follows,
                spread_px=float(spreads[k]),
                score=float(means[k]),
                turned_px=turned_px,
                turns=turned_px <= TURNS_MEDIAN * size,
                moving_px=in_motion[k],
                off_object=float(beside[k]),
                same_as=None if (twin := same[k]) is None else names[twin],
            )
        )
    spread = math.sqrt(((still - still.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).mean())
    errors_px = _mean_of_each_image(errors)
    return Steadiness(
        landmarks=tuple(judged),
        size=size,
        images=images,
        views=count - 1,
        errors_px=errors_px,
        spread_px=spread,
        collapsed=spread * REFERENCE / size < COLLAPSED_SPREAD,
        wrong=int((~(errors_px <= STEADY_P90 * size)).sum()),  # out of sight is no better
        neighbours=len(moving) // 2,
        covered=covered,
        **(course or {}),
    )


def coverage(found: PointArray, objects: NDArray[np.bool_]) -> float:
    """Share of the pixels of objects (N,S,S) with a landmark of found (N,K,2) within REACH.

    Mean over the images that show one; NaN if none does.
    """
    shares = []
    for points, there in zip(found, objects, strict=True):
        pixels = np.argwhere(there)[:, ::-1].astype(np.float32)
        if len(pixels):
            shares.append(within_reach(pixels, points, len(pixels)).mean())
    return float(np.mean(shares)) if shares else math.nan


def _motion(views: Views, k: int) -> tuple[float, float, float]:
    """How far landmark k should move and does (medians, px), and follows; NaN: never in sight."""
    seen = np.isfinite(views.errors[1:, :, k])
    if not seen.any():
        return math.nan, math.nan, math.nan
    expected, found = views.expected[1:, :, k][seen], views.found[1:, :, k][seen]
    start = np.broadcast_to(views.found[0, :, k], (*seen.shape, 2))[seen]
    should, does = (
        float(np.median(np.linalg.norm(ends - start, axis=-1))) for ends in (expected, found)
    )
    slope = following(start[:, None], found[:, None], expected[:, None])
    return should, does, math.nan if slope is None else slope


def _percentiles(errors: PointArray, percent: float) -> list[float]:
    """Of the errors (V,N,K) of each landmark, NaN where it was never in sight."""
    columns = (column[np.isfinite(column)] for column in errors.reshape(-1, errors.shape[2]).T)
    return [float(np.percentile(each, percent)) if len(each) else math.nan for each in columns]


def _mean_of_each_image(errors: PointArray) -> PointArray:
    """Errors (V,N,K) -> (N,); NaN of what is out of sight does not count."""
    seen = np.isfinite(errors)
    total = np.where(seen, errors, 0).sum(axis=(0, 2), dtype=np.float32)
    with np.errstate(invalid="ignore"):
        return total / seen.sum(axis=(0, 2), dtype=np.float32)


def _same(still: PointArray, p90s: list[float]) -> list[int | None]:
    """For each landmark of `still` (N,K,2) the steadier one that it typically sits on, if any."""
    order = sorted(range(len(p90s)), key=lambda k: math.inf if math.isnan(p90s[k]) else p90s[k])
    same: list[int | None] = [None] * len(order)
    kept: list[int] = []
    for k in order:
        apart = (np.median(np.linalg.norm(still[:, j] - still[:, k], axis=-1)) for j in kept)
        same[k] = next((j for j, px in zip(kept, apart, strict=True) if px < SAME_PX), None)
        if same[k] is None:
            kept.append(k)
    return same
