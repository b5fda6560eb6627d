"""The room Learn: what runs of adaptation write into their folders -> how far each is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lmk.runtime.errors import UserError
from lmk.runtime.files import write_bytes
from lmk.runtime.model import read_header, workspace
from lmk.runtime.owner import beside
from lmk.studio.gate import owner_only
from lmk.studio.jobs import Jobs, of_last_command
from lmk.studio.project import NotThere, Opened, Project

ASKED = "asked.json"  # in the folder of a run that was started here: to go on with it
CONFIG = "config.json"  # there from the first step on
_POINTS = 300  # of a curve
_TAIL = 6000  # bytes of a log
_LINE = re.compile(r"step (\d+)\S*  .*  ([\d.]+) images/s  (\d+) s, (\d+) s left")
_STOPPED = re.compile("stopped after step|^lmk: interrupted", re.MULTILINE)


@dataclass(frozen=True)
class Asked:
    """What somebody wanted of a run. Of what to run nothing is kept: that is made anew."""

    landmarks: int
    minutes: float
    discovers: bool  # the boxes too


class LearnRoom:
    """What the page asks for and sends."""

    def __init__(self, project: Project, jobs: Jobs) -> None:
        self.project, self.jobs = project, jobs
        self._curves: dict[Path, tuple[Any, dict[str, list[tuple[int, float, float]]]]] = {}
        self._lock = threading.Lock()

    def routes(self) -> list[BaseRoute]:
        """All below /api/learn."""
        return [
            Route("/api/learn", self.runs),
            Route("/api/learn/{run}/preview", self.preview),
            Route("/api/learn/{run}/report", self.report),
            Route("/api/learn/{run}/stop", self.stop, methods=["POST"]),
            Route("/api/learn/{run}/resume", self.resume, methods=["POST"]),
        ]

    def signature(self) -> dict[str, list[int]]:
        """Of each run, what changes when it gets on: for the events."""
        names = (CONFIG, "history.json", "preview.png", "log.txt")
        told = {}
        for folder in _folders():
            files = [*(folder / name for name in names), *folder.glob("events.*")]
            told[folder.name] = [
                *(_stat(file) for file in files),
                _stat(beside(folder.with_suffix(".safetensors"), "lock")),
                _owner(folder) or self.jobs.writes(folder / "log.txt"),  # killed: it writes nothing
            ]
        return told

    def runs(self, request: Request) -> Response:
        """All runs, those under way first, then the latest."""
        with self._lock:
            told = [self._told(folder) for folder in _folders()]
        told.sort(key=lambda run: (not run["alive"], -run["changed"]))
        return JSONResponse(told)

    def preview(self, request: Request) -> Response:
        """The sheet that the run has written last."""
        return _file(self._folder(request) / "preview.png")

    def report(self, request: Request) -> Response:
        """The page that says which landmarks to trust; it may draw, but run nothing."""
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        response = _file(self._folder(request).with_suffix(".html"))
        response.headers["content-security-policy"] = f"{policy}; sandbox"
        return response

    async def stop(self, request: Request) -> Response:
        """End a run in order: it saves, and can be gone on with."""
        owner_only(request)
        folder = self._folder(request)
        owner = _owner(folder)
        if owner is None or not _is_held(folder):
            raise UserError(f"{folder.name}: is not running; look again")
        os.kill(owner, signal.SIGINT)
        return JSONResponse({"stopped": True})

    async def resume(self, request: Request) -> Response:
        """Go on with a run that was started here, with the options that it had.

        If `minutes` are sent, for so many more than it had.
        """
        owner_only(request)
        sent = await request.json()
        folder = self._folder(request)
        if self._is_busy(folder):
            raise UserError(f"{folder.name}: is running; look again")
        source, asked = self._source(folder), _asked(folder)
        if source is None or asked is None:
            raise UserError(
                f"{folder.name}: was started elsewhere, or of a film that is not open; go on there "
                "by its command and --resume"
            )
        if "minutes" in sent:
            more = float(sent["minutes"])
            if not 0 < more < 1e6:
                raise UserError(f"{folder.name}: got {more:g} minutes more, expected some")
            asked = replace(asked, minutes=asked.minutes + more)
        # Else it died before its first step.
        self._start(f"go on with {folder.name}", source, asked, (folder / CONFIG).exists())
        return JSONResponse({"resumed": True})

    def start(self, source: Opened, landmarks: int, minutes: float) -> None:
        """Learn in a source's boxes, export and detect; `lmk discover` where there are none."""
        discovers = source.is_film and not source.boxes_file.is_file()
        asked = Asked(landmarks, minutes, discovers)
        self._start(f"learn from {source.title}", source, asked, goes_on=False)

    def _start(self, title: str, source: Opened, asked: Asked, goes_on: bool) -> None:
        folder = workspace.RUNS / source.stem
        write_bytes(folder / ASKED, json.dumps(asdict(asked)).encode())
        self.jobs.start(title, commands(source, asked, goes_on), folder / "log.txt")

    def _source(self, folder: Path) -> Opened | None:
        """What a run that was started here learns from, if it is open."""
        sources = self.project.sources.values()
        return next((source for source in sources if source.stem == folder.name), None)

    def _is_busy(self, folder: Path) -> bool:
        return _owner(folder) is not None or self.jobs.writes(folder / "log.txt")

    def _folder(self, request: Request) -> Path:
        for folder in _folders():
            if folder.name == request.path_params["run"]:
                return folder
        raise NotThere(f"run: got '{request.path_params['run']}', expected one in runs/")

    def _told(self, folder: Path) -> dict[str, Any]:
        pack = folder.with_suffix(".safetensors")
        alive = _owner(folder) is not None
        # Until a run has got its pictures ready, what stands there is of the one before.
        has_begun = not alive or _time(folder / CONFIG) >= _time(beside(pack, "lock"))
        config = (_json(folder / CONFIG) if has_begun else None) or {}
        history = (_json(folder / "history.json") if has_begun else None) or []
        told = {name for row in history for name in row}
        curves, first, last = self._scalars(folder) if has_begun else ({}, 0.0, 0.0)
        lines = of_last_command(_tail(folder / "log.txt"))
        spoken = [match for line in lines if (match := _LINE.search(line))][-1:]
        step = max(
            [row.get("step", 0) for row in history[-1:]]
            + [points[-1][0] for points in curves.values() if points]
            + [int(match[1]) for match in spoken],
            default=0,
        )
        past = time.time() - first if first else 0.0
        if not alive:  # the clock ran on while it stood still
            past = history[-1].get("seconds", 0.0) if history else last - first
        minutes, steps = config.get("minutes"), config.get("steps")
        shares = [step / steps if steps else 0.0, past / (minutes * 60) if minutes else 0.0]
        share = min(1.0, max(shares))
        left = past / share * (1 - share) if share else None
        if alive and spoken:  # the run itself knows better
            since = max(0.0, time.time() - _time(folder / "log.txt"))
            past, left = int(spoken[0][3]) + since, max(0.0, int(spoken[0][4]) - since)
            share = past / (past + left) if past else 0.0
        preview = folder / "preview.png"
        if alive:
            state = "running" if has_begun else "preparing"
        elif self.jobs.writes(folder / "log.txt"):
            state = "finishing" if _is_finished(pack) else "preparing"
        elif _is_finished(pack):
            state = "finished"
        else:
            state = "stopped" if _STOPPED.search("\n".join(lines[-3:])) else "died"
        return {
            "name": folder.name,
            "alive": alive,
            "state": state,
            "step": step,
            "share": 1.0 if state in ("finished", "finishing") else share,
            "past": past,
            "left": left,
            "landmarks": config.get("landmarks"),
            "method": config.get("method"),
            "budget": f"{minutes:g} minutes" if minutes else f"{steps:,} steps" if steps else "",
            # Losses: what comes with a milestone is told by it.
            "curves": {name: _thin(points) for name, points in curves.items() if name not in told},
            "preview": _stat(preview) if preview.exists() else None,
            "pack": pack.exists(),
            "report": pack.with_suffix(".html").exists(),
            "lines": lines[-6:],
            "goes_on": _asked(folder) is not None and self._source(folder) is not None,
            "changed": max([f.stat().st_mtime for f in folder.iterdir()], default=0.0),
        }

    def _scalars(
        self, folder: Path
    ) -> tuple[dict[str, list[tuple[int, float, float]]], float, float]:
        """Curves (step, time, value) by name, from the events; the first and last time."""
        files = sorted(folder.glob("events.*"))
        with contextlib.suppress(ImportError):  # without it there are the log and the history
            from tensorboard.backend.event_processing.event_file_loader import (
                LegacyEventFileLoader,
            )

            for file in files:
                if file not in self._curves:
                    self._curves[file] = (LegacyEventFileLoader(str(file)), {})
                loader, found = self._curves[file]
                for event in loader.Load():  # goes on where it was
                    for value in event.summary.value:
                        point = (event.step, event.wall_time, value.simple_value)
                        found.setdefault(value.tag, []).append(point)
        joined: dict[str, list[tuple[int, float, float]]] = {}
        for _, found in (self._curves[file] for file in files if file in self._curves):
            for name, points in found.items():
                joined.setdefault(name, []).extend(points)
        times = [point[1] for points in joined.values() for point in (points[0], points[-1])]
        return joined, min(times, default=0.0), max(times, default=0.0)


def commands(source: Opened, asked: Asked, goes_on: bool) -> list[list[str]]:
    """What learns from a source, and what follows it."""
    output = workspace.RUNS / f"{source.stem}.safetensors"
    wanted = ["--landmarks", str(asked.landmarks), "--time-budget", f"{asked.minutes:g}m"]
    wanted += ["--output", str(output), "--resume" if goes_on else "--force"]
    if asked.discovers:
        return [["discover", str(source.path), *wanted]]
    onnx = output.with_suffix(".onnx")
    detect = ["detect", str(source.path), "--model", str(onnx), "--force"]
    detect += ["--output", str(workspace.RUNS / f"{source.stem}-landmarks")]
    detect += ["--roi", str(source.boxes_file) if source.boxes_file.is_file() else "full"]
    learn = ["adapt", "--data", str(source.path), *wanted]
    return [learn, ["export", str(output), "--output", str(onnx), "--force"], detect]


def _asked(folder: Path) -> Asked | None:
    """What stands in a run's folder, if it was started here."""
    kept = _json(folder / ASKED)
    with contextlib.suppress(TypeError, ValueError, KeyError):
        landmarks, minutes = int(kept["landmarks"]), float(kept["minutes"])
        if landmarks > 0 and 0 < minutes < 1e6:
            return Asked(landmarks, minutes, kept["discovers"] is True)
    return None


def _folders() -> list[Path]:
    return sorted({f.parent for name in (CONFIG, ASKED) for f in workspace.RUNS.glob(f"*/{name}")})


def _is_finished(pack: Path) -> bool:
    """Whether its run has spent its budget."""
    try:
        return bool(read_header(pack).get("finished", True))
    except UserError:  # there is none yet
        return False


def _owner(folder: Path) -> int | None:
    """The process that writes a run's pack, if it lives on this machine."""
    owner = _json(beside(folder.with_suffix(".safetensors"), "lock"))
    try:
        if not isinstance(owner, dict) or owner["host"] != socket.gethostname():
            return None
        os.kill(owner["pid"], 0)
        return int(owner["pid"])
    except (KeyError, TypeError, OSError):
        return None


def _is_held(folder: Path) -> bool:
    """Whether a run has the place: else the number in its lock may be anyone's by now."""
    lock = FileLock(beside(folder.with_suffix(".safetensors"), "lock"), timeout=0)
    try:
        with lock:
            return False
    except Timeout:
        return True


def _json(file: Path) -> Any:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return json.loads(file.read_text(encoding="utf-8"))
    return None


def _tail(file: Path) -> list[str]:
    with contextlib.suppress(OSError), open(file, "rb") as opened:
        opened.seek(max(0, file.stat().st_size - _TAIL))
        return opened.read().decode("utf-8", "replace").splitlines()
    return []


def _thin(points: list[tuple[int, float, float]]) -> list[tuple[int, float]]:
    every = -(-len(points) // _POINTS) or 1
    return [(step, value) for step, _, value in points[::every]]


def _time(file: Path) -> float:
    with contextlib.suppress(OSError):
        return file.stat().st_mtime
    return 0.0


def _stat(file: Path) -> int:
    with contextlib.suppress(OSError):
        status = file.stat()
        return status.st_mtime_ns // 1_000_000 + status.st_size
    return 0


def _file(path: Path) -> Response:
    if not path.is_file():
        raise NotThere(f"{path.name}: is not there yet")
    return FileResponse(path)
