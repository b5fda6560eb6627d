"""Landmarks -> pixels: coloured discs on a frame, for people to look at."""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.landmarker import Detection

_GOLDEN_RATIO = 0.618033988749895
_RADIUS_OF_BOX = 0.014  # of the longer side of the object's box
_RADIUS_PX = (3.0, 10.0)
_SMALL_IMAGE = 128  # pixels of the longer side; below it discs may be smaller
_SMALL_RADIUS_PX = 2.0
_RING = 0.2  # of the radius: white, then as much of black, so that one stands out on any texture
_RING_PX = 1.0  # at least
_MIN_OPACITY = 0.5  # of a landmark of score 0: faded but still to be found


@dataclass(frozen=True)
class Style:
    """What is drawn besides the landmarks; by default nothing."""

    trails: int = 0  # frames of a video for which a landmark's way stays to be seen, fading
    names: bool = False  # of the landmarks, beside them
    skeleton: tuple[tuple[str, str], ...] = ()  # names of the landmarks that lines join

    def __post_init__(self) -> None:
        if self.trails < 0:
            raise UserError(f"trails: got {self.trails}, expected 0 or more frames")

    def check(self, names: Sequence[str]) -> None:
        """Raise UserError when the skeleton joins what is not a landmark of the model."""
        for name in (name for pair in self.skeleton for name in pair):
            if name not in names:
                raise UserError(
                    f"skeleton: got '{name}', expected a landmark of the model: {', '.join(names)}"
                )


@functools.cache
def colour(index: int) -> tuple[int, int, int]:
    """RGB of landmark `index`: the same in every picture, whatever K.

    Steps of the golden ratio keep the hues of any first K landmarks apart; every second turn is
    paler, so that hues that come close still differ.
    """
    saturation = 0.55 if (index // 8) % 2 else 0.95
    rgb = colorsys.hsv_to_rgb((index * _GOLDEN_RATIO) % 1.0, saturation, 1.0)
    red, green, blue = (round(255 * value) for value in rgb)
    return red, green, blue


def draw(image: NDArray[np.uint8], detection: Detection) -> NDArray[np.uint8]:
    """A copy of an HWC uint8 RGB image with the landmarks of `detection` on it.

    Discs with a white ring and a dark outline, placed to a fraction of a pixel, sized to the
    object's box; the lower the score, the fainter. Points outside the image or not finite are left
    out.
    """
    drawn = image.copy()
    draw_discs(drawn, detection)
    return drawn


def draw_discs(image: NDArray[np.uint8], detection: Detection) -> None:
    """As `draw`, but in place."""
    radius = radius_of(detection, image)
    fades = opacity(detection.scores)
    for index, (x, y) in enumerate(detection.points.tolist()):
        if math.isfinite(x) and math.isfinite(y):
            _disc(image, (x, y), radius, colour(index), float(fades[index]))


def radius_of(detection: Detection, image: NDArray[np.uint8]) -> float:
    """The radius in pixels of the discs of `detection`: it grows with the object's box."""
    least, most = _RADIUS_PX
    if max(image.shape[:2]) < _SMALL_IMAGE:
        least = _SMALL_RADIUS_PX
    return float(np.clip(_RADIUS_OF_BOX * max(detection.box[2:]), least, most))


def opacity(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """How opaque landmarks of these scores are drawn, in [0.5, 1]."""
    return _MIN_OPACITY + (1 - _MIN_OPACITY) * np.clip(np.nan_to_num(scores), 0, 1)


def _disc(
    image: NDArray[np.uint8],
    centre: tuple[float, float],
    radius: float,
    fill: tuple[int, int, int],
    opacity: float,
) -> None:
    """Blend one disc into `image` in place; only the patch it covers is touched."""
    x, y = centre
    ring = max(_RING * radius, _RING_PX)
    reach = radius + 2 * ring + 1
    left, right = max(0, int(x - reach)), min(image.shape[1], int(x + reach) + 2)
    top, bottom = max(0, int(y - reach)), min(image.shape[0], int(y + reach) + 2)
    if left >= right or top >= bottom:
        return
    distance = np.hypot(
        np.arange(left, right, dtype=np.float32) - x,
        (np.arange(top, bottom, dtype=np.float32) - y)[:, None],
    )
    # How much of each pixel the disc, with its ring, with its outline covers: a ramp one pixel wide
    # at each edge.
    inside, ringed, covered = (
        np.clip(edge + 0.5 - distance, 0, 1)[..., None]
        for edge in (radius, radius + ring, radius + 2 * ring)
    )
    covered = covered * opacity
    patch = image[top:bottom, left:right]
    # White where the ring is, black where neither is.
    disc = inside * np.asarray(fill, np.float32) + (ringed - inside) * np.float32(255)
    patch[:] = (patch + (disc - patch) * covered + 0.5).astype(np.uint8)
