"""Photographs before a plain background -> what of them is the object, without labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Mask = NDArray[np.bool_]
_Pixels = NDArray[np.uint8]
NEAR = 12  # of 255, in every channel: as unlike as JPEG and shade make one colour
# Share of the rim of a crop that is of one colour, and of images like that in a plain set.
# Of photographs of shoes all are, of faces 1 to 2 %, of heads of cats 0.3 %.
RIM, MOST = 0.75, 0.8
_LOOKED_AT = 200  # images, spread over the set, by which that is decided
_LEAST, _LARGEST = 0.01, 0.9  # share of a crop that an object has


def is_plain(images: _Pixels) -> bool:
    """Whether the objects of most images (N,S,S,3) stand before a plain background."""
    count = min(_LOOKED_AT, len(images))
    chosen = np.linspace(0, len(images) - 1, count).astype(int)
    plain = [standing_out(images[i]) is not None for i in chosen]
    return bool(plain) and float(np.mean(plain)) >= MOST


def standing_out(image: _Pixels) -> _Mask | None:
    """What of an image (H,W,3) is not the one colour of its rim nor joined to it; None: no such.

    Holes of that colour are the object's: a white buckle on a shoe before white.
    """
    from scipy import ndimage

    rim = np.ones(image.shape[:2], bool)
    rim[2:-2, 2:-2] = False
    colour = np.median(image[rim], axis=0)
    near = (np.abs(image - colour.astype(np.float32)) <= NEAR).all(axis=2)
    if near[rim].mean() < RIM:
        return None
    parts, _ = ndimage.label(near)
    background = np.isin(parts, np.setdiff1d(parts[rim], [0]))
    shown = ndimage.binary_opening(~background)  # not the specks of a compressed picture
    return shown if _LEAST <= shown.mean() <= _LARGEST else None
