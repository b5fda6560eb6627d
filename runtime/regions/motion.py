"""Landmarks of a frame -> the object's box in it, and where that will be in the next."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.images import Box

# Box and landmarks of a frame agree to a hundredth of the side: the place is taken almost as it is
# found. The size is what the network is most sensitive to, and changes slowly: it is averaged.
_PLACE_GAIN, _SPEED_GAIN = 0.9, 0.4
_SIZE_GAIN, _GROWTH_GAIN = 0.5, 0.1
_DAMPING_S = 0.4  # time constant with which a motion is expected to die away
# What a frame may change at most, beyond what was expected.
_MOST_MOVED = 0.5  # sides: further away the network would not have seen the object
_MOST_GROWN = math.log(1.3)
_OUTLIER = 2.0  # times the median misfit; there a landmark counts half
_OTHER_SHAPE = 0.25  # median misfit, of the landmarks' radius, at which a fit counts half


@dataclass
class Motion:
    """Place and size of a square box, their speeds, and when that was; frame pixels, edges."""

    x: float  # of the centre
    y: float
    size: float  # logarithm of the side in pixels
    time_s: float
    speed_x: float = 0.0  # pixels a second
    speed_y: float = 0.0
    growth: float = 0.0  # of `size`, a second

    @classmethod
    def of(cls, box: Box, time_s: float) -> Motion:
        """At rest in the square about `box`."""
        x, y, width, height = box
        return cls(x + width / 2, y + height / 2, math.log(max(width, height)), time_s)

    @property
    def side(self) -> float:
        """In pixels."""
        return math.exp(self.size)

    @property
    def box(self) -> Box:
        """The square now."""
        side = self.side
        return (self.x - side / 2, self.y - side / 2, side, side)

    def predict(self, time_s: float) -> None:
        """Go on to `time_s`; the speed dies away meanwhile."""
        step = max(0.0, time_s - self.time_s)
        kept = math.exp(-step / _DAMPING_S)
        path = _DAMPING_S * (1 - kept)  # how long it would take at full speed
        self.x += self.speed_x * path
        self.y += self.speed_y * path
        self.size += self.growth * path
        self.speed_x, self.speed_y, self.growth = (
            kept * speed for speed in (self.speed_x, self.speed_y, self.growth)
        )
        self.time_s = time_s

    def correct(self, found: Box, step_s: float, trust: float) -> None:
        """Lean towards the square `found` now, `step_s` after the last one; trust in [0, 1]."""
        side = self.side
        x, y, width, _ = found
        right, down = x + width / 2 - self.x, y + width / 2 - self.y
        away = math.hypot(right, down) / side
        shorten = min(1.0, _MOST_MOVED / away) if away else 1.0
        right, down = right * shorten, down * shorten
        grown = min(max(math.log(width / side), -_MOST_GROWN), _MOST_GROWN)
        self.x += _PLACE_GAIN * trust * right
        self.y += _PLACE_GAIN * trust * down
        self.size += _SIZE_GAIN * trust * grown
        self.speed_x += _SPEED_GAIN * trust * right / step_s
        self.speed_y += _SPEED_GAIN * trust * down / step_s
        self.growth += _GROWTH_GAIN * trust * grown / step_s


def relative(points: NDArray[np.float32], box: Box) -> NDArray[np.float64]:
    """Landmarks (K,2) in frame pixels -> in sides of the square `box`, from its centre."""
    x, y, width, height = box
    side = max(width, height)
    return (points.astype(np.float64) + 0.5 - (x + width / 2, y + height / 2)) / side


def fit_box(
    reference: NDArray[np.float64], points: NDArray[np.float32], scores: NDArray[np.float32]
) -> tuple[Box, float] | None:
    """The square in which landmarks `points` (K,2) lie most as `reference` (K,2) does; its trust.

    reference: in sides of the box, from its centre, as of `relative`: the box keeps no memory of
    its own, so it cannot drift. Landmarks may be turned against it; the square is not. Those of low
    scores (K,) and those that do not fit count less. The trust is 1 where all fit and falls to 0
    where they form another shape. None when they say nothing of a size.
    """
    given, found = (_complex(each) for each in (reference, points.astype(np.float64) + 0.5))
    weights = first = scores.astype(np.float64) ** 2 + 1e-9
    for _ in range(3):
        centre_given, centre_found = (
            complex((weights * each).sum() / weights.sum()) for each in (given, found)
        )
        a, b = given - centre_given, found - centre_found
        radius_given, radius_found = (
            math.sqrt((weights * np.abs(each) ** 2).sum() / weights.sum()) for each in (a, b)
        )
        if radius_given < 1e-6 or radius_found < 1e-6:
            return None
        # The turn is that of the best fit, the size that of the spreads: under a change of shape a
        # fitted size would always be too small.
        turn = complex((weights * np.conj(a) * b).sum())
        turn /= max(abs(turn), 1e-12)
        side = radius_found / radius_given
        misfit = np.abs(b - side * turn * a)
        typical = float(np.median(misfit))
        weights = first / (1 + (misfit / (_OUTLIER * typical + 1e-9 * side)) ** 2)
    centre = centre_found - side * turn * centre_given
    trust = 1 / (1 + (typical / (_OTHER_SHAPE * radius_found)) ** 2)
    return (centre.real - side / 2, centre.imag - side / 2, side, side), trust


def _complex(points: NDArray[np.float64]) -> NDArray[np.complex128]:
    return points[:, 0] + 1j * points[:, 1]
