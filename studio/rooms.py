"""A project -> all that its pages ask for, whichever room they are."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lmk.runtime.errors import UserError
from lmk.runtime.terminal import explain
from lmk.studio.annotations import Conflict
from lmk.studio.find import FindRoom
from lmk.studio.gate import Refused, owner_only
from lmk.studio.jobs import Jobs
from lmk.studio.judge import JudgeRoom
from lmk.studio.learn import LearnRoom
from lmk.studio.name import NameRoom
from lmk.studio.project import NotThere, Project
from lmk.studio.ship import ShipRoom
from lmk.studio.watch import WatchRoom

_EVENT_SECONDS = 0.4
_QUIET_SECONDS = 10.0  # after which a line tells the browser that we are still here
_NONSENSE = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
_logger = logging.getLogger(__name__)


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
        """What pages ask for, and where progress is told."""
        routes = [
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
        ]
        handlers: Mapping[Any, Any] = {
            UserError: _told_error,
            Conflict: lambda request, error: JSONResponse({"now": error.now}, 409),
            Refused: lambda request, error: JSONResponse({"error": str(error)}, error.status),
            Exception: _told_error,
            **dict.fromkeys(_NONSENSE, _told_nonsense),
        }
        return Starlette(routes=routes, exception_handlers=handlers)

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
