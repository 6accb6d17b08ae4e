"""Desktops: apply, look, rename, act, delete, connect. A change commits an intent and answers at once; none waits."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field

from beamdesk.api.callers import Application, DesktopIdPath, SignedIn
from beamdesk.api.desktop_models import Desktop, DesktopPatch, NewDesktop, Size
from beamdesk.api.models import LINK_HEADER, Limit, Page, Time, answer, answer_page
from beamdesk.api.problems import documented
from beamdesk.api.versions import ETAG_HEADER, IfMatch, IfNoneMatch, expected_version, tag_of, unchanged
from beamdesk.app import connections, desktops, remake, screens
from beamdesk.app.views import DesktopView
from beamdesk.domain.ids import DesktopId, ExperimentId, FlavorId, ImageId
from beamdesk.domain.session import ViewerRole

router = APIRouter(tags=["desktops"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,128}$",
        description="Choose a random one per wish: a request that is sent again with it makes no second desktop.",
        examples=["7f1c9f0e-6f3c-4c55-8c43-0a0c6a5c7c11"],
    ),
]
Cursor = Annotated[DesktopId | None, Query(pattern=r"^[a-z][a-z0-9]{0,31}$", description="`next` of the page before.")]
_CHANGED = documented("not_found", "forbidden", "conflict", "stale_write")


class Connection(BaseModel):
    """A ticket: post it once, as form field ``ticket``, to ``url`` before it expires. It never belongs into an address."""

    ticket: str = Field(repr=False, examples=["0wA3bq0Yv8n5nqkY3xv1o5d2rJk1v0m9Q6h8sT4uWzE"])
    url: str = Field(examples=["http://d-d2k7x0q4m1n8p5r3.localhost:8081/open"])
    expires_at: Time
    role: ViewerRole


class Console(BaseModel):
    """The last lines of a server's console."""

    text: str


class Screen(BaseModel):
    """Where a server's own screen is shown. The address holds a token of the cloud's: open it, and keep it nowhere."""

    url: str = Field(repr=False, examples=["https://cloud.example.org:6080/vnc_auto.html?path=%3Ftoken%3D9f1c"])


def _answer(view: DesktopView, status: HTTPStatus = HTTPStatus.OK, *, if_none_match: str | None = None) -> Response:
    body = Desktop.of(view).model_dump_json().encode()
    headers = {"ETag": tag_of(view.desktop.version, body)}
    if unchanged(if_none_match, headers["ETag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body, status, headers, "application/json")


@router.post(
    "/desktops",
    status_code=HTTPStatus.CREATED,
    response_model=Desktop,
    responses={
        **documented("forbidden", "conflict", "quota_exceeded"),
        201: {"headers": {**ETAG_HEADER, "Location": {"description": "Address of the desktop.", "schema": {"type": "string"}}}},
    },
    summary="Apply for a desktop",
)
async def apply(
    request: Request, app: Application, caller: SignedIn, body: NewDesktop, idempotency_key: IdempotencyKey = None
) -> Response:
    """Apply for a desktop for an experiment. The answer comes at once; follow the desktop's `phase` and `steps`."""
    wanted = desktops.NewDesktop(ExperimentId(body.experiment), ImageId(body.image), FlavorId(body.flavor), body.name)
    view = await desktops.apply(app, caller, wanted, idempotency_key=idempotency_key)
    response = _answer(view, HTTPStatus.CREATED)
    response.headers["Location"] = f"{request.url.path}/{view.desktop.id}"
    return response


@router.get(
    "/desktops",
    response_model=Page[Desktop],
    responses={**documented(), 200: {"headers": LINK_HEADER}},
    summary="Desktops that I may see",
)
async def list_desktops(request: Request, app: Application, caller: SignedIn, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Return own desktops and those of own experiments, newest first; all of them to operators."""
    page = await desktops.list_desktops(app, caller, after=cursor, limit=limit)
    return answer_page(request, Page[Desktop](items=[Desktop.of(view) for view in page.items], next=page.next))


@router.get(
    "/desktops/{desktop_id}",
    response_model=Desktop,
    responses={
        **documented("not_found"),
        200: {"headers": ETAG_HEADER},
        304: {"description": "Not modified", "headers": ETAG_HEADER},
    },
    summary="One desktop",
)
async def get_desktop(app: Application, caller: SignedIn, desktop_id: DesktopIdPath, if_none_match: IfNoneMatch = None) -> Response:
    """Return a desktop with its steps, its place in the line and the reason when something is wrong."""
    return _answer(await desktops.get_desktop(app, caller, desktop_id), if_none_match=if_none_match)


@router.patch(
    "/desktops/{desktop_id}",
    response_model=Desktop,
    responses={**_CHANGED, 200: {"headers": ETAG_HEADER}},
    summary="Rename",
)
async def rename(
    app: Application, caller: SignedIn, desktop_id: DesktopIdPath, body: DesktopPatch, if_match: IfMatch = None
) -> Response:
    """Give the desktop another name."""
    version = expected_version(if_match)
    return _answer(await desktops.rename(app, caller, desktop_id, body.name, if_version=version))


@router.post(
    "/desktops/{desktop_id}/actions/stop",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Desktop,
    responses={**_CHANGED, 202: {"headers": ETAG_HEADER}},
    summary="Stop",
)
async def stop(app: Application, caller: SignedIn, desktop_id: DesktopIdPath, if_match: IfMatch = None) -> Response:
    """Stop the desktop and keep its home. Stopping a stopped one is fine."""
    version = expected_version(if_match)
    return _answer(await desktops.stop(app, caller, desktop_id, if_version=version), HTTPStatus.ACCEPTED)


@router.post(
    "/desktops/{desktop_id}/actions/start",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Desktop,
    responses={**documented("not_found", "forbidden", "conflict", "quota_exceeded", "stale_write"), 202: {"headers": ETAG_HEADER}},
    summary="Start",
)
async def start(app: Application, caller: SignedIn, desktop_id: DesktopIdPath, if_match: IfMatch = None) -> Response:
    """Start a stopped or failed desktop. Starting a running one is fine."""
    version = expected_version(if_match)
    return _answer(await desktops.start(app, caller, desktop_id, if_version=version), HTTPStatus.ACCEPTED)


@router.post(
    "/desktops/{desktop_id}/actions/extend",
    response_model=Desktop,
    responses={**_CHANGED, 200: {"headers": ETAG_HEADER}},
    summary="Extend",
)
async def extend(app: Application, caller: SignedIn, desktop_id: DesktopIdPath, if_match: IfMatch = None) -> Response:
    """Let the desktop run longer, by one extension. Twice is twice: send If-Match to be sure."""
    version = expected_version(if_match)
    return _answer(await desktops.extend(app, caller, desktop_id, if_version=version))


@router.post(
    "/desktops/{desktop_id}/actions/rebuild",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Desktop,
    responses={**_CHANGED, **documented("quota_exceeded"), 202: {"headers": ETAG_HEADER}},
    summary="Rebuild",
)
async def rebuild(app: Application, caller: SignedIn, desktop_id: DesktopIdPath, if_match: IfMatch = None) -> Response:
    """Start a stopped or failed desktop on a server made anew from its image as it is now. The home stays, the rest is new."""
    version = expected_version(if_match)
    return _answer(await remake.rebuild(app, caller, desktop_id, if_version=version), HTTPStatus.ACCEPTED)


@router.post(
    "/desktops/{desktop_id}/actions/resize",
    response_model=Desktop,
    responses={**_CHANGED, **documented("quota_exceeded"), 200: {"headers": ETAG_HEADER}},
    summary="Resize",
)
async def resize(app: Application, caller: SignedIn, desktop_id: DesktopIdPath, body: Size, if_match: IfMatch = None) -> Response:
    """Give a stopped desktop, or a failed one that holds nothing, another size from its next start on. The home stays."""
    version = expected_version(if_match)
    return _answer(await remake.resize(app, caller, desktop_id, FlavorId(body.flavor), if_version=version))


@router.delete(
    "/desktops/{desktop_id}",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Desktop,
    responses={**_CHANGED, 202: {"headers": ETAG_HEADER}},
    summary="Delete",
)
async def delete(app: Application, caller: SignedIn, desktop_id: DesktopIdPath, if_match: IfMatch = None) -> Response:
    """Delete the desktop and its home for good. The answer shows it on its way out; then it is not found."""
    version = expected_version(if_match)
    return _answer(await desktops.delete(app, caller, desktop_id, if_version=version), HTTPStatus.ACCEPTED)


@router.post(
    "/desktops/{desktop_id}/connections",
    status_code=HTTPStatus.CREATED,
    response_model=Connection,
    responses=documented("not_found", "forbidden", "conflict"),
    summary="Connect",
)
async def connect(app: Application, caller: SignedIn, desktop_id: DesktopIdPath) -> Response:
    """Return a ticket for a desktop that is ready: one use, a few seconds."""
    fresh = await connections.connect(app, caller, desktop_id)
    model = Connection(ticket=fresh.ticket, url=fresh.url, expires_at=fresh.expires_at, role=fresh.role)
    return answer(model, HTTPStatus.CREATED)


@router.get(
    "/desktops/{desktop_id}/console",
    response_model=Console,
    responses=documented("not_found", "forbidden", "not_supported", "cloud_refused", "cloud_unavailable"),
    summary="Server console, for operators",
)
async def console(app: Application, caller: SignedIn, desktop_id: DesktopIdPath) -> Response:
    """Return the last lines that the server wrote to its console."""
    return answer(Console(text=await screens.console(app, caller, desktop_id)))


@router.post(
    "/desktops/{desktop_id}/screen",
    status_code=HTTPStatus.CREATED,
    response_model=Screen,
    responses=documented("not_found", "forbidden", "conflict", "not_supported", "cloud_refused", "cloud_unavailable"),
    summary="Server screen, for operators",
)
async def screen(app: Application, caller: SignedIn, desktop_id: DesktopIdPath) -> Response:
    """Return the address of the server's own screen while the desktop is not ready: why it does not come up is seen there."""
    return answer(Screen(url=await screens.screen(app, caller, desktop_id)), HTTPStatus.CREATED)
