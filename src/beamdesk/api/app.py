"""Assembles the JSON API, version 1, for mounting at ``/api/v1``. One module a noun; no rule lives here."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from starlette.middleware import Middleware

from beamdesk import __version__
from beamdesk.api import desktops, events, experiments, flavors, images, logins, problems, thumbnails
from beamdesk.api.middleware import MAX_BODY_BYTES, BodyLimit, JsonOnly, LastResort, SafeHeaders
from beamdesk.app.context import App

_DESCRIPTION = """
Cloud desktops beside the data of your experiments. Sign in with `POST /logins`, then send the token as
`Authorization: Bearer TOKEN`. Every error is a problem document (RFC 9457) with a stable `code`.
"""
_TAGS = [
    {"name": "logins", "description": "Sign in and out."},
    {"name": "experiments", "description": "The caller's experiments."},
    {"name": "images", "description": "What desktops are made from."},
    {"name": "flavors", "description": "Sizes and their availability now."},
    {"name": "desktops", "description": "Apply, follow, connect, stop, start, extend, delete."},
    {"name": "events", "description": "What happened, and what happens now."},
]


def create_api(app: App) -> FastAPI:
    """Return the API as an ASGI application.

    FastAPI's own telemetry stays off: its logs would carry the inputs of failed requests, passwords among them.
    """
    api = FastAPI(
        title="Beamdesk",
        version=__version__,
        description=_DESCRIPTION.strip(),
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        middleware=[
            Middleware(SafeHeaders),
            Middleware(LastResort, problems.unexpected),
            Middleware(BodyLimit, _refusal, MAX_BODY_BYTES),
            Middleware(JsonOnly, _refusal),
        ],
    )
    api.state.beamdesk = app
    api.state.streams = events.Streams()
    problems.install(api)
    # events before desktops: a fixed path must win over one with a placeholder
    for module in (logins, experiments, images, flavors, events, desktops, thumbnails):
        api.include_router(module.router)
    return api


def _refusal(request: Request, status: int) -> Response:
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return problems.problem(request, "too_large", f"A request has at most {MAX_BODY_BYTES} bytes.")
    return problems.problem(request, "unsupported_media_type", "Send JSON, with the header Content-Type: application/json.")
