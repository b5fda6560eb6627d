"""Photographs, and shoes drawn here -> the picture of the README: what the shipped packs find.

python -m lmk.benchmarks.zoo.showcase OUTPUT --photo faces=FILE:x,y,w,h --photo cats=FILE:x,y,w,h
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from lmk.runtime.errors import UserError
from lmk.runtime.files import atomic_path
from lmk.runtime.images import Box, read_image
from lmk.runtime.landmarker import Landmarker, load
from lmk.runtime.outputs import draw

SIDE = 160  # pixels of a cell
VIEWS = (
    (0, 1.0, 0.0),
    (-18, 1.0, 0.0),
    (14, 1.0, 0.0),
    (0, 1.2, 0.0),
    (0, 1.0, 0.1),
    (-9, 1.1, -0.06),
)
"""Of a photograph: degrees it is turned by, times it is shrunk by, share of the box it is moved."""

Pixels = NDArray[np.uint8]
Outline = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Photo:
    """A photograph and where the object of its category is: `faces=FILE:x,y,w,h`."""

    category: str
    path: Path
    box: Box

    @classmethod
    def parse(cls, text: str) -> Photo:
        """Raises UserError for what is not of that form."""
        category, _, rest = text.partition("=")
        name, _, numbers = rest.rpartition(":")
        try:
            x, y, width, height = (float(number) for number in numbers.split(","))
        except ValueError:
            raise UserError(
                f"--photo: got '{text}', expected CATEGORY=FILE:x,y,w,h; say where the object is"
            ) from None
        return cls(category, Path(name), (x, y, width, height))


def row_of_views(landmarker: Landmarker, image: Pixels, box: Box) -> Pixels:
    """An image (H,W,3) turned, shrunk and moved, each view with what is found in that very view."""
    return np.concatenate([_marked(landmarker, _view(image, box, *view)) for view in VIEWS], axis=1)


def row_of_shoes(landmarker: Landmarker) -> Pixels:
    """Shoes of two forms in several colours, each with what is found in it."""
    return np.concatenate([_marked(landmarker, draw_shoe(*shoe)) for shoe in SHOES], axis=1)


def _view(image: Pixels, box: Box, degrees: float, shrunk: float, moved: float) -> Pixels:
    """The square around `box` (x, y, w, h), at twice SIDE; beyond the image its border goes on."""
    side = shrunk * max(box[2:])
    centre = np.array([box[0] + box[2] / 2 + moved * side, box[1] + box[3] / 2])
    reach = round(side)
    wide = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    scale, angle = side / (2 * SIDE), np.radians(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corner = centre + reach - turn @ [SIDE, SIDE]
    coefficients = (*turn[0], corner[0], *turn[1], corner[1])
    size = (2 * SIDE, 2 * SIDE)
    seen = Image.fromarray(wide).transform(
        size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
    return np.asarray(seen)


def _marked(landmarker: Landmarker, image: Pixels) -> Pixels:
    """The image with its landmarks, at SIDE pixels with a white line around it."""
    cell = np.asarray(Image.fromarray(image).resize((SIDE - 2, SIDE - 2)))
    return np.pad(draw(cell, landmarker(cell)), ((1, 1), (1, 1), (0, 0)), constant_values=255)


# Outlines in a square of 128, the toe at the lower right as in the photographs of the category.
_SOLE = [(10, 92), (30, 100), (62, 112), (92, 119), (114, 115), (122, 104), (118, 98), (90, 98)]
_SOLE += [(60, 90), (30, 78), (10, 78)]
_FRONT = [(10, 80), (30, 92), (60, 104), (92, 111), (112, 107), (120, 98), (112, 84), (96, 76)]
_LOW = [(9, 46), *_FRONT, (80, 66), (66, 50), (58, 38), (50, 34), (38, 40), (26, 44)]
_HIGH = [(12, 8), *_FRONT, (80, 66), (66, 50), (62, 30), (60, 8), (36, 4)]
_LOW_TOP = [(12, 45), (26, 54), (44, 52), (58, 41), (54, 34), (40, 38), (26, 42)]
_HIGH_TOP = [(13, 8), (24, 14), (46, 14), (59, 8), (46, 3), (26, 3)]
_SEAMS = [[(84, 72), (80, 84), (84, 96), (92, 108)], [(12, 60), (24, 66), (34, 78), (36, 92)]]
_LACES = [((50 + 6 * i, 52 + 7 * i), (64 + 6 * i, 47 + 7 * i)) for i in range(4)]

SHOES = [  # colour of the leather, of the sole, whether it is a boot
    ((130, 70, 40), (60, 40, 30), False),
    ((60, 90, 160), (225, 225, 225), False),
    ((170, 170, 175), (90, 90, 90), False),
    ((170, 40, 50), (225, 215, 200), False),
    ((190, 140, 70), (70, 50, 40), True),
    ((50, 50, 55), (30, 30, 30), True),
]


def draw_shoe(colour: tuple[int, int, int], sole: tuple[int, int, int], is_boot: bool) -> Pixels:
    """A shoe on white, (S,S,3) with S twice SIDE, seen from its side and a little from above."""
    upper, top = (_HIGH, _HIGH_TOP) if is_boot else (_LOW, _LOW_TOP)
    side = 4 * 128
    canvas = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(canvas)
    pen.polygon(_curve(_SOLE), fill=sole)
    mask = Image.new("L", canvas.size)
    ImageDraw.Draw(mask).polygon(_curve(upper), fill=255)
    canvas.paste(Image.fromarray(_leather(colour, side)), mask=mask)
    pen.polygon(_curve(top), fill=_darker(colour, 0.35))
    for seam in _SEAMS:
        pen.line([(4 * x, 4 * y) for x, y in seam], _darker(colour, 0.5), 5, joint="curve")
    for lace in _LACES:
        pen.line([(4 * x, 4 * y) for x, y in lace], (235, 235, 235), 9)
    soft = canvas.filter(ImageFilter.GaussianBlur(1.5))  # no photograph has edges so sharp
    white = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
    white.paste(soft.resize((2 * SIDE - 24,) * 2), (12, 12))
    return np.asarray(white)


def _curve(corners: Outline) -> list[tuple[float, float]]:
    """A closed spline through `corners`, four times as large."""
    from scipy.interpolate import splev, splprep

    closed = np.array([*corners, corners[0]], float).T
    spline, _ = splprep(closed, s=0, per=True)
    x, y = splev(np.linspace(0, 1, 200), spline)
    return list(zip(4 * x, 4 * y, strict=True))


def _leather(colour: tuple[int, int, int], side: int) -> Pixels:
    """(side,side,3) in `colour`, lit at the instep, darker towards the sole."""
    y, x = np.mgrid[:side, :side] / (side / 128)
    light = 0.75 + 0.5 * np.exp(-(((x - 70) / 40) ** 2) - ((y - 75) / 22) ** 2)
    light -= 0.25 * np.clip((y - 85) / 30, 0, 1)
    return np.clip(np.array(colour) * light[..., None], 0, 255).astype(np.uint8)


def _darker(colour: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(share * value) for value in colour)
    return red, green, blue


def write_showcase(path: Path, photos: Sequence[Photo]) -> None:
    """Write a row for each photograph and one of drawn shoes, as JPEG. Raises UserError."""
    rows = []
    for photo in photos:
        with load(photo.category) as landmarker:
            rows.append(row_of_views(landmarker, read_image(photo.path), photo.box))
    with load("shoes") as landmarker:
        rows.append(row_of_shoes(landmarker))
    with atomic_path(path) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary, quality=90, subsampling=0)


@click.command(help=__doc__)
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--photo", "photos", multiple=True, metavar="CATEGORY=FILE:x,y,w,h")
def main(output: Path, photos: tuple[str, ...]) -> None:
    """Parse, draw, print."""
    write_showcase(output, [Photo.parse(text) for text in photos])
    click.echo(output)


if __name__ == "__main__":
    main()
