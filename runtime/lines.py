"""Line segments -> pixels: smooth, many at once, touching only the pixels they cover."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    can reach.
    """
    way = ends - starts
    is_flat = np.abs(way[:, 0]) >= np.abs(way[:, 1])
    axes = np.where(is_flat[:, None], (0, 1), (1, 0))  # u and v of each segment
    (start_u, start_v), (way_u, way_v) = (
        np.take_along_axis(each, axes, 1).T for each in (starts, way)
    )
    reach = radius + 0.5
    first = np.ceil(np.minimum(start_u, start_u + way_u) - reach).astype(np.int64)
    last = np.floor(np.maximum(start_u, start_u + way_u) + reach).astype(np.int64)
    count = last - first + 1
    of = np.repeat(np.arange(len(count)), count)  # the segment of each step
    u = np.arange(len(of)) + np.repeat(first - np.cumsum(count) + count, count)
    slope = np.divide(way_v, way_u, out=np.zeros_like(way_v), where=way_u != 0)
    spread = int(np.ceil(np.sqrt(2) * reach))
    middle = np.rint(start_v[of] + slope[of] * (u - start_u[of])).astype(np.int64)
    v = middle[:, None] + np.arange(-spread, spread + 1)
    cover = np.clip(
        reach - _distance(u - start_u[of], v - start_v[of, None], way_u, way_v, of), 0, 1
    )
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
