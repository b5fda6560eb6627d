"""Articulated objects drawn by a program, with known points: data without any download."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.images import Box
from lmk.train.datasets.drawn.figures import FIGURES, MAX_RADIUS, NUM_MOTIONS
from lmk.train.datasets.drawn.render import Array, Sketch, background, lighting, paint, rotation
from lmk.train.datasets.sample import Dataset, Sample, scheme_of

CATEGORIES: tuple[str, ...] = tuple(FIGURES)
RENDER_VERSION = 1  # raise it with every change of what is drawn: caches are keyed by it
MAX_TILT = float(np.radians(30.0))
IMAGE_SIZE = (160, 160)


def builtin(category: str, count: int, seed: int = 0) -> Dataset:
    """`count` images of one built-in category; the last tenth is "test", the rest "train".

    Sample i depends on the category, the seed and i alone, not on the count.
    """
    _check(category, count, seed)
    num_train = count - count // 10
    samples = tuple(
        Sample(
            name=f"builtin:{category}/{seed}/{index:05d}",
            read=partial(_read, category, index, seed),
            points=_points(_sketch(category, index, seed, IMAGE_SIZE)),
            split="train" if index < num_train else "test",
        )
        for index in range(count)
    )
    key = f"builtin:{category}:{count}:{seed}:{RENDER_VERSION}"
    fingerprint = hashlib.sha256(key.encode()).hexdigest()
    return Dataset(f"builtin:{category}", samples, fingerprint, scheme_of(landmark_names(category)))


def landmark_names(category: str) -> tuple[str, ...]:
    """The names of the known points; l_… and r_… are the object's own left and right."""
    _check(category)
    return tuple(FIGURES[category](np.random.default_rng(0), np.zeros(NUM_MOTIONS)).points)


def render(
    category: str, index: int, seed: int = 0, size: tuple[int, int] = IMAGE_SIZE
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Image (H,W,3) uint8 RGB of `size` = (height, width), and its points (P,2) in pixels.

    The same index at another size is the same picture, scaled. Pixel-centre convention.
    """
    _check(category, seed=seed)
    sketch = _sketch(category, index, seed, size)
    scenery = _rng(category, seed, index, stream=1)
    image = paint(sketch, background(scenery, size), lighting(scenery, size))
    return image, _points(sketch)


def clip(
    category: str, num_frames: int, seed: int = 0, size: tuple[int, int] = (240, 320)
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], Box]]:
    """A smooth animation of one individual over a fixed background.

    Yields image (H,W,3) uint8 RGB, points (P,2) in frame pixels (pixel-centre convention) and
    the box of the object (x, y, width, height), edges as in `lmk.runtime.images`.
    """
    _check(category, num_frames, seed)
    path = _Path.draw(_rng(category, seed, 0, stream=2), size, 0.32)
    yield from _animated(category, seed, size, map(path.at, range(num_frames)), path.scale)


def walk(
    category: str, num_frames: int, seed: int = 0, size: tuple[int, int] = (240, 320)
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], Box]]:
    """As `clip`, but small in the frame and head first, wherever its way turns."""
    _check(category, num_frames, seed)
    path = _Path.draw(_rng(category, seed, 0, stream=2), size, 0.11)
    yield from _animated(category, seed, size, map(path.ahead, range(num_frames)), path.scale)


def _animated(
    category: str,
    seed: int,
    size: tuple[int, int],
    path: Iterable[tuple[Array, float, Array]],
    scale: float,
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], Box]]:
    scenery = _rng(category, seed, 0, stream=3)
    behind, gains = background(scenery, size), lighting(scenery, size)
    for motion, tilt, centre in path:
        figure = FIGURES[category](_rng(category, seed, 0, stream=4), motion)
        sketch = figure.moved(scale * rotation(tilt), centre)
        yield paint(sketch, behind, gains), _points(sketch), _box(sketch)


@dataclass(frozen=True)
class _Path:
    """Slow sine waves: one for each joint, one for the tilt, two for the place."""

    scale: float  # pixels per object unit
    middle: Array  # (2,) pixels
    reach: Array  # (2,) greatest way from the middle
    phases: Array
    speeds: Array  # radians a frame

    @classmethod
    def draw(cls, rng: np.random.Generator, size: tuple[int, int], share: float) -> _Path:
        """share: object units, of the frame's shorter side."""
        width_height = np.array(size[::-1], float)
        scale = share * min(size)
        reach = width_height / 2 - MAX_RADIUS * scale
        phases = rng.uniform(0, 2 * np.pi, NUM_MOTIONS + 3)
        speeds = 2 * np.pi / rng.uniform(70, 120, NUM_MOTIONS + 3)
        speeds[NUM_MOTIONS:] /= 2
        return cls(scale, width_height / 2 - 0.5, reach, phases, speeds)

    def at(self, frame: int) -> tuple[Array, float, Array]:
        """Motion, tilt in radians and centre in pixels."""
        waves = np.sin(self.phases + self.speeds * frame)
        place = self.middle + self.reach * waves[NUM_MOTIONS + 1 :]
        return waves[:NUM_MOTIONS] * 0.9, 0.6 * MAX_TILT * float(waves[NUM_MOTIONS]), place

    def ahead(self, frame: int) -> tuple[Array, float, Array]:
        """The same, with the head, which is up in a figure, where its place goes."""
        motion, _, centre = self.at(frame)
        x, y = self.at(frame + 1)[2] - centre
        return motion, float(np.arctan2(y, x)) + np.pi / 2, centre


def _check(category: str, count: int = 1, seed: int = 0) -> None:
    if category not in FIGURES:
        raise UserError(
            f"builtin category: got {category!r}, expected one of {', '.join(CATEGORIES)}; "
            f"write builtin:{CATEGORIES[0]}"
        )
    if count < 1:
        raise UserError(f"builtin:{category}: got a count of {count}, expected 1 or more; raise it")
    if seed < 0:
        raise UserError(f"builtin:{category}: got the seed {seed}, expected 0 or more; change it")


def _rng(category: str, seed: int, index: int, stream: int) -> np.random.Generator:
    """The same numbers on every platform: `hash` of a string would change with each process."""
    return np.random.default_rng([zlib.crc32(category.encode()), seed, index, stream])


def _sketch(category: str, index: int, seed: int, size: tuple[int, int]) -> Sketch:
    """The object of one sample, in pixels: posed, tilted, and fitted into the image."""
    rng = _rng(category, seed, index, stream=0)
    figure = FIGURES[category](rng, rng.uniform(-1, 1, NUM_MOTIONS))
    tilted = figure.moved(rotation(rng.uniform(-MAX_TILT, MAX_TILT)), np.zeros(2))
    low, high = tilted.bounds()
    scale = rng.uniform(0.6, 0.85) * min(size) / float((high - low).max())
    room = np.array(size[::-1]) - scale * (high - low)  # free pixels beside the object
    corner = room * rng.uniform(0.15, 0.85, 2) - 0.5
    return tilted.moved(scale * np.eye(2), corner - scale * low)


def _read(category: str, index: int, seed: int) -> NDArray[np.uint8]:
    return render(category, index, seed)[0]


def _points(sketch: Sketch) -> NDArray[np.float32]:
    return np.array(list(sketch.points.values()), np.float32)


def _box(sketch: Sketch) -> Box:
    low, high = sketch.bounds()
    return (
        float(low[0] + 0.5),
        float(low[1] + 0.5),
        float(high[0] - low[0]),
        float(high[1] - low[1]),
    )
