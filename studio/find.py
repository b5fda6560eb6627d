"""The room Find: boxes of objects in frames of a film, corrected; then landmarks are learnt."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lmk.runtime.errors import UserError
from lmk.runtime.files import as_cell, read_text, write_bytes
from lmk.runtime.find import COLUMNS
from lmk.runtime.model import workspace
from lmk.runtime.owner import Owned
from lmk.studio.annotations import Conflict
from lmk.studio.gate import owner_only
from lmk.studio.jobs import Jobs
from lmk.studio.learn import LearnRoom
from lmk.studio.project import Opened, Project

SHOWN = 12  # frames of a film
_MOST = 64  # objects in a frame


class FindRoom:
    """What the page asks for and sends."""

    def __init__(self, project: Project, jobs: Jobs, learn: LearnRoom) -> None:
        self.project, self.jobs, self.learn = project, jobs, learn

    def routes(self) -> list[BaseRoute]:
        """All below /api/find."""
        return [
            Route("/api/find/{source}", self.about),
            Route("/api/find/{source}/run", self.find, methods=["POST"]),
            Route("/api/find/{source}/learn", self.start, methods=["POST"]),
            Route("/api/find/{source}/{number:int}", self.boxes),
            Route("/api/find/{source}/{number:int}", self.put, methods=["PUT"]),
        ]

    def about(self, request: Request) -> Response:
        """The source and some of its frames, spread over it."""
        source = self.project.source(request.path_params["source"])
        pictures = source.pictures
        numbers = np.unique(np.linspace(0, len(pictures) - 1, SHOWN).round().astype(int))
        return JSONResponse(
            {
                "title": source.title,
                "film": source.is_film,
                "count": len(pictures),
                "numbers": numbers.tolist(),
                "found": source.boxes_file.is_file(),
                "file": str(source.boxes_file),
                "learnt": (workspace.RUNS / f"{source.stem}.safetensors").exists(),
            }
        )

    def boxes(self, request: Request) -> Response:
        """The boxes of a frame, and its size."""
        source, number = self._asked(request)
        height, width, _ = source.pictures.image(number).shape
        return JSONResponse({"width": width, "height": height, "boxes": _boxes(source, number)})

    async def put(self, request: Request) -> Response:
        """Set the boxes of a frame: those in the table give way to them."""
        owner_only(request)
        return await run_in_threadpool(self._put, request, await request.json())

    def _put(self, request: Request, sent: dict[str, Any]) -> Response:
        source, number = self._asked(request)
        if not source.is_film:
            raise UserError(f"{source.title}: got boxes for images, which are learnt from whole")
        boxes = [_checked(each) for each in sent["boxes"]]
        if len(boxes) > _MOST or len({box["track"] for box in boxes}) < len(boxes):
            raise UserError("boxes: got an object twice or too many, expected one of each number")
        path = source.boxes_file
        with Owned(path, wait_s=10):
            if (now := _boxes(source, number)) != sent["before"]:
                raise Conflict(now)
            label = as_cell(source.pictures.label(number))
            gone = {box["track"] for box in now} - {box["track"] for box in boxes}
            rows = _without(source, _rows(path), number, gone, label)
            rows += [_row(label, number, box) for box in boxes]
            rows.sort(key=lambda row: (int(row["frame"]), int(row["track"])))
            if not rows:
                path.unlink(missing_ok=True)
            else:
                write_bytes(path, _table(rows))
        return JSONResponse({"boxes": _boxes(source, number)})

    async def find(self, request: Request) -> Response:
        """`lmk find`: what moves, or the box that was drawn in the first frame."""
        owner_only(request)
        sent = await request.json()
        source = self.project.source(request.path_params["source"])
        command = ["find", str(source.path), "--force"]
        if sent.get("start"):
            box = [float(value) for value in sent["start"]]
            command += ["--find", "box", "--start", ",".join(f"{value:.1f}" for value in box)]
        elif sent.get("sure") is False:
            command += ["--find", "motion"]
        if sent.get("objects"):
            command += ["--objects", str(int(sent["objects"]))]
        self.jobs.start(f"find the objects in {source.title}", [command])
        return JSONResponse({"started": True})

    async def start(self, request: Request) -> Response:
        """Learn in these boxes, export and detect; without any, `lmk discover` does it all."""
        owner_only(request)
        sent = await request.json()
        source = self.project.source(request.path_params["source"])
        landmarks, minutes = int(sent["landmarks"]), float(sent["minutes"])
        output = workspace.RUNS / f"{source.stem}.safetensors"
        if output.exists() and not sent.get("anew"):
            raise UserError(f"{output}: was learnt already; say that it may be learnt anew")
        self.learn.start(source, landmarks, minutes)
        return JSONResponse({"run": source.stem})

    def _asked(self, request: Request) -> tuple[Opened, int]:
        return self.project.source(request.path_params["source"]), request.path_params["number"]


def _boxes(source: Opened, number: int) -> list[dict[str, Any]]:
    if not source.boxes_file.is_file():
        return []
    return [
        {"track": target.track}
        | dict(zip("xywh", (round(value, 2) for value in target.box), strict=True))
        for target in source.targets(number)
    ]


def _row(label: str, number: int, box: dict[str, Any]) -> dict[str, str]:
    sides = {side: f"{box[side]:.2f}" for side in "xywh"}
    return {"source": label, "frame": str(number), "track": str(box["track"]), **sides}


def _without(
    source: Opened, rows: list[dict[str, str]], number: int, gone: set[int], label: str
) -> list[dict[str, str]]:
    """The rows of other frames, so that the objects `gone` are not in frame `number`.

    Between listed frames a box moves evenly: an object that is gone in one ends there, and is
    another one, of a number of its own, from the next frame on.
    """
    before, after = (
        {box["track"]: box for box in _boxes(source, near)}
        for near in (max(0, number - 1), min(len(source.pictures) - 1, number + 1))
    )
    fresh = max((int(row["track"]) for row in rows), default=0) + 1
    kept = [row for row in rows if int(row["frame"]) != number]
    for track in sorted(gone):
        own = [row for row in kept if int(row["track"]) == track]
        later = [row for row in own if int(row["frame"]) > number]
        if len(later) in (0, len(own)):
            continue  # it ends before, or begins after: nothing is in between
        for row in later:
            row["track"] = str(fresh)
        listed = {int(row["frame"]) for row in own}
        if number - 1 not in listed:
            kept.append(_row(label, number - 1, before[track]))
        if number + 1 not in listed:
            kept.append(_row(label, number + 1, {**after[track], "track": fresh}))
        fresh += 1
    return kept


def _checked(sent: dict[str, Any]) -> dict[str, Any]:
    sides = {side: float(sent[side]) for side in "xywh"}
    wrong = not all(math.isfinite(value) and abs(value) < 1e6 for value in sides.values())
    if wrong or min(sides["w"], sides["h"]) < 1 or not 0 <= int(sent["track"]) < 1 << 31:
        raise UserError(f"box: got {sent}, expected x, y, w, h in pixels, of a pixel or more")
    return {"track": int(sent["track"]), **sides}


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    return list(csv.DictReader(io.StringIO(read_text(path, "a CSV of boxes"), newline="")))


def _table(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
