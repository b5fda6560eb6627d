"""Photographs before a plain background -> what of them is the object, without labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Mask = NDArray[np.bool_]
_Pixels = NDArray[np.uint8]
# Of 255, in the channel that differs most: as unlike as JPEG and shade make one colour. Of a clean
# background the object differs by less, as what is white does before white.
NEAR, CLEAN = 12, 8
_BAND = 0.04  # of the shorter side: the rim, wider than the frames that pictures have
# Share of the rim that is of one colour, and of images like that in a plain set.
# Of photographs of shoes all are, of faces 1 to 2 %, of heads of cats 0.3 %.
RIM, MOST = 0.75, 0.8
_GAP = 5  # pixels, and less of an opening in an outline are closed
_SPECK = 4  # pixels, and less, that are noise
_PART = 0.03  # of all that stands out, and less, that is dirt
_LEAST, _LARGEST = 0.01, 0.9  # share of an image that an object has
_FILLED, _FRAMED = 0.97, 0.6  # share of its box, and of the image, from which on it is a picture


def standing_out(image: _Pixels) -> _Mask | None:
    """What of an image (H,W,3) is not the one colour of its rim nor joined to it; None: no such.

    Holes of that colour are the object's: a white buckle on a shoe before white. What ends softly,
    as a pool of light does, is no object, nor is a picture within a frame or between bars.
    """
    from scipy import ndimage

    band = max(2, round(_BAND * min(image.shape[:2])))
    rim = np.ones(image.shape[:2], bool)
    rim[band:-band, band:-band] = False
    colour = np.median(image[rim], axis=0).astype(np.int16)
    shade = float(np.quantile(np.abs(image[rim] - colour).max(axis=1), RIM))
    if shade > NEAR:
        return None
    unlike = np.abs(image - colour).max(axis=2)
    # Twice over what is at the edge, so that its noise and shade are not the object's.
    outline = _parts_over(_SPECK, unlike > np.clip(2 * shade, CLEAN, NEAR))
    square = np.ones((_GAP, _GAP))
    outline = ndimage.binary_closing(np.pad(outline, _GAP), square)[_GAP:-_GAP, _GAP:-_GAP]
    parts, _ = ndimage.label(~outline)
    background = np.isin(parts, np.setdiff1d(parts[rim], [0]))
    shown = ndimage.binary_opening(~background)  # not the fringe of a compressed picture
    shown = _parts_over(_PART * np.count_nonzero(shown), shown)
    if not _LEAST <= shown.mean() <= _LARGEST or _is_picture(shown):
        return None
    edge = shown & ~ndimage.binary_erosion(shown, border_value=1)
    steps = ndimage.maximum_filter(unlike, 5) - ndimage.minimum_filter(unlike, 5)
    return shown if np.median(steps[edge]) > CLEAN else None


def _parts_over(pixels: float, mask: _Mask) -> _Mask:
    """What of a mask hangs together in more pixels than those."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    large = np.bincount(parts.ravel()) > pixels
    large[0] = False
    return np.asarray(large[parts])


def _is_picture(shown: _Mask) -> bool:
    """Whether it is a filled rectangle, large or from one side to the other."""
    rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
    sides = np.ptp(rows) + 1, np.ptp(columns) + 1
    if shown.sum() < _FILLED * sides[0] * sides[1]:
        return False
    return bool(shown.mean() > _FRAMED or sides[0] == len(shown) or sides[1] == shown.shape[1])
