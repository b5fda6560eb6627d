"""Frames of a source with what was found -> pictures: landmarks, and what a style adds to them."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Detection
from lmk.runtime.errors import UserError
from lmk.runtime.files import read_text
from lmk.runtime.model import gate
from lmk.runtime.outputs.drawing import (
    colour,
    draw_discs,
    draw_label,
    draw_lines,
    opacity,
    radius_of,
    reach_of,
)

_TRAIL = 0.8  # opacity of a trail where it is newest
_BONE, _BONE_EDGE = (255, 255, 255), (0, 0, 0)
_EDGE = 0.6  # opacity of the dark edge of bones
_LETTERS_PX = (11, 28)


class Painter:
    """Draws what was found on frames, in their order; remembers what trails need."""

    def __init__(self, names: Sequence[str], style: Style) -> None:
        style.check(names)
        index = {name: number for number, name in enumerate(names)}
        self._names, self._style = list(names), style
        self._bones = np.array([[index[a], index[b]] for a, b in style.skeleton], int).reshape(
            -1, 2
        )
        self._several = False  # objects in one frame so far: then all get their boxes, to the end
        # of the last frames: the points and the opacities of the landmarks of each track
        self._past: deque[dict[int, tuple[NDArray, NDArray]]] = deque(maxlen=style.trails + 1)

    def follow(self, detections: Sequence[Detection]) -> None:
        """Remember one frame that is not drawn."""
        self._several = self._several or len(detections) > 1
        if self._style.trails:
            self._past.append(
                {each.track: (each.points, opacity(each.scores)) for each in detections}
            )

    def reach(
        self, image: NDArray[np.uint8], detections: Sequence[Detection]
    ) -> tuple[slice, slice]:
        """Rows and columns of the image outside which `paint` of these changes nothing."""
        height, width = image.shape[:2]
        if self._several or len(detections) > 1 or self._style.names:
            return slice(0, height), slice(0, width)
        past = [points for frame in self._past for points, _ in frame.values()]
        points = np.concatenate([each.points for each in detections] + past or [np.empty((0, 2))])
        points = points[np.isfinite(points).all(axis=1)]
        if not len(points):
            return slice(0, 0), slice(0, 0)
        margin = max((reach_of(radius_of(each, image)) for each in detections), default=0.0) + 2
        first = np.clip(points.min(axis=0) - margin, 0, (width, height)).astype(int)
        last = np.clip(points.max(axis=0) + margin, 0, (width, height)).astype(int)
        return slice(int(first[1]), int(last[1])), slice(int(first[0]), int(last[0]))

    def paint(self, image: NDArray[np.uint8], detections: Sequence[Detection]) -> None:
        """Draw what was found in the next frame on it, an HWC uint8 RGB image, in place.

        Trails below, then the skeleton, the landmarks, boxes and numbers of the objects where there
        are several, and names. The lower a score, the fainter.
        """
        self.follow(detections)
        for each in detections:
            width = max(1.0, radius_of(each, image) / 2)
            if len(self._past) > 1:
                self._draw_trails(image, each.track, width)
            if len(self._bones):
                self._draw_bones(image, each, width)
        for each in detections:
            draw_discs(image, each)
            if self._several:
                self._draw_box(image, each)
            if self._style.names:
                self._draw_names(image, each)

    def _draw_trails(self, image: NDArray[np.uint8], track: int, width: float) -> None:
        """From frame to frame while the track is there, over as many frames as the style says."""
        starts, ends, fades = [], [], []
        for age, (new, old) in enumerate(pairwise(reversed(self._past))):
            if track in old and track in new:
                starts.append(old[track][0])
                ends.append(new[track][0])
                newness = 1 - age / self._style.trails
                fades.append(_TRAIL * newness * np.minimum(old[track][1], new[track][1]))
        if starts:
            palette = np.array([colour(index) for index in range(len(starts[0]))], np.uint8)
            colours = np.tile(palette, (len(starts), 1))
            ways = np.concatenate(starts), np.concatenate(ends)
            draw_lines(image, *ways, colours, np.concatenate(fades), width)

    def _draw_bones(self, image: NDArray[np.uint8], detection: Detection, width: float) -> None:
        first, second = self._bones.T
        ways = detection.points[first], detection.points[second]
        fades = np.minimum(*(opacity(detection.scores)[ends] for ends in (first, second)))
        for rgb, strength, wide in ((_BONE_EDGE, _EDGE, width + 2), (_BONE, 1.0, width)):
            colours = np.tile(np.array(rgb, np.uint8), (len(first), 1))
            draw_lines(image, *ways, colours, fades * strength, wide)

    def _draw_box(self, image: NDArray[np.uint8], detection: Detection) -> None:
        if not np.isfinite(detection.box).all():
            return
        x, y, width, height = detection.box
        thick = max(1, round(radius_of(detection, image) / 3))
        # Edges to whole pixels of the image: slices are much faster than lines.
        left, right = (round(min(max(edge, 0), image.shape[1])) for edge in (x, x + width))
        top, bottom = (round(min(max(edge, 0), image.shape[0])) for edge in (y, y + height))
        inner_left, inner_right = min(left + thick, right), max(right - thick, left)
        inner_top, inner_bottom = min(top + thick, bottom), max(bottom - thick, top)
        rgb, size = colour(detection.track), _letters(detection, image)
        image[top:inner_top, left:right] = image[inner_bottom:bottom, left:right] = rgb
        image[top:bottom, left:inner_left] = image[top:bottom, inner_right:right] = rgb
        draw_label(image, str(detection.track), (inner_left + 2, inner_top + size), size)

    def _draw_names(self, image: NDArray[np.uint8], detection: Detection) -> None:
        radius, size = radius_of(detection, image), _letters(detection, image)
        height, width = image.shape[:2]
        for name, (x, y) in zip(self._names, detection.points.tolist(), strict=True):
            if 0 <= x < width and 0 <= y < height:  # NaN is not
                draw_label(image, name, (x + 2 * radius, y), size)


def _letters(detection: Detection, image: NDArray[np.uint8]) -> int:
    """The height of letters in pixels, beside the discs of `detection`."""
    return int(np.clip(2.5 * radius_of(detection, image), *_LETTERS_PX))


@dataclass(frozen=True)
class Style:
    """What is drawn besides the landmarks; by default nothing."""

    trails: int = 0  # frames of a video for which a landmark's way stays to be seen, fading
    names: bool = False  # of the landmarks, beside them
    skeleton: tuple[tuple[str, str], ...] = ()  # names of the landmarks that lines join

    def __post_init__(self) -> None:
        if self.trails < 0:
            raise UserError(f"trails: got {self.trails}, expected 0 or more frames")

    def check(self, names: Sequence[str]) -> None:
        """Raise UserError when the skeleton joins what is not a landmark of the model."""
        for name in (name for pair in self.skeleton for name in pair):
            if name not in names:
                raise UserError(
                    f"skeleton: got '{name}', expected a landmark of the model: {', '.join(names)}"
                )


def read_skeleton(path: Path) -> tuple[tuple[str, str], ...]:
    """Read the pairs of landmarks that lines join: JSON `[["nose", "tail"], …]`, else CSV.

    A CSV has a pair a line, without a header. Raises UserError when the file is neither.
    """
    expected = "pairs of landmark names: nose,tail"
    text = read_text(path, expected)
    if path.suffix.lower() == ".json":
        rows = gate.parse(text, str(path), f"list {expected}")
    else:
        try:
            rows = [row for row in csv.reader(text.splitlines()) if row]
        except csv.Error as error:
            raise UserError(f"{path}: got no CSV ({error}), expected {expected}; mend it") from None
    pairs = []
    for row in rows if isinstance(rows, list) else [rows]:
        if not (isinstance(row, list) and len(row) == 2 and all(isinstance(n, str) for n in row)):
            raise UserError(f"{path}: got {gate.short(row)}, expected {expected}; mend it")
        first, second = (name.strip() for name in row)
        if first == second:
            raise UserError(
                f"{path}: got '{first}' twice in a pair, expected two landmarks; mend it"
            )
        pairs.append((first, second))
    if not pairs:
        raise UserError(f"{path}: got no pair, expected {expected}; mend it")
    return tuple(pairs)
