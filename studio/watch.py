"""The room Watch: a film and its results -> what to draw over it, and its worst moments."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lmk.runtime.errors import UserError
from lmk.runtime.files import of_cell, printable
from lmk.runtime.model import workspace
from lmk.runtime.regions import overlap
from lmk.studio.annotations import Point
from lmk.studio.project import NotThere, Opened, Project

TABLE = "landmarks.csv"
_BOX = ("box_x", "box_y", "box_w", "box_h")
_MOMENTS = 12  # of each kind
_APART = 10  # frames between two of a kind
_GAP = 3  # frames: across more, nothing can be said of a jump
_JUMP = 0.12  # of the box: how much more than usual a landmark moves in a frame when it jumps
_LOW = 0.5  # of the score, in the mean over landmarks
_Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Results:
    """A table of `lmk detect`, by track and frame."""

    names: tuple[str, ...]
    source: str  # as the table calls it
    frames: NDArray[np.int32]  # (R,)
    tracks: NDArray[np.int32]  # (R,)
    boxes: _Doubles  # (R,4)
    points: _Doubles  # (R,K,3): x, y, score


class WatchRoom:
    """What the page asks for."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._lock = threading.Lock()
        self._read: dict[str, tuple[int, Results]] = {}

    def routes(self) -> list[BaseRoute]:
        """All below /api/watch."""
        return [
            Route("/api/watch", self.listed),
            Route("/api/watch/{key}", self.about),
            Route("/api/watch/{key}/data", self.data),
            Route("/api/watch/{key}/landmarks.csv", self.table),
        ]

    def listed(self, request: Request) -> Response:
        """The results of the films that were opened, the latest first."""
        found = []
        for folder, source in self._folders():
            changed = (folder / TABLE).stat().st_mtime
            found.append({"key": folder.name, "source": source.key, "changed": changed})
        return JSONResponse(sorted(found, key=lambda each: -each["changed"]))

    def about(self, request: Request) -> Response:
        """Names, size, the pack whose table corrections go to, what is in it, the worst moments."""
        results, source = self._results(request.path_params["key"])
        pictures = source.pictures
        base = self._base(results.names)
        return JSONResponse(
            {
                "names": results.names,
                "source": source.key,
                "title": source.title,
                "film": source.is_film,
                "count": len(pictures),
                "rate": getattr(pictures, "rate", 2.0),
                "rows": len(results.frames),
                "base": base,
                "skeleton": self.project.annotations(base).skeleton() if base else [],
                "corrected": self._corrected(base, results, source) if base else {},
                "moments": list(moments(results)),
            }
        )

    def data(self, request: Request) -> Response:
        """frame, track: (R,2) int32; then box, points: (R,4+3K) float32; little-endian."""
        results, _ = self._results(request.path_params["key"])
        numbers = np.stack([results.frames, results.tracks], axis=1).astype("<i4")
        flat = results.points.reshape(len(results.frames), -1)
        values = np.concatenate([results.boxes, flat], axis=1).astype("<f4")
        data = numbers.tobytes() + values.tobytes()
        return Response(data, media_type="application/octet-stream")

    def table(self, request: Request) -> Response:
        """The table as `lmk detect` wrote it."""
        key = request.path_params["key"]
        self._results(key)  # which names only what is ours
        return FileResponse(workspace.RUNS / key / TABLE, media_type="text/csv")

    def _folders(self) -> Iterator[tuple[Path, Opened]]:
        """Folders of results in runs/, each with the source that it is of."""
        titles = {}
        for source in self.project.sources.values():
            titles[printable(source.path.name)] = source
            titles |= dict.fromkeys(source.numbers, source)
        for table in sorted(workspace.RUNS.glob(f"*/{TABLE}")):
            with table.open(newline="", encoding="utf-8") as file:
                row = next(csv.DictReader(file), None)
            found = titles.get(of_cell(row.get("source") or "")) if row else None
            if found is not None:
                yield table.parent, found

    def _results(self, key: str) -> tuple[Results, Opened]:
        """Those of the folder of that name; raises NotThere."""
        for folder, source in self._folders():
            if folder.name == key:
                table = folder / TABLE
                changed = table.stat().st_mtime_ns
                with self._lock:
                    if self._read.get(key, (None,))[0] != changed:
                        self._read = {key: (changed, read_results(table, source))}
                    return self._read[key][1], source
        raise NotThere(f"results: got '{key}', expected a folder in {workspace.RUNS}/ of this film")

    def _corrected(
        self, base: str, results: Results, source: Opened
    ) -> dict[int, dict[int, dict[str, Point]]]:
        """Frame -> track -> the points that people have set there, whatever was found."""
        content = self.project.annotations(base).read()
        corrected: dict[int, dict[int, dict[str, Point]]] = {}
        for row, place in zip(content.rows, self.project.places(content), strict=True):
            points = {n: p for n, p in row.points.items() if p and n in results.names}
            if not place or place[0] != source.key or not points:
                continue
            there: list[int] = np.flatnonzero(results.frames == place[1]).tolist()
            if given := row.box:
                there.sort(key=lambda n: -overlap(given, tuple(results.boxes[n])))
            if there:
                corrected.setdefault(place[1], {})[int(results.tracks[there[0]])] = points
        return corrected

    def _base(self, names: tuple[str, ...]) -> str | None:
        """The pack whose points are called so: what is corrected goes to its table."""
        packs = self.project.told()["packs"]
        for pack in sorted(packs, key=lambda pack: -pack["changed"]):
            if pack["base"] and tuple(pack["landmarks"]) == names:
                return pack["base"]
        return None


def read_results(table: Path, source: Opened) -> Results:
    """Read a landmarks.csv; pictures of a folder get their numbers. Raises UserError."""
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        names = tuple(of_cell(name)[:-2] for name in header[8:] if name.endswith("_x"))
        if len(header) != 8 + 3 * len(names) or tuple(header[4:8]) != _BOX:
            raise UserError(f"{table}: got other columns than `lmk detect` writes; detect again")
        rows = [row for row in reader if len(row) == len(header)]
    if not rows:
        raise UserError(f"{table}: got no row, expected what was found; detect again")
    frames = [source.numbers.get(of_cell(row[0]), int(row[1])) for row in rows]
    values = np.array([[float(cell or "nan") for cell in row[3:]] for row in rows])
    numbered = np.array(frames, np.int32)
    order = np.lexsort((numbered, values[:, 0]))
    values = values[order]
    return Results(
        names,
        rows[0][0],
        numbered[order],
        values[:, 0].astype(np.int32),
        values[:, 1:5],
        values[:, 5:].reshape(len(rows), -1, 3),
    )


def moments(results: Results) -> Iterator[dict[str, Any]]:
    """Where it is worth to look, the worst of each kind first: low scores, jumps, swaps."""
    scores = results.points[..., 2]
    low = scores.mean(axis=1)
    yield from _worst(results, "low score", 1 - low, np.argmin(scores, axis=1), 1 - _LOW)
    near = (np.diff(results.frames) <= _GAP) & (np.diff(results.tracks) == 0)
    side = np.maximum(results.boxes[1:, 2:].max(axis=1), 1)
    moved = np.linalg.norm(np.diff(results.points[..., :2], axis=0), axis=2) / side[:, None]
    own = moved - np.median(moved, axis=1, keepdims=True)  # what all do together is no jump
    jumps = np.where(near, own.max(axis=1, initial=0), 0)
    which = own.argmax(axis=1) if own.size else np.zeros(0, int)
    yield from _worst(
        results, "jump", np.concatenate([[0], jumps]), np.concatenate([[0], which]), _JUMP
    )
    yield from _worst(results, "swap", _swaps(results), np.full(len(low), -1), 0.0)


def _swaps(results: Results) -> _Doubles:
    """For each row how much better two objects fit with their numbers exchanged; 0 for none."""
    worth = np.zeros(len(results.frames))
    rows = {(f, t): n for n, (f, t) in enumerate(zip(results.frames, results.tracks, strict=True))}
    numbers = np.unique(results.tracks)
    centres = results.points[..., :2].mean(axis=1)
    for one in numbers if len(numbers) > 1 else ():
        for other in numbers[numbers > one]:
            for frame in results.frames[results.tracks == one]:
                four = [rows.get((f, t)) for f in (frame - 1, frame) for t in (one, other)]
                if None in four:
                    continue
                a, b, c, d = (centres[n] for n in four)
                stays = np.linalg.norm(a - c) + np.linalg.norm(b - d)
                changes = np.linalg.norm(a - d) + np.linalg.norm(b - c)
                if changes < 0.8 * stays:
                    worth[four[2]] = float(stays - changes)
    return worth


def _worst(
    results: Results, kind: str, worth: _Doubles, which: NDArray[np.int64], least: float
) -> Iterator[dict[str, Any]]:
    taken: list[tuple[int, int]] = []
    for row in np.argsort(-worth, kind="stable"):
        if not worth[row] > least or len(taken) == _MOMENTS:
            return
        frame, track = int(results.frames[row]), int(results.tracks[row])
        if any(t == track and abs(f - frame) < _APART for f, t in taken):
            continue
        taken.append((frame, track))
        name = results.names[which[row]] if which[row] >= 0 else None
        yield {
            "kind": kind,
            "frame": frame,
            "track": track,
            "worth": round(float(worth[row]), 3),
            "name": name,
        }
