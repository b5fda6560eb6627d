"""Shapes in object units -> anti-aliased pixels, over a procedural background."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float64]
Colour = tuple[int, ...]  # RGB, or RGB and alpha

SUPERSAMPLE = 3
_TURN = 2 * np.pi * np.arange(24) / 24
CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
_CAPS = CIRCLE[np.arange(-6, 19)]  # -90° to 90° for the end of a limb, 90° to 270° for its start
INK: Colour = (38, 30, 36)
SHADOW: Colour = (12, 10, 20)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """RGB of a hue in turns (any float), saturation and value in [0, 1] (clipped)."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return tuple(round(255 * channel) for channel in rgb)


def shade(colour: Colour, gain: float) -> Colour:
    """`colour` made darker (gain < 1) or lighter (gain > 1)."""
    return tuple(min(255, round(channel * gain)) for channel in colour[:3])


def rotation(angle: float) -> Array:
    """The matrix that turns (x, y) by `angle` radians, clockwise on screen (y points down)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def bar(start: ArrayLike, end: ArrayLike, start_radius: float, end_radius: float) -> Array:
    """Outline of a tapered limb with round ends."""
    first, last = np.asarray(start, float), np.asarray(end, float)
    x, y = (last - first) / max(float(np.hypot(*(last - first))), 1e-9)
    caps = _CAPS @ np.array([[x, y], [-y, x]])
    return np.concatenate([last + end_radius * caps[:13], first + start_radius * caps[12:]])


def smooth_closed(corners: ArrayLike, steps: int = 5) -> Array:
    """A closed Catmull-Rom curve through `corners`."""
    p1 = np.asarray(corners, float)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = (np.arange(steps) / steps)[:, None, None]
    curve = p1 + 0.5 * t * (
        p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))
    )
    return curve.swapaxes(0, 1).reshape(-1, 2)


@dataclass
class Sketch:
    """Filled outlines in drawing order and named points, both in object units, y down."""

    outlines: list[Array] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    points: dict[str, Array] = field(default_factory=dict)

    def fill(self, outline: Array, colour: Colour) -> None:
        self.outlines.append(outline)
        self.colours.append(colour)

    def disc(self, centre: ArrayLike, radius: float, colour: Colour) -> None:
        self.fill(np.asarray(centre, float) + radius * CIRCLE, colour)

    def limb(self, start: Array, end: Array, radii: tuple[float, float], colour: Colour) -> None:
        """A tapered limb with an ink outline and a highlight along its upper left."""
        lit = np.array([-0.3, -0.3])
        self.fill(bar(start, end, radii[0] + 0.022, radii[1] + 0.022), INK)
        self.fill(bar(start, end, *radii), shade(colour, 0.8))
        inner = (0.6 * radii[0], 0.6 * radii[1])
        self.fill(bar(start + inner[0] * lit, end + inner[1] * lit, *inner), shade(colour, 1.08))

    def add(self, other: Sketch, prefix: str = "") -> None:
        """Draw `other` on top; its points get `prefix`."""
        self.outlines += other.outlines
        self.colours += other.colours
        self.points |= {prefix + name: point for name, point in other.points.items()}

    def moved(self, matrix: Array, offset: Array) -> Sketch:
        """All outlines and points as `xy @ matrix.T + offset`."""
        outlines = self._cut(np.concatenate(self.outlines) @ matrix.T + offset)
        points = {name: matrix @ point + offset for name, point in self.points.items()}
        return Sketch(outlines, list(self.colours), points)

    def pixels(self, scale: float, shift: float) -> list[list[int]]:
        """x0, y0, x1, y1, … of each outline in the whole pixels of a canvas `scale` times as big.

        Pillow cuts coordinates to integers and fills up to and including them: they are rounded
        here to the nearest pixel centre, so that shapes grow evenly to all sides.
        """
        flat = (np.concatenate(self.outlines) + shift + 0.5) * scale
        return [part.ravel().tolist() for part in self._cut(np.floor(flat).astype(int))]

    def _cut(self, flat: NDArray[Any]) -> list[NDArray[Any]]:
        """Rows of all outlines -> rows of each."""
        ends = np.cumsum([len(outline) for outline in self.outlines]).tolist()
        return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def bounds(self) -> tuple[Array, Array]:
        """The least and the greatest (x, y) of all outlines."""
        flat = np.concatenate(self.outlines)
        return flat.min(axis=0), flat.max(axis=0)


def background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A gradient, coloured clouds, stripes or soft blobs, with fine grain and perhaps clutter."""
    kind = rng.integers(4)
    base = np.array(hsv(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.35, 0.9)), float)
    other = np.array(hsv(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.95)), float)
    if kind == 0:  # smooth gradient between a few colours
        tile = base + (other - base) * rng.random((2, 3, 1)) + rng.uniform(-25, 25, (2, 3, 3))
    elif kind == 1:  # low-frequency clouds
        cells = int(rng.integers(4, 12))
        tile = base + 0.6 * (other - base) * rng.random((cells, cells, 1))
        tile = tile + rng.uniform(-30, 30, (cells, cells, 3))
    elif kind == 2:  # soft stripes
        tile = base + (other - base) * _waves(rng)[:, :, None] * 0.7
    else:  # soft blobs
        tile = _blobs(rng, base)
    width, height = size[1], size[0]
    image = Image.fromarray(np.clip(tile, 0, 255).astype(np.uint8))
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    image = _with_grain(image, rng)
    return _with_clutter(image, rng) if rng.random() < 0.4 else image


def _waves(rng: np.random.Generator) -> Array:
    """(48,48) of a sine wave of random direction, frequency and sharpness, in [0, 1]."""
    y, x = np.mgrid[0:48, 0:48] / 48.0
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(2.0, 7.0)
    wave = np.sin(2 * np.pi * frequency * (np.cos(angle) * x + np.sin(angle) * y) + rng.random())
    return 0.5 + 0.5 * np.clip(wave * rng.uniform(0.8, 2.5), -1, 1)


def _blobs(rng: np.random.Generator, base: Array) -> Array:
    image = Image.new("RGB", (32, 32), tuple(base.astype(int).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(5, 14))):
        (x, y), radius = rng.uniform(0, 32, 2), rng.uniform(2, 7)
        colour = hsv(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.95))
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
    return np.asarray(image.filter(ImageFilter.BoxBlur(1)), float)


def _with_grain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Paper-like texture: a coarse random pattern of a few grey levels laid over the image."""
    grain = Image.fromarray(rng.integers(0, 256, (54, 54), dtype=np.uint8))
    grain_rgb = grain.resize(image.size, Image.Resampling.BILINEAR).convert("RGB")
    return Image.blend(image, grain_rgb, rng.uniform(0.0, 0.12))


def _with_clutter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Random convex polygons, drawn at twice the size for smooth edges."""
    big = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(big, "RGBA")
    for _ in range(int(rng.integers(3, 9))):
        corners = CIRCLE[np.sort(rng.choice(24, int(rng.integers(3, 7)), replace=False))]
        stretch = rng.uniform(0.06, 0.3, 2) * min(big.size)
        centre = rng.random(2) * big.size
        colour = hsv(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.2, 0.95))
        draw.polygon((centre + corners * stretch).ravel().tolist(), fill=(*colour, 190))
    return big.reduce(2)


def lighting(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """(H,W,3) gains: a linear gradient of random direction and a slight tint."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.25)
    x = np.linspace(-1, 1, size[1], dtype=np.float32) * np.float32(strength * np.cos(angle))
    y = np.linspace(-1, 1, size[0], dtype=np.float32) * np.float32(strength * np.sin(angle))
    tint = rng.uniform(0.93, 1.05, 3).astype(np.float32)
    return (1 + x[None, :, None] + y[:, None, None]) * tint


def paint(
    sketch: Sketch, behind: Image.Image, gains: NDArray[np.float32] | float = 1.0
) -> NDArray[np.uint8]:
    """Draw a sketch given in pixels (centre of the top-left pixel = (0, 0)) over `behind`.

    A soft shadow of the object falls on the background; `gains` multiply the result.
    Returns HWC uint8 RGB.
    """
    scale = SUPERSAMPLE
    canvas = _with_shadow(sketch, behind).resize(
        (behind.width * scale, behind.height * scale), Image.Resampling.NEAREST
    )
    draw = ImageDraw.Draw(canvas)
    for corners, colour in zip(sketch.pixels(scale, shift=0.0), sketch.colours, strict=True):
        draw.polygon(corners, fill=colour)
    pixels = np.asarray(canvas.reduce(scale))
    return np.clip(pixels * gains + 0.5, 0, 255).astype(np.uint8)


def _with_shadow(sketch: Sketch, behind: Image.Image) -> Image.Image:
    """`behind`, darkened softly below and right of the object."""
    mask = Image.new("L", (behind.width // 2, behind.height // 2))
    draw = ImageDraw.Draw(mask)
    for corners in sketch.pixels(0.5, shift=0.02 * min(behind.size)):
        draw.polygon(corners, fill=110)
    mask = mask.filter(ImageFilter.BoxBlur(0.008 * min(behind.size)))
    image = behind.copy()
    image.paste(SHADOW, mask=mask.resize(behind.size, Image.Resampling.BILINEAR))
    return image
