"""Landmarks -> pixels: coloured discs on a frame, for people to look at."""

from __future__ import annotations

import colorsys
import functools
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lmk.runtime.detection import Detection

_OUTLINE_PX = 1

_GOLDEN_RATIO = 0.618033988749895
_RADIUS_OF_BOX = 0.014  # of the longer side of the object's box
_RADIUS_PX = (3.0, 10.0)
_SMALL_IMAGE = 128  # pixels of the longer side; below it discs may be smaller
_SMALL_RADIUS_PX = 2.0
_RING = 0.2  # of the radius: white, then as much of black, so that one stands out on any texture
_RING_PX = 1.0  # at least
_MIN_OPACITY = 0.5  # of a landmark of score 0: faded but still to be found


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


def reach_of(radius: float) -> float:
    """How far from its middle a disc of that radius, with its ring and outline, may be seen."""
    return radius + 2 * max(_RING * radius, _RING_PX) + 1


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
    reach = reach_of(radius)
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


def draw_label(
    image: NDArray[np.uint8],
    text: str,
    corner: tuple[float, float],
    height: int,
) -> None:
    """Blend a line of text into an HWC uint8 RGB image, in place.

    corner: x, y in pixels of the middle of its left edge; the text moves to the left, up or down as
    far as it must to be in the image. height: of the letters, in pixels, about.
    """
    letters, outlined = _masks(text, height)
    rows, columns = letters.shape[:2]
    left = _within(round(corner[0]), columns, image.shape[1])
    top = _within(round(corner[1] - rows / 2), rows, image.shape[0])
    patch = image[top : top + rows, left : left + columns]
    letters, outlined = (mask[: patch.shape[0], : patch.shape[1]] for mask in (letters, outlined))
    ink = letters * np.float32(255)  # black where only the outline is
    patch[:] = (patch * (1 - outlined) + ink * outlined + 0.5).astype(np.uint8)


def _within(start: int, length: int, limit: int) -> int:
    return max(0, min(start, limit - length))


@functools.lru_cache(1024)
def _masks(text: str, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(rows, columns, 1) in [0, 1]: how much of each pixel the letters cover, and with outline."""
    font = ImageFont.load_default(height)
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox(
        (0, 0), text, font=font, stroke_width=_OUTLINE_PX
    )
    masks = []
    for stroke in (0, _OUTLINE_PX):
        mask = Image.new("L", (max(1, int(right - left)), max(1, int(bottom - top))))
        origin = (-left, -top)
        ImageDraw.Draw(mask).text(origin, text, fill=255, font=font, stroke_width=stroke)
        masks.append(np.asarray(mask, np.float32)[..., None] / np.float32(255))
    return masks[0], masks[1]


def draw_lines(
    image: NDArray[np.uint8],
    starts: NDArray[np.floating],
    ends: NDArray[np.floating],
    colours: NDArray[np.uint8],
    opacities: NDArray[np.floating],
    width: float,
) -> None:
    """Blend N segments with round ends into an HWC uint8 RGB image, in place.

    starts, ends: (N,2), x and y in pixels, (0, 0) the centre of the top-left one; what lies outside
    the image or is not finite is left out. colours: (N,3) RGB; opacities: (N,) in [0, 1]; width in
    pixels. Where segments meet the most opaque one shows, not their sum.
    """
    size = image.shape[1::-1]
    kept, first, last = _clip(starts.astype(np.float64), ends.astype(np.float64), size, width)
    if not kept.size:
        return
    segment, x, y, cover = _rasterise(first, last, width / 2)
    inside = (x >= 0) & (y >= 0) & (x < image.shape[1]) & (y < image.shape[0])
    segment = kept[segment[inside]]
    alpha = cover[inside] * np.asarray(opacities, np.float32)[segment]
    pixel = y[inside] * image.shape[1] + x[inside]
    order = np.argsort(alpha, kind="stable")  # of several at one pixel the last is what stays
    segment, pixel, alpha = segment[order], pixel[order], alpha[order]
    flat = image.reshape(-1, 3)
    below = flat[pixel]
    change = (np.asarray(colours, np.float32)[segment] - below) * alpha[:, None]
    flat[pixel] = (below + change + np.float32(0.5)).astype(np.uint8)


def _clip(
    starts: NDArray[np.float64], ends: NDArray[np.float64], size: tuple[int, ...], margin: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Which segments reach into the image (Liang and Barsky), and the parts of them that do."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        way = ends - starts
        finite = np.isfinite(starts).all(1) & np.isfinite(way).all(1)
        low, high = (-margin - starts) / way, (np.array(size) - 1 + margin - starts) / way
        enter = np.fmax(np.fmin(low, high).max(1), 0)
        leave = np.fmin(np.fmax(low, high).min(1), 1)
        kept = np.flatnonzero(finite & (enter <= leave))
    starts, way = starts[kept], way[kept]
    return kept, starts + way * enter[kept, None], starts + way * leave[kept, None]


def _rasterise(
    starts: NDArray[np.float64], ends: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Segment, x and y of the pixels that are covered, and how much of each is, in (0, 1].

    u runs along the longer axis of each segment, pixel by pixel, v across it as far as the width
    can reach. A pixel is a square: across the segment it is 1 wide, on a diagonal sqrt(2), and as
    far from one edge of the line does its cover fall from all to nothing.
    """
    way = ends - starts
    way[np.abs(way) < 1e-6] = 0.0  # its square is rounded away: a point is a point
    is_flat = np.abs(way[:, 0]) >= np.abs(way[:, 1])
    axes = np.where(is_flat[:, None], (0, 1), (1, 0))  # u and v of each segment
    (start_u, start_v), (way_u, way_v) = (
        np.take_along_axis(each, axes, 1).T for each in (starts, way)
    )
    reach = radius + math.sqrt(0.5)
    first = np.ceil(np.minimum(start_u, start_u + way_u) - reach).astype(np.int64)
    last = np.floor(np.maximum(start_u, start_u + way_u) + reach).astype(np.int64)
    count = last - first + 1
    of = np.repeat(np.arange(len(count)), count)  # the segment of each step
    u = np.arange(len(of)) + np.repeat(first - np.cumsum(count) + count, count)
    slope = np.divide(way_v, way_u, out=np.zeros_like(way_v), where=way_u != 0)
    spread = int(np.ceil(np.sqrt(2) * reach))
    middle = np.rint(start_v[of] + slope[of] * (u - start_u[of])).astype(np.int64)
    v = middle[:, None] + np.arange(-spread, spread + 1)
    distance = _distance(u - start_u[of], v - start_v[of, None], way_u, way_v, of)
    length, sides = np.hypot(way_u, way_v), np.abs(way_u) + np.abs(way_v)
    breadth = np.divide(sides, length, out=np.ones_like(length), where=length > 0)
    breadth = breadth.astype(np.float32)[of, None]
    most = np.minimum(1, 2 * radius / breadth)  # a line thinner than a pixel fills none
    cover = np.clip((radius - distance) / breadth + 0.5, 0, most)
    step, column = np.nonzero(cover > 0)
    u, v, of = u[step], v[step, column], of[step]
    x, y = np.where(is_flat[of], (u, v), (v, u))
    return of, x, y, cover[step, column]


def _distance(
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    way_u: NDArray[np.float64],
    way_v: NDArray[np.float64],
    of: NDArray[np.int64],
) -> NDArray[np.float32]:
    """(M,R) of pixel centres at u (M,) and v (M,R) from the start of their segments `of` (M,)."""
    length = np.hypot(way_u, way_v)
    some = np.maximum(length, 1e-9)
    unit_u, unit_v, length_of, offset = (
        each.astype(np.float32)[:, None]
        for each in ((way_u / some)[of], (way_v / some)[of], length[of], u)
    )
    v = v.astype(np.float32)
    along = offset * unit_u + v * unit_v
    beyond = along - np.clip(along, 0, length_of)
    across = np.where(length_of > 0, offset * unit_v - v * unit_u, np.hypot(offset, v))
    return np.sqrt(across**2 + beyond**2)
