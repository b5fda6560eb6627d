"""Rooms -> a server for the browsers that have its token, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from lmk.runtime.errors import UserError
from lmk.runtime.terminal import explain
from lmk.studio.annotations import Conflict
from lmk.studio.find import FindRoom
from lmk.studio.gate import Gate, Refused, owner_only, page
from lmk.studio.jobs import Jobs
from lmk.studio.judge import JudgeRoom
from lmk.studio.learn import LearnRoom
from lmk.studio.name import NameRoom
from lmk.studio.project import NotThere, Project
from lmk.studio.ship import ShipRoom
from lmk.studio.watch import WatchRoom

HERE = Path(__file__).parent
_PORTS = range(8765, 8865)
_EVENT_SECONDS = 0.4
_QUIET_SECONDS = 10.0  # after which a line tells the browser that we are still here
_NONSENSE = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
_logger = logging.getLogger(__name__)
ROOMS = {
    "find": "Find",
    "learn": "Learn",
    "judge": "Judge",
    "name": "Name",
    "watch": "Watch",
    "ship": "Ship",
}


class Studio:
    """All rooms of a project, and what they share: jobs and events."""

    def __init__(self, project: Project) -> None:
        self.project, self.jobs = project, Jobs()
        self.name = NameRoom(project, self.jobs)
        self.watch = WatchRoom(project)
        self.learn = LearnRoom(project, self.jobs)
        self.ship = ShipRoom(project, self.jobs)
        self.judge = JudgeRoom(project, self.jobs)
        self.find = FindRoom(project, self.jobs, self.learn)

    def app(self) -> Starlette:
        """The pages, what they ask for, and where progress is told."""
        routes = [
            Route("/", self._room),
            Route("/{room:str}", self._room),
            Route("/api/project", self._project),
            Route("/api/events", self._events),
            Route("/api/jobs/{key}/stop", self._stop, methods=["POST"]),
            Route("/picture/{source}/{number:int}", self._picture),
            Route("/thumbnail/{source}/{number:int}", self._thumbnail),
            Route("/api/size/{source}/{number:int}", self._size),
            *self.name.routes(),
            *self.watch.routes(),
            *self.learn.routes(),
            *self.judge.routes(),
            *self.ship.routes(),
            *self.find.routes(),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]
        handlers: Mapping[Any, Any] = {
            UserError: _told_error,
            Conflict: lambda request, error: JSONResponse({"now": error.now}, 409),
            Refused: lambda request, error: JSONResponse({"error": str(error)}, error.status),
            Exception: _told_error,
            **dict.fromkeys(_NONSENSE, _told_nonsense),
        }
        return Starlette(routes=routes, exception_handlers=handlers)

    def _room(self, request: Request) -> Response:
        room = request.path_params.get("room", "home")
        if room != "home" and room not in ROOMS:
            return HTMLResponse(page("lost.html.jinja"), 404)
        return HTMLResponse(
            page("room.html.jinja", room=room, rooms=ROOMS, owner=not request.scope["who"])
        )

    def _project(self, request: Request) -> Response:
        return JSONResponse({**self.project.told(), "who": request.scope["who"]})

    def _picture(self, request: Request) -> Response:
        pictures = self.project.source(request.path_params["source"]).pictures
        width = min(int(request.query_params.get("width", 1920)), 8192)
        return _jpeg(pictures.jpeg(request.path_params["number"], width))

    def _size(self, request: Request) -> Response:
        pictures = self.project.source(request.path_params["source"]).pictures
        height, width, _ = pictures.image(request.path_params["number"]).shape
        return JSONResponse({"width": width, "height": height})

    def _thumbnail(self, request: Request) -> Response:
        pictures = self.project.source(request.path_params["source"]).pictures
        return _jpeg(pictures.thumbnail(request.path_params["number"]))

    def _stop(self, request: Request) -> Response:
        owner_only(request)
        return JSONResponse({"stopped": self.jobs.stop(request.path_params["key"])})

    def _snapshot(self) -> dict[str, Any]:
        told: dict[str, Any] = {"jobs": self.jobs.told(), "scans": self.name.progress()}
        return told | {"runs": self.learn.signature()}

    async def _events(self, request: Request) -> Response:
        async def stream() -> AsyncIterator[str]:
            last, quiet = "", 0.0
            yield "retry: 1000\n\n"
            while True:
                now = json.dumps(await run_in_threadpool(self._snapshot))
                if now != last or quiet > _QUIET_SECONDS:
                    # Whole states, not changes: whoever comes back has missed nothing.
                    yield f"data: {now}\n\n" if now != last else ": here\n\n"
                    last, quiet = now, 0.0
                await asyncio.sleep(_EVENT_SECONDS)
                quiet += _EVENT_SECONDS

        return StreamingResponse(stream(), media_type="text/event-stream")


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers={"cache-control": "private, max-age=60"})


def _told_nonsense(request: Request, error: Exception) -> Response:
    """What pages of ours never send; the log says what it was, for it may be a bug of theirs."""
    _logger.warning("%s %s: %r", request.method, request.url.path, error)
    return JSONResponse({"error": "the request is not what pages of the studio send"}, 400)


def _told_error(request: Request, error: Exception) -> Response:
    """One line, as on the command line."""
    line, _ = explain(error)
    status = 404 if isinstance(error, NotThere) else 400 if line else 500
    return JSONResponse({"error": line or f"internal error, please report it: {error!r}"}, status)


def serve(
    what: Sequence[str],
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = True,
    annotators: Sequence[str] = (),
) -> None:
    """Serve the studio until Ctrl-C; print its addresses, and open the first.

    Raises UserError for what cannot be opened and a port that is taken.
    """
    project = Project(what)
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    tokens = {secrets.token_urlsafe(24): who for who in ("", *annotators)}
    is_open = host not in ("127.0.0.1", "localhost", "::1")
    gate = Gate(Studio(project).app(), tokens, port, is_open)
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    shown = f"[{shown}]" if ":" in shown else shown
    for token, who in tokens.items():
        address = f"http://{shown}:{port}/{'name' if who else ''}?token={token}"
        print(f"{who}: {address}" if who else address, flush=True)
        if browser and not who:
            threading.Timer(0.3, webbrowser.open, [address]).start()
    print("Ctrl-C ends the studio; what it has started goes on", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        gate, log_level="warning", access_log=False, timeout_graceful_shutdown=1, lifespan="off"
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket on that port, else on the first of ours that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [port] if port else [*_PORTS, 0]:
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, number))
            listening.listen(128)
            return listening
        except OSError as error:
            listening.close()
            reason = error.strerror
    raise UserError(f"{host}:{port}: cannot be listened on ({reason}); give another --port")
