"""The room Learn: what runs of adaptation write into their folders -> how far each is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import threading
import time
from collections.abc import Sequence
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
from lmk.studio.project import NotThere, Project

COMMAND = "command.json"  # in the folder of a run that was started here: to go on with it
CONFIG = "config.json"  # there from the first step on
_KINDS = (["adapt", "export", "detect"], ["discover"])  # of commands that Find starts
_POINTS = 300  # of a curve
_TAIL = 6000  # bytes of a log
_LINE = re.compile(r"step (\d+)\S*  .*  ([\d.]+) images/s  (\d+) s, (\d+) s left")
_STOPPED = re.compile("stopped after step|^lmk: interrupted", re.MULTILINE)


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
        more = (await request.json()).get("minutes")
        folder = self._folder(request)
        if _owner(folder) is not None:
            raise UserError(f"{folder.name}: is running; look again")
        commands = self._commands(folder)
        if commands is None:
            raise UserError(
                f"{folder.name}: was started elsewhere; go on there by its command and --resume"
            )
        command, *others = commands
        if more is not None:
            if "--time-budget" not in command or not 0 < float(more) < 1e6:
                raise UserError(
                    f"{folder.name}: got {more} minutes more, expected a number above 0"
                )
            place = command.index("--time-budget") + 1
            command[place] = f"{float(command[place].removesuffix('m')) + float(more):g}m"
            self._keep(folder, commands)
        if (folder / CONFIG).exists():  # else it died before its first step
            command = [word for word in command if word not in ("--force", "--resume")]
            command.append("--resume")
        title = f"go on with {folder.name}"
        self.jobs.start(title, [command, *others], folder / "log.txt")
        return JSONResponse({"resumed": True})

    def start(self, title: str, name: str, commands: Sequence[Sequence[str]]) -> None:
        """Start the run `name`, of which the first command learns."""
        folder = workspace.RUNS / name
        self._keep(folder, commands)
        self.jobs.start(title, commands, folder / "log.txt")

    def _folder(self, request: Request) -> Path:
        for folder in _folders():
            if folder.name == request.path_params["run"]:
                return folder
        raise NotThere(f"run: got '{request.path_params['run']}', expected one in runs/")

    def _keep(self, folder: Path, commands: Sequence[Sequence[str]]) -> None:
        write_bytes(folder / COMMAND, json.dumps([*map(list, commands)]).encode())

    def _commands(self, folder: Path) -> list[list[str]] | None:
        """What it was started with: the command that learns and those that follow it."""
        kept = _json(folder / COMMAND)
        try:
            commands = [[str(word) for word in command] for command in kept]
            return commands if [command[0] for command in commands] in _KINDS else None
        except (TypeError, IndexError):
            return None

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
        past = (time.time() if alive else last) - first if first else 0.0
        minutes, steps = config.get("minutes"), config.get("steps")
        shares = [step / steps if steps else 0.0, past / (minutes * 60) if minutes else 0.0]
        share = min(1.0, max(shares))
        left = past / share * (1 - share) if share else None
        if alive and spoken:  # the run itself knows better
            since = max(0.0, time.time() - _time(folder / "log.txt"))
            past, left = int(spoken[0][3]) + since, max(0.0, int(spoken[0][4]) - since)
            share = past / (past + left) if past else 0.0
        commands = self._commands(folder)
        preview = folder / "preview.png"
        if alive:
            state = "running" if has_begun else "preparing"
        elif _is_finished(pack):
            state = "finished"
        elif self.jobs.writes(folder / "log.txt"):
            state = "preparing"
        else:
            state = "stopped" if _STOPPED.search("\n".join(lines[-3:])) else "died"
        return {
            "name": folder.name,
            "alive": alive,
            "state": state,
            "step": step,
            "share": 1.0 if state == "finished" else share,
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
            "command": shlex.join(["lmk", *commands[0]]) if commands else None,
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


def _folders() -> list[Path]:
    return sorted(
        {f.parent for name in (CONFIG, COMMAND) for f in workspace.RUNS.glob(f"*/{name}")}
    )


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
