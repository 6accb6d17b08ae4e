"""An experiment's data: look into folders, download with ranges, preview. Read only, for the team only.

A file's name is bytes. ``path`` in a listing is percent-encoded and comes back as the value of the query's ``path`` exactly; names
for people are in ``name``. Nothing from a file is ever sent as something that a browser would run.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any, cast
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from beamdesk.api.callers import ExperimentIdPath, SignedIn
from beamdesk.api.models import answer
from beamdesk.api.problems import documented, problem
from beamdesk.app import data as use_cases
from beamdesk.domain.errors import Invalid, NotSupported
from beamdesk.ports.files import Entry, FileKind
from beamdesk.ports.previews import Colours, ImagePreview, NoPreview, PlotPreview, Preview, PreviewRequest, Theme, View

router = APIRouter(tags=["data"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_HARMLESS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "private, no-cache",
}


class File(BaseModel):
    """A name in a folder. ``size`` and ``modified`` are null where you may not open it to learn them."""

    name: str = Field(description="For people.", examples=["scan_0001.nxs"])
    path: str = Field(
        description="Percent-encoded: the value of `path` as it belongs into a query.", examples=["raw/scan_0001.nxs"]
    )
    kind: FileKind
    size: int | None = Field(examples=[188743680])
    modified: str | None = Field(examples=["2026-03-01T09:30:00+00:00"])


class FolderPage(BaseModel):
    """A part of a folder, folders first. ``total`` counts all entries; ``truncated``: there are even more."""

    items: list[File]
    offset: int
    total: int
    truncated: bool


class DataPreview(BaseModel):
    """What a file contains, where that is not a picture. ``kind``: `tree`, `text` or `none` (with ``code`` and ``reason``)."""

    kind: str = Field(examples=["text"])
    content: dict[str, Any]


async def use_of_data(request: Request) -> use_cases.Data:
    """Return the data use cases' ports.

    Raises:
        NotSupported: this site serves no data.
    """
    data = request.app.state.data
    if data is None:
        raise NotSupported("This site does not serve data.")
    return cast(use_cases.Data, data)


async def exact_path(request: Request, path: Annotated[str, Query(max_length=4096, examples=["raw/scan_0001.nxs"])] = "") -> str:
    """Return the path with bytes that are no UTF-8 kept as surrogates, as the file system's names are (PEP 383)."""
    query = request.scope["query_string"].decode("latin-1")
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    found = next((value for key, value in pairs if key == "path"), path)
    try:
        os.fsencode(found)
    except UnicodeEncodeError as error:
        raise Invalid("This is not a path within the experiment's folder.", field="path") from error
    return found


Data = Annotated[use_cases.Data, Depends(use_of_data)]
ExactPath = Annotated[str, Depends(exact_path)]


def _file(parts: tuple[str, ...], entry: Entry) -> File:
    modified = entry.modified.isoformat() if entry.modified else None
    return File(
        name=entry.label,
        path=quote(os.fsencode("/".join((*parts, entry.name)))),
        kind=entry.kind,
        size=entry.size,
        modified=modified,
    )


@router.get(
    "/experiments/{experiment_id}/data",
    response_model=FolderPage,
    responses=documented("not_found", "forbidden", "not_supported", "cloud_unavailable"),
    summary="List a folder",
)
async def list_data(
    data: Data,
    caller: SignedIn,
    experiment_id: ExperimentIdPath,
    path: ExactPath,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    hidden: Annotated[bool, Query(description="With names that begin with a dot.")] = False,
) -> Response:
    """Return a part of a folder of the experiment; no `path` = its own folder."""
    right = await use_cases.reader(data, caller, experiment_id)
    folder = await use_cases.list_folder(data, right, path, offset=offset, limit=limit, hidden=hidden)
    page = folder.page
    items = [_file(folder.parts, entry) for entry in page.entries]
    return answer(FolderPage(items=items, offset=page.offset, total=page.total, truncated=page.truncated))


_FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    **documented("not_found", "forbidden", "conflict", "range_not_satisfiable", "not_supported", "cloud_unavailable"),
    200: {"description": "The file, with the media type that its name says", "content": {"*/*": _BINARY}},
    206: {"description": "One range of the file", "content": {"*/*": _BINARY}},
    304: {"description": "Not modified"},
}


@router.head(
    "/experiments/{experiment_id}/file",
    response_class=Response,
    responses=_FILE_RESPONSES,
    summary="Headers of a download",
    operation_id="download_headers",
)
@router.get("/experiments/{experiment_id}/file", response_class=StreamingResponse, responses=_FILE_RESPONSES, summary="Download")
async def download(
    request: Request,
    data: Data,
    caller: SignedIn,
    experiment_id: ExperimentIdPath,
    path: ExactPath,
    wanted: Annotated[str | None, Header(alias="Range", max_length=200)] = None,
    if_range: Annotated[str | None, Header(alias="If-Range", max_length=200)] = None,
    if_none_match: Annotated[str | None, Header(alias="If-None-Match", max_length=1000)] = None,
) -> Response:
    """Send a file or one range of it (`Range`, `If-Range`): a download that broke off goes on where it was."""
    right = await use_cases.reader(data, caller, experiment_id)
    asked = use_cases.Asked(wanted, if_range, if_none_match, head=request.method == "HEAD")
    found = await use_cases.read_file(data, right, path, asked)
    headers = dict(found.headers)
    if found.status is HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        kept = {"Content-Range": headers["Content-Range"]}
        return problem(request, "range_not_satisfiable", "The file does not have this range.", headers=kept)
    if found.body is None:
        return Response(status_code=found.status, headers=headers)
    return StreamingResponse(_blocks(found.body), found.status, headers)


async def _blocks(body: use_cases.FileBody) -> AsyncIterator[bytes]:
    async for block in body:
        yield block


@router.get(
    "/experiments/{experiment_id}/preview",
    response_model=DataPreview,
    responses={
        **documented("not_found", "forbidden", "not_supported", "cloud_unavailable"),
        200: {
            "description": "A picture, or what else the file contains",
            "content": {"image/png": _BINARY, "image/svg+xml": _BINARY},
        },
    },
    summary="Preview",
)
async def preview(
    data: Data,
    caller: SignedIn,
    experiment_id: ExperimentIdPath,
    path: ExactPath,
    view: View = View.AUTO,
    dataset: Annotated[str, Query(max_length=1024, description="Within an HDF5 file.", examples=["/entry/data/data"])] = "",
    axis: Annotated[int, Query(ge=0, le=31)] = 0,
    index: Annotated[int | None, Query(ge=0, le=2**31)] = None,
    colours: Colours = Colours.GRAY,
    width: Annotated[int, Query(ge=16, le=2048)] = 1024,
    log: bool = False,
) -> Response:
    """Show what a file contains: a slice as a picture, a curve, an HDF5 tree or the head of a text."""
    right = await use_cases.reader(data, caller, experiment_id)
    wanted = PreviewRequest(view, dataset, axis, index, colours, Theme.LIGHT, width, log)
    return _shown(await use_cases.preview(data, right, path, wanted))


def _shown(found: Preview) -> Response:
    if isinstance(found, ImagePreview):
        return Response(found.png, headers=_HARMLESS, media_type="image/png")
    if isinstance(found, PlotPreview):
        return Response(found.svg, headers=_HARMLESS, media_type="image/svg+xml")
    kind = "none" if isinstance(found, NoPreview) else type(found).__name__.removesuffix("Preview").lower()
    return answer(DataPreview(kind=kind, content=asdict(found)))
