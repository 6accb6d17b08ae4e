"""Assembles the JSON API, version 1, for mounting at ``/api/v1``. One module a noun; no rule lives here."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from beamdesk import __version__
from beamdesk.api import data as data_endpoints
from beamdesk.api import desktops, events, experiments, flavors, images, logins, problems, scheduling, srm, thumbnails
from beamdesk.api.middleware import MAX_BODY_BYTES, BodyLimit, JsonOnly, LastResort, SafeHeaders
from beamdesk.app.context import App
from beamdesk.app.data import Data

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
    {"name": "data", "description": "Folders, downloads and previews of an experiment."},
    {"name": "srm", "description": "Hosts and GPUs, for operators; the scheduling snapshot, for schedulers."},
    {"name": "scheduling", "description": "Why a desktop is where it is; hosts and cards; bookings."},
    {"name": "events", "description": "What happened, and what happens now."},
]


def create_api(app: App, data: Data | None = None) -> FastAPI:
    """Return the API as an ASGI application; without ``data`` the endpoints of files answer that this site serves none.

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
        generate_unique_id_function=lambda route: route.name,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        middleware=[
            Middleware(SafeHeaders),
            Middleware(LastResort, problems.unexpected),
            Middleware(BodyLimit, _refusal, MAX_BODY_BYTES),
            Middleware(JsonOnly, _refusal),
        ],
    )
    api.state.beamdesk = app
    api.state.data = data
    api.state.streams = events.Streams()
    problems.install(api)
    modules = (logins, experiments, images, flavors, events, desktops, thumbnails, data_endpoints, srm, scheduling)
    routes = (route for module in modules for route in module.router.routes if isinstance(route, APIRoute))
    api.state.methods = tuple((route.path_regex, route.methods) for route in routes)
    # events before desktops: a fixed path must win over one with a placeholder
    for module in modules:
        api.include_router(module.router)
    api.openapi = lambda: _document(api)  # type: ignore[method-assign]  # FastAPI's documented way to change the document
    return api


def _document(api: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document; FastAPI lists a problem under application/json too, which is never sent."""
    if api.openapi_schema is None:
        document = FastAPI.openapi(api)
        for path in document["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    if int(status) >= HTTPStatus.BAD_REQUEST:
                        response["content"].pop("application/json", None)
    return cast(dict[str, Any], api.openapi_schema)


async def nothing_there(request: Request, _error: Exception) -> Response:
    """Answer for what reaches no application: a path with a line break, which a mount's pattern does not match."""
    return problems.problem(request, "not_found", "There is nothing at this address.")


def _refusal(request: Request, status: int) -> Response:
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return problems.problem(request, "too_large", f"A request has at most {MAX_BODY_BYTES} bytes.")
    return problems.problem(request, "unsupported_media_type", "Send JSON, with the header Content-Type: application/json.")
