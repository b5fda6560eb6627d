"""The built-in objects: what a puppet and a butterfly look like, and how they move."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from lmk.train.datasets.drawn.render import (
    CIRCLE,
    INK,
    Array,
    Colour,
    Sketch,
    bar,
    hsv,
    rotation,
    shade,
    smooth_closed,
)

# (look, motion) -> sketch. `look` gives the individual: its proportions and colours; `motion`
# holds NUM_MOTIONS numbers in [-1, 1], one for each degree of freedom of its joints.
Figure = Callable[[np.random.Generator, Array], Sketch]
NUM_MOTIONS = 10
MAX_RADIUS = 1.5  # object units: no figure reaches further from its origin, however it moves
WHITE: Colour = (246, 243, 235)


def _vary(look: np.random.Generator, hue: float, saturation: float, value: float) -> Colour:
    """The colour of one part: varied, yet recognisable."""
    near = look.uniform(-1, 1, 3)
    return hsv(hue + 0.025 * near[0], saturation + 0.1 * near[1], value + 0.08 * near[2])


def _hang(angle: float) -> Array:
    """The unit vector that hangs down at 0 and swings towards +x."""
    return np.array([np.sin(angle), np.cos(angle)])


def puppet(look: np.random.Generator, motion: Array) -> Sketch:
    """A jumping jack that faces us: *its* left side is on the right of the image."""
    sketch = Sketch()
    skin = hsv(look.uniform(0.03, 0.1), look.uniform(0.25, 0.6), look.uniform(0.65, 0.98))
    shirt = hsv(look.random(), look.uniform(0.45, 0.9), look.uniform(0.5, 0.95))
    trousers = hsv(look.random(), look.uniform(0.3, 0.8), look.uniform(0.3, 0.8))
    long, wide, thick = look.uniform(0.88, 1.12, 3)
    lean = rotation(0.12 * motion[0])
    waist = np.array([0.0, 0.12])
    neck = waist + lean @ [0.0, -0.54 * long]
    shoulders = [neck + lean @ [side * 0.21 * wide, 0.06] for side in (-1, 1)]
    hips = [waist + [side * 0.14 * wide, 0.03] for side in (-1, 1)]
    for i, side in enumerate((-1, 1)):
        _leg(sketch, hips[i], side, motion[2 + 4 * i :], (long, thick), (trousers, skin))
    _torso(sketch, look, [*shoulders, hips[1], hips[0]], (shirt, trousers))
    _head(sketch, look, neck, lean @ rotation(0.2 * motion[1]), skin)
    for i, side in enumerate((-1, 1)):
        _arm(sketch, shoulders[i], side, motion[4 + 4 * i :], (long, thick), (shirt, skin))
    return sketch


def _leg(
    sketch: Sketch,
    hip: Array,
    side: int,
    motion: Array,
    build: tuple[float, float],
    colours: tuple[Colour, Colour],
) -> None:
    (long, thick), (trousers, skin), name = build, colours, "rl"[side > 0]
    knee = hip + 0.38 * long * _hang(side * (0.22 + 0.3 * motion[0]))
    ankle = knee + 0.37 * long * _hang(side * (0.1 + 0.3 * motion[0] + 0.4 * motion[1]))
    toe = ankle + [side * 0.13, 0.03]
    sketch.limb(ankle, toe, (0.065, 0.05), shade(trousers, 0.55))
    sketch.limb(knee, ankle, (0.075 * thick, 0.055 * thick), skin)
    sketch.limb(hip, knee, (0.105 * thick, 0.085 * thick), trousers)
    sketch.disc(knee, 0.032, shade(trousers, 0.5))
    sketch.points |= {f"{name}_hip": hip, f"{name}_knee": knee, f"{name}_ankle": ankle}


def _arm(
    sketch: Sketch,
    shoulder: Array,
    side: int,
    motion: Array,
    build: tuple[float, float],
    colours: tuple[Colour, Colour],
) -> None:
    (long, thick), (shirt, skin), name = build, colours, "rl"[side > 0]
    elbow = shoulder + 0.31 * long * _hang(side * (1.15 + 1.0 * motion[0]))
    wrist = elbow + 0.29 * long * _hang(side * (1.4 + 1.0 * motion[0] + 0.9 * motion[1]))
    sketch.limb(elbow, wrist, (0.06 * thick, 0.045 * thick), skin)
    sketch.disc(wrist, 0.095, INK)
    sketch.disc(wrist, 0.073, shade(skin, 1.1))
    sketch.limb(shoulder, elbow, (0.085 * thick, 0.07 * thick), shirt)
    sketch.disc(shoulder, 0.03, shade(shirt, 0.5))
    sketch.disc(elbow, 0.03, shade(shirt, 0.5))
    sketch.points |= {
        f"{name}_shoulder": shoulder,
        f"{name}_elbow": elbow,
        f"{name}_wrist": wrist,
    }


def _torso(
    sketch: Sketch,
    look: np.random.Generator,
    corners: list[Array],
    colours: tuple[Colour, Colour],
) -> None:
    """A shirt with stripes, a row of buttons or spots, and a belt; corners clockwise."""
    shirt, trousers = colours
    quad = np.array(corners)
    middle = quad.mean(axis=0)
    sketch.fill(smooth_closed(middle + (quad - middle) * [1.36, 1.22]), INK)
    cloth = smooth_closed(middle + (quad - middle) * [1.26, 1.15])
    sketch.fill(cloth, shirt)
    kind, trim = look.integers(3), hsv(look.random(), 0.35, 0.95)

    def inside(u: float, v: float) -> Array:
        """u from -1 (left) to 1 (right), v from 0 (shoulders) to 1 (hips)."""
        top, bottom = quad[0] + quad[1], quad[3] + quad[2]
        widths = (quad[1] - quad[0]) * (1 - v) + (quad[2] - quad[3]) * v
        return (top * (1 - v) + bottom * v + widths * u) / 2

    if kind == 0:
        for v in (0.12, 0.4, 0.68):
            band = [inside(-1.1, v), inside(1.1, v), inside(1.1, v + 0.13), inside(-1.1, v + 0.13)]
            sketch.fill(np.array(band), trim)
    elif kind == 1:
        for v in (0.2, 0.42, 0.64):
            sketch.disc(inside(0, v), 0.03, trim)
    else:
        for u, v in ((-0.6, 0.15), (0.5, 0.2), (-0.1, 0.4), (0.6, 0.55), (-0.6, 0.6)):
            sketch.disc(inside(u, v), 0.045, trim)
    belt = [inside(-1.35, 0.86), inside(1.35, 0.86), inside(1.5, 1.02), inside(-1.5, 1.02)]
    sketch.fill(np.array(belt), shade(trousers, 0.5))
    sketch.disc(inside(0, 0.94), 0.035, hsv(0.13, 0.6, 0.95))


def _head(
    sketch: Sketch, look: np.random.Generator, neck: Array, turn: Array, skin: Colour
) -> None:
    """Face with eyes, nose and mouth, hair, and a pointed or a round hat."""
    hair = hsv(look.uniform(0.02, 0.14), look.uniform(0.3, 0.9), look.uniform(0.1, 0.7))
    hat = hsv(look.random(), look.uniform(0.5, 0.9), look.uniform(0.5, 0.95))
    face = neck + turn @ [0.0, -0.2]

    def at(x: float, y: float) -> Array:
        return face + turn @ [x, y]

    sketch.limb(neck, at(0, 0.1), (0.07, 0.07), skin)
    sketch.disc(at(0, -0.02), 0.225, INK)
    sketch.disc(at(0, -0.02), 0.205, hair)
    sketch.disc(at(0, 0.02), 0.175, skin)
    for side in (-1, 1):
        sketch.disc(at(side * 0.07, 0.0), 0.042, WHITE)
        sketch.disc(at(side * 0.07, 0.005), 0.024, INK)
        sketch.disc(at(side * 0.115, 0.075), 0.03, hsv(0.98, 0.5, 0.95))
    mouth = [(-0.07, 0.09), (0, 0.11), (0.07, 0.09), (0.04, 0.15), (-0.04, 0.15)]
    sketch.fill(np.array([at(x, y) for x, y in mouth]), hsv(0.99, 0.75, 0.65))
    tip = look.uniform(-0.36, -0.3)
    crown = [(-0.2, -0.09), (-0.12, -0.24), (0, tip), (0.12, -0.24), (0.2, -0.09), (0, -0.14)]
    outline = smooth_closed([at(x, y) for x, y in crown])
    sketch.fill(outline, hat)
    sketch.disc(at(0, tip), 0.065, INK)
    sketch.disc(at(0, tip), 0.047, WHITE)
    sketch.points |= {"neck": neck, "head_top": at(0, tip)}


# One side of the butterfly from its root: x away from the body, y down the body.
_FOREWING = ((0, 0.06), (0.2, -0.4), (0.7, -0.74), (1.0, -0.72), (1.0, -0.38), (0.74, 0.0))
_HINDWING = (
    *((0, -0.02), (0.4, -0.1), (0.78, 0.1), (0.84, 0.42), (0.64, 0.62)),
    *((0.6, 0.9), (0.48, 0.66), (0.2, 0.5)),
)


def butterfly(look: np.random.Generator, motion: Array) -> Sketch:
    """A butterfly from above, head up; every wing has a pattern of its own."""
    sketch = Sketch()
    colours = {"l": _vary(look, 0.08, 0.85, 0.93), "r": _vary(look, 0.56, 0.7, 0.82)}
    stretch, flap = look.uniform(0.93, 1.07, 2), 0.88 + 0.12 * motion[0]
    wings = {
        (name, hind): (_hindwing if hind else _forewing)(look, name, colours[name])
        for hind in (True, False)
        for name in "lr"
    }
    for (name, hind), wing in wings.items():
        swing = motion[1 + 2 * hind + (name == "r")]
        mirror = np.diag([(flap + 0.04 * swing) * (1 if name == "r" else -1), 1.0]) * stretch
        sketch.add(
            wing.moved(mirror @ rotation((0.11 if hind else 0.15) * swing), np.array([0.0, -0.16])),
            f"{name}_",
        )
    _butterfly_body(sketch, look, motion[5:])
    return sketch


def _wing(outline: Array, colour: Colour) -> Sketch:
    """A wing with a dark seam, a bright field and veins that run out from the root."""
    wing, middle = Sketch(), outline.mean(axis=0)
    wing.fill(middle + 1.05 * (outline - middle), INK)
    wing.fill(outline, shade(colour, 0.45))
    wing.fill(middle * [0.9, 0.96] + 0.8 * (outline - middle), colour)
    wing.fill(middle * [0.8, 0.9] + 0.5 * (outline - middle), shade(colour, 1.14))
    for edge in outline[8:-6:6]:
        wing.fill(bar([0.04, 0], 0.92 * edge, 0.014, 0.008), shade(colour, 0.45))
    return wing


def _rings(sketch: Sketch, centre: ArrayLike, radius: float, *colours: Colour) -> None:
    """Concentric discs, the outermost first."""
    for i, colour in enumerate(colours):
        sketch.disc(centre, radius * (1 - i / len(colours)), colour)


def _forewing(look: np.random.Generator, name: str, colour: Colour) -> Sketch:
    """Left: cream bars and a yellow eyespot; right: white dots and a red eyespot."""
    outline = smooth_closed(_FOREWING)
    wing, spot, size = _wing(outline, colour), (0.64, -0.34), look.uniform(0.17, 0.2)
    if name == "l":
        wing.fill(bar([0.3, -0.34], [0.36, -0.06], 0.03, 0.05), _vary(look, 0.13, 0.3, 0.97))
        _rings(wing, spot, size, INK, _vary(look, 0.15, 0.8, 0.97), INK, WHITE)
        _rings(wing, (0.9, -0.61), 0.085, _vary(look, 0.98, 0.8, 0.85))
    else:
        for x, y in ((0.24, -0.22), (0.4, -0.12), (0.58, -0.08)):
            wing.disc((x, y), 0.045, WHITE)
        _rings(wing, spot, size, INK, WHITE, _vary(look, 0.99, 0.85, 0.88), INK)
        _rings(wing, (0.9, -0.61), 0.085, _vary(look, 0.17, 0.75, 0.97))
    wing.points |= {"eyespot": np.array(spot), "wingtip": np.array([0.9, -0.61])}
    return wing


def _hindwing(look: np.random.Generator, name: str, colour: Colour) -> Sketch:
    """A tail at the lower end; left: a violet spot, right: a green diamond."""
    wing, spot = _wing(smooth_closed(_HINDWING), colour), (0.53, 0.36)
    if name == "l":
        _rings(wing, spot, 0.15, INK, _vary(look, 0.8, 0.6, 0.75), WHITE)
    else:
        for radius, fill in ((0.19, INK), (0.145, _vary(look, 0.3, 0.75, 0.8)), (0.06, WHITE)):
            wing.fill(np.array(spot) + radius * CIRCLE[::6], fill)
    wing.disc(
        (0.585, 0.8), 0.05, _vary(look, *((0.13, 0.7, 0.95) if name == "l" else (0.95, 0.6, 0.95)))
    )
    wing.points |= {"hindspot": np.array(spot), "hindtip": np.array([0.585, 0.8])}
    return wing


def _butterfly_body(sketch: Sketch, look: np.random.Generator, motion: Array) -> None:
    """Striped abdomen, thorax, head with eyes, two antennae with clubs."""
    fur, stripe = _vary(look, 0.08, 0.6, 0.35), _vary(look, 0.13, 0.6, 0.9)
    head, waist = np.array([0.0, -0.46]), np.array([0.0, -0.06])
    along = _hang(0.22 * motion[0])
    tail = waist + look.uniform(0.5, 0.58) * along
    for name, side, move in (("l", -1, motion[1]), ("r", 1, motion[2])):
        bend = head - 0.22 * _hang(-side * (0.4 + 0.18 * move))
        club = bend - 0.24 * _hang(-side * (0.75 + 0.3 * move))
        for start, end in ((head, bend), (bend, club)):
            sketch.fill(bar(start, end, 0.022, 0.018), INK)
        _rings(
            sketch,
            club,
            0.07,
            INK,
            _vary(look, *((0.0, 0.8, 0.9) if name == "l" else (0.47, 0.7, 0.8))),
        )
        sketch.points[f"{name}_antenna"] = club
    sketch.limb(waist, tail, (0.09, 0.045), fur)
    for part in (0.3, 0.5, 0.7, 0.9):
        ring = waist + part * (tail - waist)
        across = (0.085 - 0.04 * part) * np.array([along[1], -along[0]])
        sketch.fill(bar(ring - across, ring + across, 0.016, 0.016), stripe)
    sketch.disc(tail, 0.05, stripe)
    sketch.limb(np.array([0, -0.3]), waist, (0.11, 0.1), shade(fur, 1.25))
    sketch.disc(head, 0.115, INK)
    sketch.disc(head, 0.093, shade(fur, 1.5))
    for side in (-1, 1):
        sketch.disc(head + [side * 0.075, -0.03], 0.045, _vary(look, 0.36, 0.5, 0.85))
    sketch.points |= {"head": head, "tail": tail}


FIGURES = MappingProxyType({"puppet": puppet, "butterfly": butterfly})
