"""The data of the person's experiments: folders and downloads. Previews are in `previews`.

Names come from files and people: they are shown escaped, linked percent-encoded (a name is bytes), and sent with headers under
which no browser runs them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote

from starlette.responses import Response, StreamingResponse

from beamdesk.app import data as use_cases
from beamdesk.app import offers
from beamdesk.domain.errors import Invalid, NotSupported
from beamdesk.domain.ids import ExperimentId
from beamdesk.portal.security import file_headers
from beamdesk.portal.site import Visit, render
from beamdesk.ports.files import Entry, FileKind, printable

PAGE = 100
SORTABLE = 1000
"""Entries of one folder that are sorted and filtered at once; a larger folder is shown in name order, page by page."""
_ORDERS = ("name", "size", "modified")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp")
HDF5 = (".h5", ".hdf5", ".nxs", ".nx")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a folder. ``query`` is the path, percent-encoded for a link; empty for what cannot be opened."""

    label: str
    kind: FileKind
    icon: str
    size: int | None
    modified: datetime | None
    query: str


@dataclass(frozen=True, slots=True)
class Crumb:
    """A folder on the way: its name and its path for a link."""

    label: str
    query: str


def use_of_data(visit: Visit) -> use_cases.Data:
    """Return the ports of the data use cases.

    Raises:
        NotSupported: this site serves no data.
    """
    if visit.site.data is None:
        raise NotSupported("This site does not serve data.")
    return visit.site.data


def exact_path(visit: Visit) -> str:
    """Return the query's path with bytes that are no UTF-8 kept as surrogates, as the file system's names are (PEP 383)."""
    query = visit.request.scope["query_string"].decode("latin-1")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape", max_num_fields=32)
        found = next((value for key, value in pairs if key == "path"), "")
        os.fsencode(found)
    except (ValueError, UnicodeEncodeError) as error:
        raise Invalid("This is not a path within the experiment's folder.", field="path") from error
    return found


def link(parts: tuple[str, ...]) -> str:
    """Return a path as it belongs into a link's query."""
    return quote(os.fsencode("/".join(parts)), safe="")


async def reader(visit: Visit) -> use_cases.Reader:
    """Return the person's right to read the experiment that the address names."""
    return await use_cases.reader(use_of_data(visit), visit.caller, ExperimentId(visit.path("experiment")))


async def show_experiments(visit: Visit) -> Response:
    """Show the experiments whose data the person may read."""
    experiments = await offers.list_experiments(visit.app, visit.caller)
    return render(visit, "data/experiments.html", nav="data", experiments=experiments, served=visit.site.data is not None)


async def show_folder(visit: Visit) -> Response:
    """Show one folder: sorted, filtered, some entries at a time."""
    right = await reader(visit)
    path, offset = exact_path(visit), _number(visit.query("offset"))
    order, down = _order(visit.query("sort"))
    wanted = visit.query("filter")[:100].strip()
    special = bool(wanted) or (order, down) != ("name", False)
    folder = await use_cases.list_folder(
        use_of_data(visit), right, path, offset=0 if special else offset, limit=SORTABLE if special else PAGE
    )
    found, total = list(folder.page.entries), folder.page.total
    if special:
        partly = total > SORTABLE
        found = _sorted([entry for entry in found if wanted.casefold() in entry.label.casefold()], order, down=down)
        total, found = len(found), found[offset : offset + PAGE]
    else:
        partly = folder.page.truncated
    return render(
        visit,
        "data/folder.html",
        nav="data",
        experiment=right.experiment,
        crumbs=crumbs(folder.parts),
        rows=[_row(folder.parts, entry) for entry in found],
        up=link(folder.parts[:-1]) if folder.parts else None,
        here_query=link(folder.parts),
        here_path=path.encode(errors="replace").decode(),
        total=total,
        offset=offset,
        page=PAGE,
        order=order,
        down=down,
        wanted=wanted,
        partly=SORTABLE if partly else 0,
        area=folder.parts[0] if len(folder.parts) == 1 else "",
    )


def crumbs(parts: tuple[str, ...]) -> list[Crumb]:
    """Return the folders on the way to ``parts``, the last one included."""
    return [Crumb(printable(part), link(parts[: index + 1])) for index, part in enumerate(parts)]


def _row(parts: tuple[str, ...], entry: Entry) -> Row:
    openable = entry.kind in {FileKind.FILE, FileKind.FOLDER}
    return Row(entry.label, entry.kind, _icon(entry), entry.size, entry.modified, link((*parts, entry.name)) if openable else "")


def _icon(entry: Entry) -> str:
    if entry.kind is FileKind.FOLDER:
        return "folder"
    name = entry.name.lower()
    return "picture" if name.endswith(_PICTURES) else "tree" if name.endswith(HDF5) else "file"


def _order(text: str) -> tuple[str, bool]:
    """Return the column and whether it is sorted downwards, from `size` or `-size`."""
    column = text.removeprefix("-")
    return (column, text.startswith("-")) if column in _ORDERS else ("name", False)


def _sorted(entries: list[Entry], order: str, *, down: bool) -> list[Entry]:
    """Sort; folders stay first, and within them by name where sizes say nothing."""
    if order == "size":
        entries = sorted(entries, key=lambda entry: entry.size or 0, reverse=down)
    elif order == "modified":
        entries = sorted(entries, key=lambda entry: entry.modified or _LONG_AGO, reverse=down)
    elif down:
        entries = entries[::-1]
    return sorted(entries, key=lambda entry: entry.kind is not FileKind.FOLDER)


def _number(text: str) -> int:
    return min(int(text), 10_000_000) if text.isascii() and text.isdigit() and len(text) < 10 else 0


async def download(visit: Visit) -> Response:
    """Send a file, or the part of it that the browser still lacks; always as a file to keep, never as a page."""
    right = await reader(visit)
    headers = visit.request.headers
    asked = use_cases.Asked(
        headers.get("range"), headers.get("if-range"), headers.get("if-none-match"), head=visit.request.method == "HEAD"
    )
    found = await use_cases.read_file(use_of_data(visit), right, exact_path(visit), asked)
    answer_headers = file_headers() | dict(found.headers)
    if found.body is None:
        return Response(status_code=found.status, headers=answer_headers)
    return StreamingResponse(_blocks(found.body), found.status, answer_headers)


async def _blocks(body: use_cases.FileBody) -> AsyncIterator[bytes]:
    async for block in body:
        yield block
