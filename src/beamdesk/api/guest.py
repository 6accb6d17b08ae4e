"""The guest API: what the agent inside a desktop talks to. Served on a Unix socket of its own, never on the portal's port.

Messages are those of `beamdesk.protocol.guest`, decoded strictly. Errors are one line of plain JSON without a cause that would help
somebody who guesses. Nothing here decides anything: `beamdesk.app.guests` does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, cast

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from beamdesk.api.middleware import BodyLimit, LastResort, SafeHeaders
from beamdesk.app import guests
from beamdesk.app.context import App
from beamdesk.domain.errors import BeamdeskError, Forbidden, Invalid, NotSignedIn, StoreUnavailable, TooManyRequests
from beamdesk.protocol.codec import MalformedMessage, decode, encode
from beamdesk.protocol.guest import ENROL_PATH, MAX_THUMBNAIL_BYTES, REPORT_PATH, THUMBNAIL_PATH, Enrol, Report

_MAX_MESSAGE_BYTES: Final = 16 * 1024
_TOKEN = re.compile(r"Bearer ([A-Za-z0-9_-]{1,128})\Z")
_STATUS: Final[dict[type[BeamdeskError], HTTPStatus]] = {
    NotSignedIn: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
_LOG = structlog.get_logger("beamdesk.guest_api")


def create_guest_api(app: App) -> Starlette:
    """Return the guest API as an ASGI application."""
    routes = [
        Route(ENROL_PATH, _enrol, methods=["POST"]),
        Route(REPORT_PATH, _report, methods=["POST"]),
        Route(THUMBNAIL_PATH, _thumbnail, methods=["POST", "PUT"]),
    ]
    handlers: dict[type[Exception] | int, Callable[[Request, Exception], Awaitable[Response]]] = {
        BeamdeskError: _refused,
        MalformedMessage: _malformed,
        HTTPException: _http,
    }
    middleware = [
        Middleware(SafeHeaders),
        Middleware(LastResort, lambda _request: _error(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")),
        Middleware(BodyLimit, lambda _request, status: _error(HTTPStatus(status), "too large"), MAX_THUMBNAIL_BYTES),
    ]
    api = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)
    api.state.beamdesk = app
    return api


def _app(request: Request) -> App:
    return cast(App, request.app.state.beamdesk)


async def _enrol(request: Request) -> Response:
    message = decode(Enrol, await request.body(), limit=_MAX_MESSAGE_BYTES)
    address = request.client.host if request.client else "local"
    identity = await guests.enrol(_app(request), message.nonce, address=address)
    return Response(encode(identity), media_type="application/json")


async def _report(request: Request) -> Response:
    token = _token(request)
    message = decode(Report, await request.body(), limit=_MAX_MESSAGE_BYTES)
    return Response(encode(await guests.report(_app(request), token, message)), media_type="application/json")


async def _thumbnail(request: Request) -> Response:
    await guests.put_thumbnail(_app(request), _token(request), await request.body())
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _token(request: Request) -> str:
    match = _TOKEN.match(request.headers.get("authorization", ""))
    if match is None:
        raise NotSignedIn("This request carries no identity.")
    return match[1]


def _error(status: HTTPStatus, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    known = cast(BeamdeskError, error)
    status = _STATUS.get(type(known), HTTPStatus.INTERNAL_SERVER_ERROR)
    _LOG.info("guest.refused", path=request.url.path, code=known.code, **known.context)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return _error(status, "internal error")
    retry = known.context.get("retry_after_s")
    return _error(status, known.message, {"Retry-After": str(retry)} if retry else None)


async def _malformed(_request: Request, error: Exception) -> Response:
    return _error(HTTPStatus.BAD_REQUEST, str(error))


async def _http(_request: Request, error: Exception) -> Response:
    known = cast(HTTPException, error)
    return _error(HTTPStatus(known.status_code), HTTPStatus(known.status_code).phrase.lower(), dict(known.headers or {}))
