"""What the user says of the objects' places -> their boxes in every frame."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.detection import Frame
from lmk.runtime.errors import UserError
from lmk.runtime.files import of_cell, read_text
from lmk.runtime.images import Box
from lmk.runtime.regions.region import Region, Target

COLUMNS = ("frame", "x", "y", "w", "h")
_MOST_TRACKS = 1 << 31  # tables and journals keep 32 bits


class Boxes(Region):
    """Boxes that depend on nothing but the frame."""

    def __init__(self, targets_of: Callable[[Frame], Sequence[Target]]) -> None:
        self._targets_of = targets_of

    def targets(self, frame: Frame) -> Sequence[Target]:
        """See `Region.targets`."""
        return self._targets_of(frame)


def parse_roi(text: str) -> Boxes:
    """Where the object is: "full", "center" (largest centred square), "x,y,w,h" or FILE.csv.

    The file is described at `read_boxes`. The region's `targets` raise UserError when a box given
    as numbers does not lie in the frame. Raises UserError for any other text.
    """
    if text == "full":
        return Boxes(lambda frame: [Target((0.0, 0.0, float(frame.size[1]), float(frame.size[0])))])
    if text == "center":
        return Boxes(lambda frame: [Target(_centre(frame))])
    if text.lower().endswith(".csv"):
        return read_boxes(Path(text))
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"roi: got '{text}', expected auto, full, center, motion, track, box, x,y,w,h or a .csv"
        ) from None
    if not (width > 0 and height > 0 and np.isfinite([x, y, width, height]).all()):
        raise UserError(f"roi: got {text}, expected finite x,y,w,h with a width and height above 0")
    return Boxes(lambda frame: [Target(_inside(text, (x, y, width, height), frame))])


def _centre(frame: Frame) -> Box:
    height, width = frame.size
    side = min(height, width)
    return ((width - side) / 2, (height - side) / 2, float(side), float(side))


def _inside(text: str, box: Box, frame: Frame) -> Box:
    height, width = frame.size
    x, y, box_width, box_height = box
    inside = x >= 0 and y >= 0 and x + box_width <= width and y + box_height <= height
    if not inside:  # NaN is not
        raise UserError(
            f"roi: got {text}, expected x,y,w,h within the frame of {width}×{height} pixels"
        )
    return box


def read_boxes(path: Path) -> Boxes:
    """Read a CSV of `frame,x,y,w,h` (frames from 0; pixels, edges).

    Or landmarks.csv of an earlier detection. Between two listed frames the box moves evenly; before
    the first and after the last it stays.
    A column `heading`, of the object's head, in degrees clockwise from the right, may be empty.
    Several objects: a column `track`, a whole number each; such a box exists from its first to its
    last listed frame. Several sources: a column `source`, the name as in landmarks.csv. A box may
    reach beyond the frame, whose border is then replicated. Raises UserError naming the line that
    is wrong.
    """
    text = read_text(path, "a CSV of boxes")
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise UserError(f"{path}: got no CSV ({error}), expected one of boxes; mend it") from None
    if not rows:
        raise UserError(f"{path}: got no box, expected rows of {','.join(COLUMNS)}")
    if "box_x" in rows[0]:  # results of ours
        rows = [row | {name: row.get(f"box_{name}") for name in COLUMNS[1:]} for row in rows]
    if missing := [name for name in COLUMNS if name not in rows[0]]:
        raise UserError(
            f"{path}: got the columns {', '.join(map(str, rows[0]))}, expected also "
            f"{', '.join(missing)}, with commas between them"
        )
    several = "track" in rows[0]
    keys: dict[str | None, dict[int, dict[float, list[float]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for line, row in enumerate(rows, start=2):
        source = row.get("source")
        numbers = _numbers(path, line, row)
        boxes = keys[source and of_cell(source)][_track(path, line, row) if several else 0]
        if numbers[0] in boxes:
            raise UserError(
                f"{path}, line {line}: got frame {numbers[0]:g} again, expected a box a frame"
                f"{' and track' if several else '; number several objects in a column track'}"
            )
        boxes[numbers[0]] = numbers
    paths = {
        source: {track: np.array(sorted(boxes.values())) for track, boxes in tracks.items()}
        for source, tracks in keys.items()
    }

    def targets(frame: Frame) -> list[Target]:
        tracks = paths.get(None if None in paths else frame.source, {})
        return [
            Target(_box_at(rows, frame.index), track, _heading_at(rows, frame.index))
            for track, rows in sorted(tracks.items())
            if not several or rows[0, 0] <= frame.index <= rows[-1, 0]
        ]

    return Boxes(targets)


def _box_at(rows: NDArray[np.float64], index: int) -> Box:
    x, y, w, h = (float(np.interp(index, rows[:, 0], rows[:, i])) for i in range(1, 5))
    return (x, y, w, h)


def _heading_at(rows: NDArray[np.float64], index: int) -> float | None:
    """That of the nearest row; radians."""
    degrees = float(rows[np.abs(rows[:, 0] - index).argmin(), 5])
    return math.radians(degrees) if math.isfinite(degrees) else None


def _track(path: Path, line: int, row: dict[str, Any]) -> int:
    try:
        track = int(row["track"])
        if not 0 <= track < _MOST_TRACKS:
            raise ValueError
        return track
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{path}, line {line}: got track '{row['track']}', expected a whole number from 0 to "
            f"{_MOST_TRACKS - 1}"
        ) from None


def _numbers(path: Path, line: int, row: dict[str, Any]) -> list[float]:
    try:
        values = [float(row[column]) for column in COLUMNS]
        if not np.isfinite(values).all() or min(values[3:]) <= 0:
            raise ValueError
        if values[0] < 0 or values[0] % 1:
            raise ValueError
        heading = float(row.get("heading") or math.nan)
        if math.isinf(heading):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(
            f"{path}, line {line}: got {', '.join(str(v) for v in row.values())}, expected numbers "
            f"for {','.join(COLUMNS)}, with a whole frame from 0 and a width and height above 0"
        ) from None
    return [*values, heading]
