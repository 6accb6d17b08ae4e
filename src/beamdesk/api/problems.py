"""Errors on the wire: RFC 9457 problem documents, from one table of code -> status and title.

Every error response of the API is made here, so that none carries a traceback, an input value or a path of this machine. A code
never changes once released; pages and clients decide by ``code``, people read ``detail``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from beamdesk.api.models import Time
from beamdesk.domain.errors import BeamdeskError, SlotTaken

MEDIA_TYPE: Final = "application/problem+json"

PROBLEMS: Final[dict[str, tuple[int, str]]] = {
    "malformed": (400, "The request cannot be read"),
    "not_signed_in": (401, "Not signed in"),
    "forbidden": (403, "Not allowed"),
    "ticket_refused": (403, "The ticket is not valid"),
    "refused": (403, "Refused"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "This address does not answer to this method"),
    "conflict": (409, "Not possible in the present state"),
    "quota_exceeded": (409, "Over quota"),
    "stale_write": (412, "Changed meanwhile"),
    "too_large": (413, "The request is too large"),
    "unsupported_media_type": (415, "The content is not JSON"),
    "range_not_satisfiable": (416, "No such part of the file"),
    "invalid": (422, "Invalid input"),
    "too_many_requests": (429, "Too many requests"),
    "error": (500, "Internal error"),
    "configuration": (500, "Internal error"),
    "not_supported": (501, "Not possible on this site"),
    "cloud_error": (502, "The cloud failed"),
    "cloud_refused": (502, "The cloud refused"),
    "cloud_full": (503, "Nothing of the kind is free"),
    "cloud_unavailable": (503, "The cloud does not answer"),
    "store_unavailable": (503, "The database does not answer"),
    "stream_unavailable": (503, "The desktop's picture does not answer"),
}

_BY_STATUS: Final = {
    400: ("malformed", "The request cannot be read."),
    401: ("not_signed_in", "Sign in first."),
    403: ("forbidden", "This is not allowed."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not answer to this method. See the Allow header."),
    413: ("too_large", "The request's body is too large."),
    415: ("unsupported_media_type", "Send JSON, with the header Content-Type: application/json."),
}
_HIDDEN: Final = frozenset({"error", "configuration"})
_LOG = structlog.get_logger("beamdesk.api")


class FieldError(BaseModel):
    """One wrong field."""

    field: str = Field(examples=["flavor"])
    message: str = Field(examples=["There is no size of this name. Sizes on offer: small, medium."])


class Slot(BaseModel):
    """A stretch of time."""

    starts: Time
    ends: Time


class Problem(BaseModel):
    """A problem document (RFC 9457). ``code`` is stable; ``detail`` says what happened and what to do next."""

    type: str = Field(description="Reference to the documentation of this kind of problem.", examples=["/problems/conflict"])
    title: str = Field(examples=["Not possible in the present state"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["This desktop is not running. Start it, or wait until it is ready."])
    instance: str = Field(description="Path of the request.", examples=["/api/v1/desktops/d2k7x0q4m1n8p5r3/connections"])
    code: str = Field(examples=["conflict"])
    errors: list[FieldError] = Field(default_factory=list, description="Wrong fields, where there are any.")
    slot: Slot | None = Field(default=None, description="The nearest slot that has room, where one is taken.")


def problem(
    request: Request,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: dict[str, str] | None = None,
    slot: Slot | None = None,
) -> Response:
    """Return the problem document for ``code``."""
    status, title = PROBLEMS[code]
    document = Problem(
        type=f"/problems/{code}",
        title=title,
        status=status,
        detail=detail,
        instance=request.url.path[:500],
        code=code,
        errors=list(errors),
        slot=slot,
    )
    headers = dict(headers or {})
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="beamdesk"'
    return Response(document.model_dump_json(exclude_none=True), status, headers, MEDIA_TYPE)


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of an operation for the OpenAPI document: these problems besides those that any may have."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in (*codes, "not_signed_in", "invalid", "malformed", "too_large", "unsupported_media_type", "store_unavailable"):
        status, title = PROBLEMS[code]
        example = {"type": f"/problems/{code}", "title": title, "status": status, "detail": title + ".", "instance": "/api/v1/"}
        content = found.setdefault(status, {"model": Problem, "description": title, "content": {MEDIA_TYPE: {"examples": {}}}})
        content["content"][MEDIA_TYPE]["examples"][code] = {"value": {**example, "code": code, "errors": []}}
        content["content"][MEDIA_TYPE]["schema"] = {"$ref": "#/components/schemas/Problem"}
    return found


def install(api: FastAPI) -> None:
    """Make every error of ``api`` a problem document."""
    api.add_exception_handler(BeamdeskError, _from_beamdesk)  # type: ignore[arg-type]  # Starlette types handlers by Exception
    api.add_exception_handler(HTTPException, _from_http)  # type: ignore[arg-type]
    api.add_exception_handler(RequestValidationError, _from_validation)  # type: ignore[arg-type]


async def _from_beamdesk(request: Request, error: BeamdeskError) -> Response:
    detail, headers = error.message, {}
    if PROBLEMS.get(error.code, (500, ""))[0] >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _LOG.warning("api.failed", code=error.code, message=error.message, path=request.url.path, **error.context)
    if error.code in _HIDDEN or error.code not in PROBLEMS:
        return unexpected(request)
    if "retry_after_s" in error.context:
        headers["Retry-After"] = str(error.context["retry_after_s"])
    errors = [FieldError(field=error.field, message=error.message)] if error.field else []
    nearest = error.nearest if isinstance(error, SlotTaken) else None
    slot = Slot(starts=nearest[0], ends=nearest[1]) if nearest else None
    return problem(request, error.code, detail, errors=errors, headers=headers, slot=slot)


async def _from_http(request: Request, error: HTTPException) -> Response:
    code, detail = _BY_STATUS.get(error.status_code, _BY_STATUS[400])
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_allowed(request)))
    return problem(request, code, detail, headers=headers)


def _allowed(request: Request) -> set[str]:
    """Return the methods of all routes at this address; the router names those of the first only (RFC 9110 section 10.2.1)."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    methods: tuple[tuple[re.Pattern[str], set[str]], ...] = request.app.state.methods
    return set().union(*(names for pattern, names in methods if pattern.match(path)))


async def _from_validation(request: Request, error: RequestValidationError) -> Response:
    """Name the wrong fields, never their values: one of them may be a password."""
    found = error.errors()
    if any(item["loc"][:1] == ("path",) for item in found):
        return problem(request, "not_found", "There is nothing at this address.")
    if any(item["type"] == "json_invalid" for item in found):
        return problem(request, "malformed", "The body is not valid JSON.")
    errors = [FieldError(field=_field(item["loc"]), message=_sentence(item["msg"])) for item in found[:20]]
    detail = "; ".join(f"{one.field}: {one.message}" if one.field else one.message for one in errors[:3])
    return problem(request, "invalid", detail, errors=errors)


def _field(location: Sequence[str | int]) -> str:
    return ".".join(str(part)[:60] for part in location[1:] if part != "__root__")


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ")[:200]


def unexpected(request: Request) -> Response:
    """Return the document for what should never happen."""
    return problem(request, "error", "Something went wrong here and was logged. Try again; if it stays, tell the operators.")
