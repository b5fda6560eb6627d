"""Rooms -> a server for the browsers that have its token, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from lmk.runtime.errors import UserError
from lmk.studio.gate import Gate, page

HERE = Path(__file__).parent
_PORTS = range(8765, 8865)
ROOMS = {
    "find": "Find",
    "learn": "Learn",
    "judge": "Judge",
    "name": "Name",
    "watch": "Watch",
    "ship": "Ship",
}


def pages(rooms: Callable[[], Future[ASGIApp]]) -> Starlette:
    """The page of each room, at once, and behind them what they ask for, when that is there."""

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        app = await asyncio.wrap_future(rooms())
        await app(scope, receive, send)

    return Starlette(
        routes=[
            Route("/", _room),
            Route("/{room:str}", _room),
            Mount("/static", StaticFiles(directory=HERE / "static")),
            Mount("/", behind),
        ]
    )


def _room(request: Request) -> Response:
    room = request.path_params.get("room", "home")
    if room != "home" and room not in ROOMS:
        return HTMLResponse(page("lost.html.jinja"), 404)
    return HTMLResponse(
        page("room.html.jinja", room=room, rooms=ROOMS, owner=not request.scope["who"])
    )


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

    @functools.cache
    def rooms() -> Future[ASGIApp]:  # made while the browser has its first page
        return ThreadPoolExecutor(1).submit(_open, what)

    if not all(Path(name).exists() for name in what):  # packs that ship, a pattern, or a mistake
        rooms().result()
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    tokens = {secrets.token_urlsafe(24): who for who in ("", *annotators)}
    is_open = host not in ("127.0.0.1", "localhost", "::1")
    gate = Gate(pages(rooms), tokens, port, is_open)
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


def _open(what: Sequence[str]) -> ASGIApp:
    # With NumPy, codecs and models they take a second to import.
    from lmk.studio.project import Project
    from lmk.studio.rooms import Studio

    return Studio(Project(what)).app()


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
