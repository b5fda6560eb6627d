"""Frames of a still camera -> what it sees without the objects, and what of a frame is not that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmk.runtime.errors import UserError

_LONGEST = 480  # pixels at most of the longer side at which motion is looked for
_GRID = 4  # every so many pixels when frames are compared as a whole
_DIFFERENT = 12  # grey levels
_OTHER_VIEW = 0.35  # share of pixels that differ so much under another light or in another scene
_FEWEST = 4  # frames that show a view
# A pixel belongs to an object from so many of its own usual deviations on, and so many levels:
# compression leaves up to ten around what moves.
_TIMES, _LEVELS = 6.0, 15
# What is fainter than this share of what differs strongly is a shadow or a reflection.
_FAINT, _STRONG = 0.35, 80  # of the percentile
_NORMAL = 1.4826  # standard deviation of normal noise, in median absolute deviations
_DARK = 30  # grey levels; below them a gain says nothing
_SHARPER = 1.5  # times the edge that the frame has where an object of the background has left


@dataclass(frozen=True)
class View:
    """One scene under one light."""

    picture: NDArray[np.uint8]  # (3,h,w): without objects
    threshold: NDArray[np.uint8]  # (3,h,w): how far a pixel goes from it by itself
    frames: int  # that show it, of those it was made from


@dataclass(frozen=True)
class Background:
    """All views of a film, shrunk by a whole number.

    A light that is switched and a cut make another view; brightness that drifts does not. Where no
    view was seen in a few frames or more, there is none.
    """

    views: tuple[View, ...]  # the most frequent first
    shrink: int

    def foreground(self, image: NDArray[np.uint8], opening: int = 3) -> NDArray[np.bool_] | None:
        """(h,w): which pixels of a shrunk HWC uint8 RGB image belong to objects; see `mask`."""
        return self.mask(shrunk(image, self.shrink), opening)

    def mask(self, frame: NDArray[np.uint8], opening: int = 3) -> NDArray[np.bool_] | None:
        """(h,w): which pixels of a frame (3,h,w), as of `shrunk`, belong to objects.

        None when no view fits. opening: pixels; what is thinner, noise and tails, is left out.
        """
        from scipy import ndimage

        unlike = [_unlike(frame, view.picture) for view in self.views]
        if not unlike or min(unlike) > _OTHER_VIEW:
            return None
        view = self.views[int(np.argmin(unlike))]
        differs = _apart(frame, view.picture, view.threshold)
        eroded = ndimage.minimum_filter(differs.view(np.uint8), opening)
        return ndimage.maximum_filter(eroded, opening).astype(bool)


def shrink_for(size: tuple[int, int]) -> int:
    """By which whole number frames of that (height, width) are shrunk to look for motion."""
    return -(-max(size) // _LONGEST)


def shrunk(image: NDArray[np.uint8], shrink: int) -> NDArray[np.uint8]:
    """HWC uint8 RGB -> (3,h,w), means of shrink×shrink pixels."""
    reduced = Image.fromarray(image).reduce(shrink) if shrink > 1 else image
    return np.ascontiguousarray(np.asarray(reduced).transpose(2, 0, 1))


def learn_background(samples: Sequence[NDArray[np.uint8]], shrink: int) -> Background:
    """Find the views in frames (3,h,w), as of `shrunk`, spread over a film.

    Each is the median of its frames, of which an object that moves or rests covers each pixel in
    less than half; where it rests longer, the frames that show the place without it are told by
    their edges. Raises UserError when the frames differ in size.
    """
    if len({sample.shape for sample in samples}) > 1:
        raise UserError(
            "motion: got frames of several sizes, expected one, of a still camera; give the films "
            "one by one"
        )
    groups: list[list[NDArray[np.uint8]]] = []
    for sample in samples:
        unlike = [_unlike(sample, group[0]) for group in groups]
        if unlike and min(unlike) <= _OTHER_VIEW:
            groups[int(np.argmin(unlike))].append(sample)
        else:
            groups.append([sample])
    views = [_view(np.stack(group)) for group in groups if len(group) >= _FEWEST]
    return Background(tuple(sorted(views, key=lambda view: -view.frames)), shrink)


def _view(frames: NDArray[np.uint8]) -> View:
    from scipy import ndimage

    picture = _median(frames)
    frames = np.stack([_same_gain(frame, picture) for frame in frames])
    picture = _median(frames)
    threshold = _threshold(frames, picture)
    cleared = _without_resting(frames, picture, threshold)
    # How far a pixel goes by itself is not told where an object rested: there as elsewhere.
    threshold = np.where(cleared != picture, np.uint8(np.median(threshold)), threshold)
    picture = cleared
    # What shakes or flickers does so a pixel further, too.
    threshold = ndimage.maximum_filter(threshold, (1, 3, 3))
    differences = _difference(frames, picture)
    strong = differences.max(axis=1)[(differences > threshold).any(axis=1)]
    faint = _FAINT * float(np.percentile(strong, _STRONG)) if strong.size else 0.0
    return View(picture, np.maximum(threshold, np.uint8(faint)), len(frames))


def _median(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    middle = len(frames) // 2
    return np.partition(frames, middle, axis=0)[middle]


def _threshold(frames: NDArray[np.uint8], picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    deviation = _median(_difference(frames, picture)).astype(np.float32)
    noise = max(float(np.median(deviation)), 0.5)
    limit = _TIMES * _NORMAL * np.maximum(deviation, noise)
    return np.clip(limit, _LEVELS, 255).astype(np.uint8)


def _without_resting(
    frames: NDArray[np.uint8], picture: NDArray[np.uint8], threshold: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The picture without objects that were at rest in most of the frames.

    Where one has left, what differs from the picture has its outline there, not in the frame.
    """
    from scipy import ndimage

    edges = ndimage.gaussian_gradient_magnitude(picture.mean(axis=0), 1)
    left = np.zeros((len(frames), *picture.shape[1:]), bool)
    for frame, gone in zip(frames, left, strict=True):
        mask = ndimage.binary_opening(_apart(frame, picture, threshold), np.ones((3, 3)))
        labels, count = ndimage.label(mask)
        if not count:
            continue
        outline = labels * (mask & ~ndimage.binary_erosion(mask, iterations=2))
        every = range(1, count + 1)
        here = ndimage.gaussian_gradient_magnitude(frame.mean(axis=0), 1)
        before, now = (ndimage.mean(edge, outline, every) for edge in (edges, here))
        gone |= np.concatenate([[False], np.array(before) > _SHARPER * np.array(now)])[labels]
    picture = picture.copy()
    rows, columns = np.nonzero(left.any(axis=0))
    without = left[:, rows, columns]  # (n,P)
    for channel, values in zip(picture, frames.transpose(1, 0, 2, 3), strict=True):
        seen = np.ma.masked_array(values[:, rows, columns], ~without)
        channel[rows, columns] = np.ma.median(seen, axis=0).filled(0).astype(np.uint8)
    return picture


def _apart(
    frame: NDArray[np.uint8], picture: NDArray[np.uint8], threshold: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """(h,w): where a frame (3,h,w), whatever its gain, goes further from the picture than that."""
    differs = _difference(_same_gain(frame, picture), picture) > threshold
    return np.asarray(differs.any(axis=0))


def _difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.maximum(a, b) - np.minimum(a, b)


def _same_gain(frame: NDArray[np.uint8], picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame (3,h,w), as bright as the picture where both show the same."""
    some, same = (each[:, ::_GRID, ::_GRID].astype(np.float32) for each in (frame, picture))
    lit = (some > _DARK) & (same > _DARK) & (some < 250) & (same < 250)
    if lit.mean() < 0.1:
        return frame
    gain = float(np.median(same[lit] / some[lit]))
    table = np.clip(np.arange(256) * gain + 0.5, 0, 255).astype(np.uint8)
    return table[frame] if abs(gain - 1) > 0.01 else frame


def _unlike(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Share of the pixels of two frames (3,h,w) that differ; 1 when the sizes do."""
    if a.shape != b.shape:
        return 1.0
    dark, bright = sorted((each[:, ::_GRID, ::_GRID] for each in (a, b)), key=np.mean)
    return float((_difference(_same_gain(dark, bright), bright) > _DIFFERENT).any(axis=0).mean())
