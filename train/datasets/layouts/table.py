"""Layout `csv`: a folder with `annotations.csv`, lmk's own generic format.

One row an image. Columns: `file` (path relative to the folder, in which it must stay), optionally
`width`, `height`, `split`, `source`; then for every landmark NAME `NAME_x`, `NAME_y` in pixels of
the image, pixel-centre convention, and optionally `NAME_v` (0: missing). The image is upright, as
EXIF has it turned, unless only its stored pixels have that width and height. An empty x or y is a
missing point as well. Without any NAME_x column the images are unlabelled. Optional, all four:
`box_x`, `box_y`, `box_w`, `box_h`, the object's box in pixels, edges (the top-left pixel spans 0 to
1); empty for the whole image.
"""

from __future__ import annotations

import csv
import io
import os
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmk.runtime.errors import UserError
from lmk.runtime.files import open_regular
from lmk.runtime.images import Box, read_image
from lmk.train.datasets.layouts.folder import fingerprint
from lmk.train.datasets.layouts.listing import edges, is_inside
from lmk.train.datasets.sample import Dataset, Layout, Sample, scheme_of

FILE_NAME = "annotations.csv"
BOX = {"box_x", "box_y", "box_w", "box_h"}
_Cells = dict[str, str]
Lines = list[tuple[int, _Cells]]  # with their numbers in the file


def open_csv(root: Path) -> Dataset:
    """Read `root`/annotations.csv, or the table that `root` is.

    Raises UserError naming the line and column of the first thing that is wrong: no `file`
    (column or cell), NAME_x without NAME_y, a column twice, a row of another number of cells,
    anything but a finite number as a coordinate, a box without a size, not a single row.
    """
    return open_table(_table_of(root))


def _table_of(root: Path) -> Path:
    """The table that is named, or that of a folder."""
    return root if root.is_file() else root / FILE_NAME


def _recognises(root: Path) -> bool:
    if root.is_file():
        head = edges(root).partition("\n")[0] if root.suffix == ".csv" else ""
        return "file" in head.strip().split(",")
    return _table_of(root).is_file()


def open_table(table: Path) -> Dataset:
    """`open_csv` of a table of any name, beside its images."""
    root = table.parent
    columns, rows = _read(table)
    names = _landmark_names(table, columns)
    if not rows:
        raise UserError(f"{table}: got no rows, expected one an image")
    for line, row in rows:
        if None in row or None in row.values():  # DictReader's marks of too many and too few
            raise UserError(f"{table}, line {line}: expected {len(columns)} cells, as the header")
        if not row["file"]:
            raise UserError(f"{table}, line {line}: the cell of 'file' is empty; fill it in")
        if not os.path.exists(root / row["file"]):  # files made on Windows may have its separator
            row["file"] = row["file"].replace("\\", "/")
        if not is_inside(row["file"]):
            raise UserError(
                f"{table}, line {line}: got '{row['file']}', expected a path that stays in "
                f"{root}; move the image there"
            )
    has_box = BOX.issubset(columns)
    samples = tuple(
        Sample(
            row["file"],
            partial(read_image, root / row["file"], annotated=_size(row)),
            _points(table, line, row, names),
            row.get("split") or "",
            _box(table, line, row) if has_box else None,
        )
        for line, row in rows
    )
    key = fingerprint([table, *(root / sample.name for sample in samples)])
    return Dataset(root.resolve().name, samples, key, scheme_of(names, table))


def _size(row: _Cells) -> tuple[int, int] | None:
    """(height, width) of the image whose pixels the points are in, where the row says it."""
    try:
        return int(row["height"]), int(row["width"])
    except (KeyError, ValueError):
        return None


def landmark_names(root: Path) -> tuple[str, ...]:
    """Names of the annotated landmarks, () for none; raises UserError as `open_csv`."""
    table = _table_of(root)
    return _landmark_names(table, _read(table, header_only=True)[0])


def _read(table: Path, header_only: bool = False) -> tuple[list[str], Lines]:
    try:
        with io.TextIOWrapper(open_regular(table), "utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            return columns, [] if header_only else [(reader.line_num, row) for row in reader]
    except FileNotFoundError as error:
        raise UserError(f"{table}: got no such file; check the path") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read ({error}); save it as UTF-8 CSV") from error


def _landmark_names(table: Path, columns: list[str]) -> tuple[str, ...]:
    if "file" not in columns:
        raise UserError(
            f"{table}: column 'file' is missing, got {', '.join(columns[:6]) or 'no header'}; "
            "add it (image paths relative to this file)"
        )
    for column in columns:
        if columns.count(column) > 1:
            raise UserError(f"{table}: column '{column}' is there twice; rename one")
    has_box = BOX.issubset(columns)
    if not has_box and not {"box_w", "box_h"}.isdisjoint(columns):
        raise UserError(
            f"{table}: column '{min(BOX - set(columns))}' is missing; a box needs box_x, box_y, "
            "box_w and box_h"
        )
    points = [column for column in columns if not (has_box and column in BOX)]
    names = tuple(column[:-2] for column in points if column.endswith("_x"))
    ys = {column[:-2] for column in points if column.endswith("_y")}
    for name in sorted(ys ^ set(names)):
        missing = f"{name}_y" if name in names else f"{name}_x"
        raise UserError(f"{table}: column '{missing}' is missing; every landmark needs _x and _y")
    return names


def _points(table: Path, line: int, row: _Cells, names: tuple[str, ...]) -> NDArray[np.float32]:
    points = np.full((len(names), 2), np.nan, np.float32)
    for index, name in enumerate(names):
        x, y = row[f"{name}_x"], row[f"{name}_y"]
        visible = row.get(f"{name}_v") or "1"
        try:
            point = float(x or 0), float(y or 0), float(visible)
            if not np.isfinite(point).all():
                raise ValueError
        except ValueError:
            got = f"'{x}', '{y}', '{visible}' for {name}_x, {name}_y, {name}_v"
            raise UserError(f"{table}, line {line}: got {got}, expected numbers") from None
        if x and y and point[2]:
            points[index] = point[:2]
    return points


def _box(table: Path, line: int, row: _Cells) -> Box | None:
    cells = [row[column] for column in ("box_x", "box_y", "box_w", "box_h")]
    if not any(cells):
        return None
    try:
        x, y, width, height = map(float, cells)
        if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
            raise ValueError
    except ValueError:
        raise UserError(
            f"{table}, line {line}: got {', '.join(cells)} for box_x,box_y,box_w,box_h, expected "
            "numbers, with a width and height above 0, or empty cells for the whole image"
        ) from None
    return (x, y, width, height)


LAYOUT = Layout(
    "csv",
    f"{FILE_NAME} (file, NAME_x, NAME_y, …) and the images it names",
    _recognises,
    open_csv,
    landmark_names,
)
