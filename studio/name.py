"""The room Name: pictures, found landmarks and clicks -> the table that `lmk name` reads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lmk.runtime.detection import Detection, Frame
from lmk.runtime.errors import UserError
from lmk.runtime.files import atomic_path
from lmk.runtime.images import Box, read_image, square_around, to_crop, whole
from lmk.runtime.landmarker import Landmarker
from lmk.runtime.model import read_header, workspace
from lmk.runtime.regions import Target, overlap
from lmk.runtime.sources import open_source, sample
from lmk.studio.annotations import Annotations, Content, Points, Row
from lmk.studio.exchange import bring_in, coco, dlc, labels
from lmk.studio.gate import owner_only
from lmk.studio.jobs import Jobs
from lmk.studio.project import Opened, Project

CANDIDATES = 120  # pictures of a project that are proposed from, to twice as many of each film
_SAME_BOX = 0.5  # overlap from which a box in the table is that of an object found now
FEWEST = 5  # pictures of each point, as `lmk name` has it
LEARN = "5m"  # for the points that no landmark is near
ENOUGH = 10  # pictures before which nobody is told to stop
_GAIN = 0.07  # of the error: where twice the pictures bring no more than that, it is enough
_Doubles = NDArray[np.float64]
_EXPORTS: dict[str, Callable[[Annotations], bytes]] = {
    "annotations.csv": lambda table: table.table.read_bytes() if table.table.exists() else b"",
    "coco.json": coco,
    "CollectedData_lmk.csv": dlc,
}


@dataclass(frozen=True)
class Proposal:
    """An object in a picture, and what was found of it."""

    source: str
    number: int
    track: int
    shape: _Doubles  # (2K,) landmarks in the crop, in its sides
    scores: NDArray[np.float32]  # (K,)

    @property
    def place(self) -> tuple[str, int, int]:
        """What names it."""
        return self.source, self.number, self.track

    @property
    def score(self) -> float:
        """Mean over landmarks."""
        return float(self.scores.mean())


@dataclass
class Scan:
    """The candidates of a project for one pack, as they are found."""

    pack: str
    sha256: str  # of the pack
    candidates: list[Proposal] = field(default_factory=list)
    done: bool = False
    error: str | None = None


class NameRoom:
    """What the page asks for and sends."""

    def __init__(self, project: Project, jobs: Jobs) -> None:
        self.project, self.jobs = project, jobs
        self._scans: dict[str, Scan] = {}
        self._found: dict[tuple[Any, ...], NDArray[np.float32]] = {}
        self._lock = threading.Lock()
        self._judging = threading.Lock()
        self._judged: tuple[Any, dict[str, Any]] | None = None

    def routes(self) -> list[BaseRoute]:
        """All below /api/name."""
        return [
            Route("/api/name/{pack}", self.state),
            Route("/api/name/{pack}/names", self.rename, methods=["PUT"]),
            Route("/api/name/{pack}/skeleton", self.join, methods=["PUT"]),
            Route("/api/name/{pack}/errors", self.errors),
            Route("/api/name/{pack}/next", self.next),
            Route("/api/name/{pack}/run", self.run, methods=["POST"]),
            Route("/api/name/{pack}/labels/{source}", self.labels),
            Route("/api/name/{pack}/labels/{source}", self.bring_in, methods=["POST"]),
            *(Route(f"/api/name/{{pack}}/{name}", self.download) for name in _EXPORTS),
            Route("/api/name/{pack}/{source}/{number:int}", self.picture),
            Route("/api/name/{pack}/{source}/{number:int}", self.put, methods=["PUT"]),
        ]

    def progress(self) -> dict[str, Any]:
        """How far the candidates are, for the events."""
        return {
            name: {"found": len(scan.candidates), "done": scan.done, "error": scan.error}
            for name, scan in self._scans.items()
        }

    # What pages ask for

    def state(self, request: Request) -> Response:
        """Names, skeleton and what is annotated; begins to look for candidates."""
        table, pack = self._table(request), request.path_params["pack"]
        if self._scan(pack).error:  # as of a pack whose ONNX file was not there yet
            del self._scans[pack]
            self._scan(pack)
        content = table.read()
        return JSONResponse(
            {
                "names": content.names,
                "skeleton": table.skeleton(),
                "table": str(table.table),
                "rows": [
                    {
                        "place": place,
                        "file": row.file,
                        "points": sum(map(bool, row.points.values())),
                    }
                    for row, place in zip(content.rows, self.project.places(content), strict=True)
                ],
                "sources": {
                    key: {
                        "title": s.title,
                        "pictures": len(s.pictures),
                        "time": s.is_film,
                        "every": getattr(s.pictures, "rate", 1.0),  # of a gallery: a second
                    }
                    for key, s in self.project.sources.items()
                },
                "fewest": FEWEST,
            }
        )

    def picture(self, request: Request) -> Response:
        """A picture's size and title, its objects, what was found of each and what is annotated."""
        pack, source, number = self._asked(request)
        image = source.pictures.image(number)
        table = self.project.annotations(pack)
        content, objects = table.read(), []
        targets = self._targets(content, source, number)
        boxes = [target.box for target in targets]
        found: list[Detection | None] = [None] * len(boxes)
        error = None
        try:
            model = self.project.model(pack)
            seen = model.batch([image] * len(boxes), boxes)
            self._remember(self._scan(pack), source.key, number, targets, seen, model)
            found = list(seen)
        except UserError as wrong:  # points can be named all the same
            error = str(wrong)
        for target, detection in zip(targets, found, strict=True):
            row = self._row(content, source, number, target.box)
            objects.append(
                {
                    "track": target.track,
                    "box": target.box,
                    "whole": target.box == whole(image),
                    "found": _landmarks(detection) if detection else [],
                    "points": row and row.points,
                }
            )
        return JSONResponse(
            {
                "source": source.key,
                "title": source.title,
                "number": number,
                "name": source.pictures.title(number),
                "count": len(source.pictures),
                "width": image.shape[1],
                "height": image.shape[0],
                "objects": objects,
                "error": error,
            }
        )

    async def put(self, request: Request) -> Response:
        """Set the points of an object; the picture is copied beside the table before."""
        sent = await request.json()
        return await run_in_threadpool(self._put, request, sent)

    def _put(self, request: Request, sent: dict[str, Any]) -> Response:
        pack, source, number = self._asked(request)
        table = self.project.annotations(pack)
        content = table.read()
        targets = self._targets(content, source, number)
        box = next((target.box for target in targets if target.track == sent["track"]), None)
        if box is None:
            raise UserError(f"object: got {sent['track']}, expected one of this picture")
        row = self._row(content, source, number, box)
        if row is None:
            image = source.pictures.image(number)
            file = self._file(source, number)
            kept = None if box == whole(image) and not self._finds(pack) else box
            path = table.table.parent / file
            if sent["points"] is not None and not path.exists():
                with atomic_path(path) as temporary:
                    Image.fromarray(image).save(temporary, compress_level=3)
        else:
            file, kept = row.file, row.box
        content = table.put(file, kept, _points(sent["points"]), _points(sent["before"]))
        row = self._row(content, source, number, box)
        return JSONResponse({"points": row and row.points})

    async def rename(self, request: Request) -> Response:
        """Set the points' names."""
        sent = await request.json()
        names = [(str(each["name"]), each["was"]) for each in sent["names"]]
        content = self._table(request).rename(names, sent["before"])
        return JSONResponse({"names": content.names})

    async def join(self, request: Request) -> Response:
        """Set the skeleton."""
        sent = await request.json()
        lines = [(str(a), str(b)) for a, b in sent["lines"]]
        return JSONResponse({"skeleton": self._table(request).join(lines, sent["before"])})

    def labels(self, request: Request) -> Response:
        """What labels of other programs a folder has, which could be brought in."""
        self._table(request)
        return JSONResponse(labels(self.project.source(request.path_params["source"])))

    def bring_in(self, request: Request) -> Response:
        """Put them into the table, which has no point yet."""
        source = self.project.source(request.path_params["source"])
        return JSONResponse({"pictures": len(bring_in(self._table(request), source).rows)})

    def download(self, request: Request) -> Response:
        """The table itself, or as another program reads it."""
        name = request.url.path.rpartition("/")[2]
        named = {"content-disposition": f'attachment; filename="{name}"'}
        kind = "application/json" if name.endswith(".json") else "text/csv"
        return Response(_EXPORTS[name](self._table(request)), media_type=kind, headers=named)

    def next(self, request: Request) -> Response:
        """The most useful picture to annotate next, of those that are not in `without`."""
        table, pack = self._table(request), request.path_params["pack"]
        scan, content = self._scan(pack), table.read()
        done = {tuple(place[:2]) for place in self.project.places(content) if place}
        skipped = {tuple(each.rsplit(":", 1)) for each in request.query_params.getlist("without")}
        left = [
            candidate
            for candidate in list(scan.candidates)
            if (candidate.source, candidate.number) not in done
            and (candidate.source, str(candidate.number)) not in skipped
        ]
        if not left:
            return JSONResponse({"next": None, "done": scan.done, "error": scan.error})
        annotated = [c for c in scan.candidates if (c.source, c.number) in done]
        annotated += self._shapes_of_rows(pack, content, {c.place for c in annotated})
        best, why = _propose(left, annotated)
        return JSONResponse({"next": best.place, "why": why, "done": scan.done})

    def errors(self, request: Request) -> Response:
        """Errors of each point in pictures left out, and whether more pictures would help."""
        table, pack = self._table(request), request.path_params["pack"]
        with self._judging:  # one after the other, of what the table then says
            content = table.read()
            of = self._scan(pack).sha256, content
            if self._judged is None or self._judged[0] != of:
                self._judged = of, self._judge(pack, content, table.table.parent)
            return JSONResponse(self._judged[1])

    async def run(self, request: Request) -> Response:
        """`lmk name`, and `lmk detect` with the new names in the source that is asked for."""
        owner_only(request)
        sent = await request.json()
        pack = request.path_params["pack"]
        commands = self.commands(pack, sent.get("source"), sent.get("learn") is True)
        job = self.jobs.start(f"name the points of {pack}", commands)
        return JSONResponse({"job": job.key})

    def commands(self, pack: str, source: str | None, learn: bool) -> list[list[str]]:
        """What `run` runs."""
        path, table = self.project.pack_file(pack), self.project.annotations(pack)
        output = workspace.made_of(path, "-named.safetensors")
        commands = [["name", str(path), "--annotations", str(table.table), "--output", str(output)]]
        commands[0] += ["--force", *(("--learn", LEARN) if learn else ())]
        if source is not None:
            opened = self.project.source(source)
            command = ["detect", str(opened.path), "--model", str(output.with_suffix(".onnx"))]
            boxes = opened.boxes_file
            command += ["--roi", str(boxes) if boxes.is_file() else "full"]  # as shown here
            if table.skeleton():
                command += ["--skeleton", str(table.skeleton_file)]
            command += ["--output", str(workspace.RUNS / f"{opened.stem}-{pack}-named")]
            commands.append([*command, "--force"])
        return commands

    # Rows and pictures

    def _asked(self, request: Request) -> tuple[str, Opened, int]:
        values = request.path_params
        self.project.pack_file(values["pack"])
        return values["pack"], self.project.source(values["source"]), values["number"]

    def _table(self, request: Request) -> Annotations:
        pack = request.path_params["pack"]
        self.project.pack_file(pack)  # else any name would make a folder
        return self.project.annotations(pack)

    def _file(self, source: Opened, number: int) -> str:
        """What the table calls a picture."""
        if source.is_film:
            return source.copied(f"{source.key}#{number}")
        title = source.pictures.title(number)
        return title if source.path == self.project.annotated_folder else source.copied(title)

    def _finds(self, pack: str) -> bool:
        """Whether a pack's objects are to be found: then no box does not mean the whole image."""
        finding = read_header(self.project.pack_file(pack)).get("finding")
        return finding is not None and finding["way"] != "full"

    def _targets(self, content: Content, source: Opened, number: int) -> list[Target]:
        """The objects in a picture: those found, and those annotated where none was found.

        Where nothing was looked for the whole picture is an object, unless one in it is annotated.
        """
        targets = source.targets(number)
        file = self._file(source, number)
        boxes = [row.box for row in content.rows if row.file == file and row.box is not None]
        others = [b for b in boxes if all(overlap(b, t.box) < _SAME_BOX for t in targets)]
        if boxes and not source.boxes_file.is_file():
            targets, others = [], boxes
        first = max((target.track for target in targets), default=-1) + 1
        return [*targets, *(Target(box, first + n) for n, box in enumerate(others))]

    def _row(self, content: Content, source: Opened, number: int, box: Box) -> Row | None:
        """The row of the object in `box`, which may have been found anew since."""
        file = self._file(source, number)
        rows = [row for row in content.rows if row.file == file]
        alike = [(overlap(row.box, box), row) for row in rows if row.box is not None]
        share, row = max(alike, default=(0.0, None), key=lambda each: each[0])
        if share >= _SAME_BOX:
            return row
        return next((row for row in rows if row.box is None), None)

    # What the landmarks tell

    def _scan(self, pack: str) -> Scan:
        """The scan of a pack as it is now, begun if it has not been."""
        sha256 = read_header(self.project.pack_file(pack))["sha256"]
        with self._lock:
            if pack not in self._scans or self._scans[pack].sha256 != sha256:
                scan = self._scans[pack] = Scan(pack, sha256)
                threading.Thread(target=self._look, args=(scan,), daemon=True).start()
            return self._scans[pack]

    def _look(self, scan: Scan) -> None:
        try:
            model = self.project.model(scan.pack)
            count = max(8, CANDIDATES // max(1, len(self.project.sources)))
            for source in self.project.sources.values():
                _visit(source, count, partial(self._see, scan, model, source))
        except Exception as error:  # of a thread: told where somebody looks
            scan.error = str(error)
        scan.done = True

    def _see(self, scan: Scan, model: Landmarker, source: Opened, frame: Frame) -> None:
        targets = source.targets_in(frame)
        boxes = [target.box for target in targets]
        found = model.batch([frame.image] * len(boxes), boxes)
        self._remember(scan, source.key, frame.index, targets, found, model)

    def _remember(
        self,
        scan: Scan,
        source: str,
        number: int,
        targets: list[Target],
        found: list[Detection],
        model: Landmarker,
    ) -> None:
        """The objects of a picture become candidates; so do those that somebody looks at."""
        known = {candidate.place for candidate in scan.candidates}
        for target, detection in zip(targets, found, strict=True):
            if (source, number, target.track) not in known:
                shape, scores = _shape(detection, model), detection.scores
                scan.candidates.append(Proposal(source, number, target.track, shape, scores))

    def _shapes_of_rows(
        self, pack: str, content: Content, known: set[tuple[str, int, int]]
    ) -> list[Proposal]:
        """Rows of pictures that are not candidates, as an earlier session's, as such."""
        model, folder, found = self.project.model(pack), self._folder(pack), []
        pictures = {place[:2] for place in known}
        for row, place in zip(content.rows, self.project.places(content), strict=True):
            if place is None or place not in pictures:
                shape = self._in_crop(pack, folder, row, model).ravel().astype(np.float64)
                shape /= model.contract.input_size
                found.append(Proposal("", -1, 0, shape, np.ones(1, np.float32)))
        return found

    def _folder(self, pack: str) -> Path:
        return self.project.annotations(pack).table.parent

    def _in_crop(self, pack: str, folder: Path, row: Row, model: Landmarker) -> NDArray[np.float32]:
        """The landmarks (K,2) of a row's object in pixels of its crop, as `lmk name` has them."""
        path = folder / row.file
        key = (pack, model.contract.pack_sha256, row.file, row.box, path.stat().st_mtime_ns)
        if key not in self._found:
            image = read_image(path)
            box = row.box or whole(image)
            detection = model.batch([image], [box])[0]
            self._found[key] = to_crop(
                detection.points,
                square_around(box, model.contract.crop_scale),
                model.contract.input_size,
            )
        return self._found[key]

    def _judge(self, pack: str, content: Content, folder: Path) -> dict[str, Any]:
        """As `lmk name` judges, of the points that are in enough pictures."""
        rows = [row for row in content.rows if any(row.points.values())]
        counts = {name: sum(bool(row.points.get(name)) for row in rows) for name in content.names}
        names = [name for name, count in counts.items() if count >= FEWEST]
        told: dict[str, Any] = {
            "pictures": len(rows),
            "points": {name: {"images": count} for name, count in counts.items()},
            "enough": False,
            "ready": bool(rows) and len(names) == len(content.names),
        }
        if not names:
            return told
        from lmk.train.datasets import scheme_of
        from lmk.train.judge import (
            STEADY_SCORE,
            NamedCrops,
            check_informative,
            judge,
            leave_one_out,
        )

        if candidates := list(self._scan(pack).candidates):
            unsure = np.mean([each.scores for each in candidates], axis=0) < STEADY_SCORE
            told["unsure"] = int(unsure.sum()), len(unsure)
        model = self.project.model(pack)
        size, scale = model.contract.input_size, model.contract.crop_scale
        found = np.stack([self._in_crop(pack, folder, row, model) for row in rows])
        missing = (np.nan, np.nan)
        points = np.stack(
            [
                to_crop(
                    np.array([row.points.get(name) or missing for name in names], np.float32),
                    square_around(row.box or whole(read_image(folder / row.file)), scale),
                    size,
                )
                for row in rows
            ]
        )
        blank = np.broadcast_to(np.uint8(0), (len(rows), size, size, 3))

        def judged(chosen: list[int]) -> dict[str, Any]:
            seen = NamedCrops(scheme_of(tuple(names)), blank[chosen], points[chosen])
            return judge(leave_one_out(found[chosen], points[chosen]), seen, scale)

        report = judged(list(range(len(rows))))
        for point in report["points"]:
            told["points"][point["name"]] |= point
        told |= {key: report[key] for key in ("error_px", "mean_shape_px", "error_box_percent")}
        try:
            check_informative(report, "points")
        except UserError as error:
            told["doubt"] = str(error)
        halves = [list(range(start, len(rows), 2)) for start in (0, 1)]
        present = np.asarray(np.isfinite(points).all(axis=2))
        # Of three pictures with a point one is left out, and a fit needs the other two.
        told_apart = min(present[half].sum(axis=0).min() for half in halves) >= 3
        if len(rows) >= ENOUGH and told_apart:
            with np.errstate(all="ignore"):
                before = float(np.nanmean([judged(half)["error_px"] for half in halves]))
            gain = (before - report["error_px"]) / max(before, 1e-9)
            told |= {"gain": gain, "half": len(rows) // 2}
            told["enough"] = told["ready"] and gain < _GAIN and "doubt" not in told
        return told


def _visit(source: Opened, count: int, see: Callable[[Frame], None]) -> None:
    """Call `see` with pictures all over a source, `count` or more: of a film first the key frames.

    They are read in no time, and whoever begins before all is seen is not held at its start.
    """
    if source.is_film:
        with open_source(source.path) as film:
            if film.skim(1) and len(sample(film, count, see)) >= count:
                return
        with open_source(source.path) as film:
            sample(film, count, see)
        return
    pictures = source.pictures
    for number in np.unique(np.linspace(0, len(pictures) - 1, 2 * count).round().astype(int)):
        with contextlib.suppress(UserError):  # it cannot be read
            see(pictures.frame(int(number)))


def _shape(detection: Detection, model: Landmarker) -> _Doubles:
    """(2K,): landmarks in the crop, in its sides."""
    left, top, side, _ = square_around(detection.box, model.contract.crop_scale)
    return ((detection.points - (left, top)) / side).astype(np.float64).ravel()


def _propose(left: list[Proposal], annotated: list[Proposal]) -> tuple[Proposal, str]:
    """The candidate that is furthest from what is annotated, where scores are low rather.

    The first is the one in the middle of all. Distances are root mean squares over landmarks.
    """
    shapes = np.stack([candidate.shape for candidate in left])
    if not annotated:
        away = ((shapes - np.median(shapes, axis=0)) ** 2).mean(axis=1)
        return left[int(away.argmin())], "the most usual one, to begin with"
    known = np.stack([candidate.shape for candidate in annotated])
    squares = ((shapes[:, None] - known[None]) ** 2).mean(axis=2)
    away = np.sqrt(squares.min(axis=1))
    doubt = 1 - np.array([candidate.score for candidate in left])
    worth = away / max(float(np.median(away)), 1e-9) + doubt / max(float(np.median(doubt)), 1e-9)
    best = int(worth.argmax())
    further = float((away < away[best]).mean())
    words = f"further from those annotated than {further:.0%} of the others"
    if doubt[best] > np.percentile(doubt, 80):
        words += ", and the landmarks are unsure"
    return left[best], words


def _landmarks(detection: Detection) -> list[list[float]]:
    pairs = zip(detection.points.tolist(), detection.scores.tolist(), strict=True)
    return [[round(x, 2), round(y, 2), round(score, 3)] for (x, y), score in pairs]


def _points(sent: dict[str, Any] | None) -> Points | None:
    """Points as the page sends them."""
    if sent is None:
        return None
    return {
        str(name): None if point is None else (float(point[0]), float(point[1]))
        for name, point in sent.items()
    }
