"""The newest picture of a desktop. Its bytes come from the desktop, so the browser must take them for an image and nothing else."""

from __future__ import annotations

from hashlib import sha256
from http import HTTPStatus

from fastapi import APIRouter, Response

from beamdesk.api.callers import Application, DesktopIdPath, SignedIn
from beamdesk.api.problems import documented
from beamdesk.api.versions import ETAG_HEADER, IfNoneMatch, unchanged
from beamdesk.app import screens

router = APIRouter(tags=["desktops"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/desktops/{desktop_id}/thumbnail",
    response_class=Response,
    responses={
        **documented("not_found", "forbidden"),
        200: {"description": "The picture", "content": {"image/jpeg": _BINARY, "image/png": _BINARY}, "headers": ETAG_HEADER},
        304: {"description": "Not modified", "headers": ETAG_HEADER},
    },
    summary="Thumbnail",
)
async def thumbnail(app: Application, caller: SignedIn, desktop_id: DesktopIdPath, if_none_match: IfNoneMatch = None) -> Response:
    """Return the newest picture of the screen, for those who may connect."""
    kind, image = await screens.thumbnail(app, caller, desktop_id)
    tag = f'"{sha256(image).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Content-Disposition": "inline"}
    if unchanged(if_none_match, tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(image, headers=headers, media_type=kind)
