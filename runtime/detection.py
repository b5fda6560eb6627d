"""What travels: a source's frames, and what was found in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.images import Box

LOW_SCORE = 0.5  # below it a heat-map has no peak to speak of
# Matrix, range, primaries and curve, as the numbers that H.264 and FFmpeg have for them
Colours = tuple[int, int, int, int]


@dataclass(frozen=True)
class Frame:
    """One picture of a source."""

    source: str  # file name; below a folder that was given, the path relative to it
    index: int  # its true number, from 0: what cannot be read leaves a gap
    time_s: float  # since the first frame of a video; 0 for images
    image: NDArray[np.uint8]  # HWC RGB, upright, in stored pixels: no aspect ratio is applied
    native: Any = None  # the decoder's frame, where it is of the same pixels in yuv420p
    # Whether another scene begins; told only with a region that follows objects, or smoothing.
    is_cut: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class Detection:
    """The landmarks of one object in one frame."""

    points: NDArray[np.float32]  # (K,2): (x, y) in frame pixels, centre of the top-left one (0, 0)
    scores: NDArray[np.float32]  # (K,) in [0, 1]
    box: Box  # the object's box that was searched, as given (edges, not pixel centres)
    track: int = 0  # the object's number: the same in all frames of a source
    # What the points were named from, if that was kept: landmarks and scores like those above.
    landmarks: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    @property
    def by_landmarks(self) -> Detection:
        """The same by what it is told and followed by: the landmarks, where points are named."""
        if self.landmarks is None:
            return self
        points, scores = self.landmarks
        return replace(self, points=points, scores=scores, landmarks=None)

    @property
    def low(self) -> NDArray[np.bool_]:
        """(K,): which landmarks are not to be relied on, by their scores."""
        return self.scores < LOW_SCORE


@dataclass(frozen=True)
class Found:
    """One frame and what the model found in it."""

    frame: Frame
    detections: Sequence[Detection]
    # Only with the first frame of a new chunk: all that was remembered before it, to go on from.
    before: dict[str, Any] | None = None
