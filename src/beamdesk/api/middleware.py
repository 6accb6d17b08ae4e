"""What surrounds every request: the limit of the body's size, JSON only, headers that no response may lack, and the last resort.

Plain ASGI, because Starlette's function middleware would buffer streams. Nothing here knows a noun.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beamdesk.domain.errors import BeamdeskError

MAX_BODY_BYTES = 64 * 1024
_LOG = structlog.get_logger("beamdesk.api")
_DEFAULTS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class SafeHeaders:
    """Add the headers that keep browsers from storing, sniffing, framing or running a response, where it does not set its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _DEFAULTS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class LastResort:
    """Answer an unexpected exception with a plain problem, and log it with its stack, once.

    When the response is under way already, it is left incomplete: the server then closes the connection, and the client sees a
    transfer that broke off.
    """

    def __init__(self, app: ASGIApp, answer: Callable[[Request], Response]) -> None:
        self.app = app
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, note_start)
        except Exception as error:  # the outermost frame of a request: no traceback reaches a caller
            expected = error.__cause__ or error
            if started and isinstance(expected, BeamdeskError):
                _LOG.warning("api.broken_off", path=scope.get("path"), code=expected.code, message=expected.message)
                return
            _LOG.exception("api.unexpected", method=scope.get("method"), path=scope.get("path"))
            if started:
                return
            if scope["type"] != "http":
                raise
            await self.answer(Request(scope))(scope, receive, send)


class BodyLimit:
    """Refuse a body over ``limit`` bytes: by its announced length at once, otherwise while it is read (chunked)."""

    def __init__(self, app: ASGIApp, answer: Callable[[Request, int], Response], limit: int = MAX_BODY_BYTES) -> None:
        self.app = app
        self.answer = answer
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced[:12]) > self.limit:
            await self.answer(Request(scope), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        await self.app(scope, counted, send)


class JsonOnly:
    """Refuse a body that is not declared as JSON, as a form that another site submits never is: one more wall against forgery."""

    def __init__(self, app: ASGIApp, answer: Callable[[Request, int], Response]) -> None:
        self.app = app
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and _has_body(headers := Headers(scope=scope)) and not _is_json(headers):
            await self.answer(Request(scope), HTTPStatus.UNSUPPORTED_MEDIA_TYPE)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(headers: Headers) -> bool:
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    return kind.strip().lower() == "application/json" and charset in {"", "utf-8"}
