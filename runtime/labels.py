"""Words -> pixels: white letters with a dark outline, readable on any texture."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_OUTLINE_PX = 1


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
