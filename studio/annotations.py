"""The table of annotated points <-> its file: what `lmk name` reads, kept whole and up to date."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmk.runtime.errors import UserError
from lmk.runtime.files import read_text, write_bytes
from lmk.runtime.images import Box
from lmk.runtime.owner import Owned

BOX = ("box_x", "box_y", "box_w", "box_h")
_NAME = re.compile(r"[\w.\-]([\w.\- ]{0,62}[\w.\-])?")
Point = tuple[float, float]
Points = dict[str, Point | None]  # pixels of the picture, its top-left pixel's centre is (0, 0)


class Conflict(Exception):
    """Somebody else has changed the same; `now` is what stands there."""

    def __init__(self, now: object) -> None:
        super().__init__("changed by somebody else")
        self.now = now


@dataclass
class Row:
    """One object in one picture.

    A point that is None was looked for and is not to be seen; one that is not there is still to do.
    """

    file: str
    box: Box | None
    points: Points
    other: dict[str, str] = field(default_factory=dict)  # cells of columns that are not ours


@dataclass
class Content:
    """What stands in the table."""

    names: list[str]
    rows: list[Row]

    def find(self, file: str, box: Box | None) -> Row | None:
        """The row of an object."""
        return next((row for row in self.rows if row.file == file and row.box == box), None)


class Annotations:
    """A table `annotations.csv` and, beside it, `skeleton.csv`.

    Every change reads the files anew under a lock, so that two windows, two servers and a
    spreadsheet do not lose each other's work: who changes something says what they have seen there,
    and Conflict is raised when that is no longer so. What a call has returned from is on the disk.
    """

    def __init__(self, table: Path) -> None:
        self.table = table
        self.skeleton_file = table.with_name("skeleton.csv")

    def read(self) -> Content:
        """What stands there now; raises UserError for a table that is none."""
        if not self.table.exists():
            return Content([], [])
        reader = csv.DictReader(io.StringIO(read_text(self.table, "a CSV of points"), newline=""))
        columns = list(reader.fieldnames or ())
        if "file" not in columns:
            raise UserError(f"{self.table}: column 'file' is missing; mend it")
        names = [column[:-2] for column in columns if column.endswith("_x") and column != "box_x"]
        ours = {"file", *BOX, *(f"{name}{axis}" for name in names for axis in ("_x", "_y", "_v"))}
        rows = []
        try:
            for cells in reader:
                box = [float(cells[name]) for name in BOX if cells.get(name)]
                rows.append(
                    Row(
                        cells["file"].replace("\\", "/"),
                        (box[0], box[1], box[2], box[3]) if len(box) == 4 else None,
                        dict(point for name in names for point in _point(cells, name)),
                        {name: cells[name] or "" for name in columns if name not in ours},
                    )
                )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            line = reader.line_num
            raise UserError(
                f"{self.table}, line {line}: cannot be read ({error}); mend it"
            ) from None
        return Content(names, rows)

    def put(
        self, file: str, box: Box | None, points: Points | None, before: Points | None
    ) -> Content:
        """Set the points of an object, or take its row away (None); returns the new content.

        before: what the caller has seen there. Raises Conflict, and UserError for nonsense.
        """
        box = box and (round(box[0], 2), round(box[1], 2), round(box[2], 2), round(box[3], 2))
        with self._lock():
            content = self.read()
            row = content.find(file, box)
            now = row and row.points
            if now != before:
                raise Conflict(now)
            if points is None:
                content.rows = [each for each in content.rows if each is not row]
            else:
                if unknown := sorted(set(points) - set(content.names)):
                    raise UserError(f"points: got '{unknown[0]}', expected names of the table")
                whole = {n: _rounded(points[n]) for n in content.names if n in points}
                if row is None:
                    content.rows.append(Row(file, box, whole))
                else:
                    row.points = whole
            self._write(content)
            return content

    def begin(self, names: Sequence[str], rows: Sequence[Row]) -> Content:
        """Write a table that has no row yet; raises UserError as `rename`, Conflict for another."""
        _check(names)
        with self._lock():
            if rows_now := self.read().rows:
                raise Conflict([row.file for row in rows_now])
            content = Content([*names], [*rows])
            self._write(content)
            return content

    def rename(self, names: Sequence[tuple[str, str | None]], before: Sequence[str]) -> Content:
        """Set the points' names, in order, each with what it was called (None: it is new).

        One that is left out is gone with its points. Raises as `put`.
        """
        given = [name for name, _ in names]
        _check(given)
        with self._lock():
            content = self.read()
            if list(before) != content.names:
                raise Conflict(content.names)
            lines = self.skeleton()
            for row in content.rows:
                row.points = {name: row.points[was] for name, was in names if was in row.points}
            now = {was: name for name, was in names if was}
            content.names = given
            self._write(content)
            if lines:
                kept = [(now[a], now[b]) for a, b in lines if a in now and b in now]
                self._write_skeleton(kept)
            return content

    def skeleton(self) -> list[tuple[str, str]]:
        """Pairs of names that are joined by lines."""
        if not self.skeleton_file.exists():
            return []
        rows = csv.reader(read_text(self.skeleton_file, "a CSV of name pairs").splitlines())
        return [(row[0], row[1]) for row in rows if len(row) == 2]

    def join(
        self, lines: Sequence[tuple[str, str]], before: Sequence[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """Set the skeleton; raises as `put`."""
        with self._lock():
            now, names = self.skeleton(), set(self.read().names)
            if [tuple(line) for line in before] != now:
                raise Conflict(now)
            once = list(dict.fromkeys((a, b) for a, b in lines))
            if any(a == b or not {a, b} <= names for a, b in once):
                raise UserError("skeleton: got a line that does not join two of the points")
            self._write_skeleton(once)
            return once

    def _lock(self) -> Owned:
        return Owned(self.table, wait_s=10)

    def _write(self, content: Content) -> None:
        others = list(dict.fromkeys(name for row in content.rows for name in row.other))
        boxes = any(row.box for row in content.rows)
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        hidden = {name for row in content.rows for name, p in row.points.items() if p is None}
        axes = {
            name: ("_x", "_y", "_v") if name in hidden else ("_x", "_y") for name in content.names
        }
        coordinates = [f"{name}{axis}" for name, each in axes.items() for axis in each]
        writer.writerow(["file", *others, *(BOX if boxes else ()), *coordinates])
        for row in content.rows:
            cells = [row.file, *(row.other.get(name, "") for name in others)]
            if boxes:
                cells += [_number(value) for value in row.box] if row.box else [""] * 4
            for name in content.names:
                point = row.points.get(name)
                cells += [_number(value) for value in point] if point else ["", ""]
                if name in hidden:
                    cells.append("0" if name in row.points and point is None else "")
            writer.writerow(cells)
        write_bytes(self.table, text.getvalue().encode())

    def _write_skeleton(self, lines: Sequence[tuple[str, str]]) -> None:
        write_bytes(self.skeleton_file, "".join(f"{a},{b}\n" for a, b in lines).encode())


def _check(names: Sequence[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name) or f"{name}_x" in BOX:
            raise UserError(
                f"name: got '{name}', expected up to 64 letters, digits, '_', '-', '.' or "
                "spaces within; take another"
            )
    if len(set(names)) < len(names):
        raise UserError("names: got one twice, expected each once; take another")


def _point(cells: Mapping[str, str], name: str) -> list[tuple[str, Point | None]]:
    """The point and its name, nothing where it is still to do."""
    x, y = cells[f"{name}_x"], cells[f"{name}_y"]
    if float(cells.get(f"{name}_v") or 1) == 0:
        return [(name, None)]
    return [(name, (float(x), float(y)))] if x and y else []


def _rounded(point: Point | None) -> Point | None:
    if point is None:
        return None
    x, y = point
    if not (math.isfinite(x) and math.isfinite(y) and max(abs(x), abs(y)) < 1e6):
        raise UserError(f"point: got {x}, {y}, expected pixels of the picture")
    return (round(float(x), 2), round(float(y), 2))


def _number(value: float) -> str:
    return f"{value:.12g}"  # hundredths of our own; what others wrote stays as it is
