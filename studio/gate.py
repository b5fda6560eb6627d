"""A request -> an answer of ours, if it comes from our own pages in a browser that has a token."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 1 << 20  # of a request: nothing that pages send comes near it
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Refused(Exception):
    """A request that is turned away before anybody looks at it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Gate:
    """Lets through what comes from our own pages, in a browser that has a token.

    tokens: who has them; "" is the owner, who alone may start anything. open: whether other
    machines may come.
    """

    def __init__(self, app: ASGIApp, tokens: Mapping[str, str], port: int, open: bool) -> None:
        self.app, self.tokens, self.port, self.open = app, tokens, port, open
        self.cookie = f"lmk-{port}"  # cookies know hosts, not ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            self._check_host(request)
            self._check_origin(request)
            length = request.headers.get("content-length", "0")
            if not length.isdigit() or int(length) > BODY_BYTES:
                raise Refused(413, f"the request is larger than {BODY_BYTES} bytes")
            if (given := request.query_params.get("token")) is not None:
                await self._welcome(request, given)(scope, receive, self._with_headers(send))
                return
            scope["who"] = self._who(request.cookies.get(self.cookie, ""))
        except Refused as refused:
            response = Response(f"lmk: {refused}\n", refused.status, media_type="text/plain")
            await response(scope, receive, self._with_headers(send))
            return
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > BODY_BYTES:
                raise Refused(413, f"the request is larger than {BODY_BYTES} bytes")
            return message

        await self.app(scope, bounded, self._with_headers(send))

    def _check_host(self, request: Request) -> None:
        """Another name that resolves to us is an attack (DNS rebinding)."""
        host = request.headers.get("host", "")
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:
            name, port = "", 0
        ours = name in ("localhost", "127.0.0.1", "::1")
        if self.open and not ours:
            ours = name == socket.gethostname().lower() or _is_address(name)
        if not ours or (port != self.port and not self.open):
            raise Refused(403, "got another Host, expected the address that the studio printed")

    def _check_origin(self, request: Request) -> None:
        """Other pages may neither send here nor read; a link to a page of ours is fine."""
        origin, site = (request.headers.get(name) for name in ("origin", "sec-fetch-site"))
        own = f"{request.url.scheme}://{request.headers['host']}"
        if origin is not None and origin != own:
            raise Refused(403, "got a request of another page")
        if request.method not in ("GET", "HEAD"):
            if origin is None:
                raise Refused(403, "got a request without an Origin")
            if request.headers.get("content-type", "").split(";")[0] != "application/json":
                raise Refused(415, "got something else than JSON")
            return
        goes = request.headers.get("sec-fetch-mode") == "navigate"  # follows a link
        if site not in (None, "same-origin", "none") and not goes:
            raise Refused(403, "got a request of another page")

    def _welcome(self, request: Request, token: str) -> Response:
        """Keep the token in a cookie and go on to the address without it.

        By the page itself: after a redirect from elsewhere the cookie would not be sent.
        """
        self._who(token)
        kept = [(name, value) for name, value in request.query_params.items() if name != "token"]
        address = "/" + request.url.path.lstrip("/\\") + ("?" + urlencode(kept) if kept else "")
        response = HTMLResponse(page("welcome.html.jinja", address=address))
        response.set_cookie(self.cookie, token, httponly=True, samesite="strict", path="/")
        return response

    def _who(self, token: str) -> str:
        for known, who in self.tokens.items():
            if hmac.compare_digest(known.encode(), token.encode()):
                return who
        raise Refused(403, "open the address that the studio printed: it holds the token")

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in _HEADERS.items()
                        if name.encode() not in names
                    ),
                ]
            await send(message)

        return sending


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def owner_only(request: Request) -> None:
    """Raise Refused for annotators, who may start nothing."""
    if request.scope["who"]:
        raise Refused(403, "annotators name points; the owner of the studio starts commands")


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(name: str, **values: Any) -> str:
    return _TEMPLATES.get_template(name).render(**values)
