"""Detections over time -> steadier points: the One-Euro filter (Casiez, Roussel & Vogel 2012)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import LOW_SCORE, Detection, Frame
from lmk.runtime.errors import UserError

MIN_CUTOFF_HZ = 1.0
BETA = 10.0  # Hz a box side/s
_SPEED_CUTOFF_HZ = 1.0  # as in the paper
_GAP_S = 0.5  # a track that was away for longer starts anew
_LEAST_TRUST = 0.1  # of a landmark of score 0


class OneEuro:
    """A low-pass filter of the landmarks of one track whose cut-off rises with their speed.

    min_cutoff: in Hz, that of points at rest; lower is steadier. beta: how much the cut-off rises,
    in Hz for each side of the object's box a second, so that it is the same for any resolution;
    higher lags less. Unlike in the paper the speed is that of the point, not one an axis: nothing
    changes when the picture is turned.
    """

    def __init__(self, min_cutoff: float, beta: float) -> None:
        self._min_cutoff, self._beta = min_cutoff, beta
        self._points: NDArray[np.float64] | None = None  # filtered
        self._velocity: NDArray[np.float64] = np.zeros((0, 2))  # filtered, box sides a second
        self.time_s = -math.inf  # of the last points

    def __call__(
        self, points: NDArray[np.float32], scores: NDArray[np.float32], time_s: float, side: float
    ) -> NDArray[np.float32]:
        """Filter points (K,2) in pixels, with scores (K,), of a box whose longer side is `side`.

        A landmark of a low score leans on its past the more, the lower the score. The first points,
        and those after a gap or without a step in time, pass unchanged.
        """
        step = time_s - self.time_s
        self.time_s = time_s
        if self._points is None or not 0 < step <= _GAP_S:
            self._points = points.astype(np.float64)
            self._velocity = np.zeros_like(self._points)
            return points
        trust = np.clip(scores.astype(np.float64) / LOW_SCORE, _LEAST_TRUST, 1)[:, None]
        change = points - self._points
        velocity = change / (step * side)
        self._velocity += _gain(_SPEED_CUTOFF_HZ, step) * trust * (velocity - self._velocity)
        speed = np.linalg.norm(self._velocity, axis=1, keepdims=True)
        cutoff = self._min_cutoff + self._beta * speed
        self._points = self._points + _gain(cutoff, step) * trust * change
        return self._points.astype(np.float32)

    def state(self) -> Any:
        """What is remembered, as JSON values that are restored exactly; only after a call."""
        assert self._points is not None
        return [self.time_s, self._points.tolist(), self._velocity.tolist()]

    def restore(self, state: Any) -> None:
        """Go on where `state` was taken."""
        self.time_s, points, velocity = state
        self._points = np.array(points, np.float64).reshape(-1, 2)
        self._velocity = np.array(velocity, np.float64).reshape(-1, 2)


class Smoother:
    """Steadies the points of every track of one source, frame by frame, in order.

    Never across a cut, the end of a track or half a second without it. Images, which have no time,
    pass unchanged. Parameters as of `OneEuro`; raises UserError when they are out of range.
    """

    def __init__(self, min_cutoff: float = MIN_CUTOFF_HZ, beta: float = BETA) -> None:
        if not 0 < min_cutoff < math.inf:
            raise UserError(f"smoothing: got a cut-off of {min_cutoff} Hz, expected more than 0")
        if not 0 <= beta < math.inf:
            raise UserError(f"smoothing: got beta {beta}, expected 0 or more")
        self._min_cutoff, self._beta = min_cutoff, beta
        self._filters: dict[int, OneEuro] = {}

    def __call__(self, frame: Frame, detections: Sequence[Detection]) -> list[Detection]:
        """The detections of `frame` with smoothed points; call it for frames without any, too."""
        if frame.is_cut:
            self._filters.clear()
        self._filters = {
            track: one
            for track, one in self._filters.items()
            if frame.time_s - one.time_s <= _GAP_S
        }
        return [self._smoothed(frame, detection) for detection in detections]

    def _smoothed(self, frame: Frame, found: Detection) -> Detection:
        one = self._filters.get(found.track)
        if one is None:
            one = self._filters[found.track] = OneEuro(self._min_cutoff, self._beta)
        side = max(found.box[2:])
        return replace(found, points=one(found.points, found.scores, frame.time_s, side))

    def state(self) -> Any:
        """What is remembered of earlier frames, as JSON values that are restored exactly."""
        return [[track, one.state()] for track, one in self._filters.items()]

    def restore(self, state: Any) -> None:
        """Go on where `state` was taken."""
        self._filters.clear()
        for track, past in state:
            self._filters[track] = OneEuro(self._min_cutoff, self._beta)
            self._filters[track].restore(past)


def _gain(cutoff: Any, step: float) -> Any:
    """Weight of the newest value of a first-order low-pass; cutoff in Hz, step in s."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * step))
