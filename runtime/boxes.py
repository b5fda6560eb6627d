"""What the user says of the object's place -> its box in every frame."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lmk.runtime.errors import UserError
from lmk.runtime.images import Box

# (height, width) and index of a frame -> the object's box in it
Roi = Callable[[int, int, int], Box]
COLUMNS = ("frame", "x", "y", "w", "h")


def parse_roi(text: str) -> Roi:
    """Where the object is: "full", "center" (largest centred square), "x,y,w,h" or FILE.csv.

    The file is described at `read_boxes`. Returns a function (height, width, index) -> Box, which
    raises UserError when a box given as numbers does not lie in the frame. Raises UserError for any
    other text.
    """
    if text == "full":
        return lambda height, width, index: (0.0, 0.0, float(width), float(height))
    if text == "center":
        return _centre
    if text.lower().endswith(".csv"):
        return read_boxes(Path(text))
    try:
        x, y, box_width, box_height = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"roi: got '{text}', expected full, center, x,y,w,h or a .csv") from None

    def fixed(height: int, width: int, index: int) -> Box:
        inside = x >= 0 and y >= 0 and x + box_width <= width and y + box_height <= height
        if not inside:  # NaN is not
            raise UserError(
                f"roi: got {text}, expected x,y,w,h within the frame of {width}×{height} pixels"
            )
        return (x, y, box_width, box_height)

    if not (box_width > 0 and box_height > 0):
        raise UserError(f"roi: got {text}, expected x,y,w,h with a width and height above 0")
    return fixed


def _centre(height: int, width: int, index: int) -> Box:
    side = min(height, width)
    return ((width - side) / 2, (height - side) / 2, float(side), float(side))


def read_boxes(path: Path) -> Roi:
    """Read a CSV of `frame,x,y,w,h` (frames from 0; pixels, edges).

    Between two listed frames the box moves evenly; before the first and after the last it stays.
    It may reach beyond the frame, whose border is then replicated. Raises UserError naming the
    line that is wrong.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as UTF-8 CSV") from error
    keys = np.array([_numbers(path, line, row) for line, row in enumerate(rows, start=2)])
    if not len(keys):
        raise UserError(f"{path}: got no box, expected rows of {','.join(COLUMNS)}")
    keys = keys[np.argsort(keys[:, 0], kind="stable")]

    def box_at(height: int, width: int, index: int) -> Box:
        x, y, w, h = (float(np.interp(index, keys[:, 0], keys[:, i])) for i in range(1, 5))
        return (x, y, w, h)

    return box_at


def _numbers(path: Path, line: int, row: dict[str, str]) -> list[float]:
    try:
        values = [float(row[column]) for column in COLUMNS]
        if not np.isfinite(values).all() or min(values[3:]) <= 0 or values[0] < 0:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}, line {line}: got {', '.join(str(v) for v in row.values())}, expected numbers "
            f"for {','.join(COLUMNS)}, with a width and height above 0"
        ) from None
    return values
