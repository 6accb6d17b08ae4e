"""Use cases on an experiment's data: look into folders, download, preview. Read only, for the team only.

:func:`reader` is the one place where the policy is asked; everything else needs the :class:`Reader` that it returns, so that no
page can forget to. Files are opened as the person with the experiment's group and no other, so that a mistake here still meets
the file system's permissions. Nothing is cached, and no more than a few blocks of a file are in memory.
"""

from __future__ import annotations

import asyncio
import mimetypes
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.logins import Caller
from beamdesk.app.ranges import Span, Unsatisfiable, entity_tag, http_date, not_modified, parse_range, range_still_valid
from beamdesk.domain.errors import Conflict, Invalid, NotFound
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import ExperimentId, PersonId
from beamdesk.domain.person import Person
from beamdesk.domain.policy import may_read_data
from beamdesk.ports.files import ExperimentFiles, FileKind, FolderPage, OpenedFile, printable, split_path
from beamdesk.ports.previews import Preview, Previewer, PreviewRequest
from beamdesk.protocol.helper import HelperAccount

BLOCK_BYTES: Final = 1024 * 1024
"""Bytes read at a time: large enough that the thread hop does not count, small enough for a thousand downloads at once."""


@dataclass(frozen=True, slots=True)
class Data:
    """What these use cases need. Built once in wiring."""

    app: App
    files: ExperimentFiles
    previews: Previewer


@dataclass(frozen=True, slots=True)
class Reader:
    """The right of one person to read one experiment's data, granted by :func:`reader` and good for one request."""

    account: HelperAccount
    person: PersonId
    experiment: Experiment


@dataclass(frozen=True, slots=True)
class Folder:
    """A listed folder: the names that lead to it, and one page of its content."""

    experiment: Experiment
    parts: tuple[str, ...]
    page: FolderPage


@dataclass(frozen=True, slots=True)
class Asked:
    """The headers of a download request that matter, as they came."""

    range: str | None = None
    if_range: str | None = None
    if_none_match: str | None = None
    head: bool = False
    inline: bool = False


@dataclass(frozen=True, slots=True)
class Download:
    """An answer to send as it is: status, headers, and blocks of bytes (None = no body)."""

    status: HTTPStatus
    headers: Mapping[str, str]
    body: FileBody | None


class FileBody:
    """The bytes of a span of an open file, in blocks; owns the file and closes it at the end of the iteration.

    A file that changes while it is read breaks the iteration off before its last block, so that the receiver sees a
    transfer that failed and never a mixture of two versions that looks complete.
    """

    def __init__(self, opened: OpenedFile, span: Span | None) -> None:
        self._opened = opened
        self._span = span

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._opened as opened:
            if self._span is None:
                return
            position, end = self._span.first, self._span.last + 1
            while position < end:
                block = await asyncio.to_thread(os.pread, opened.descriptor, min(BLOCK_BYTES, end - position), position)
                position += len(block)
                if not block or (position >= end and not opened.unchanged):
                    raise Conflict("The file changed while it was being read. Download it again when it is complete.")
                yield block

    def close(self) -> None:
        """Give the file up without reading it."""
        self._opened.close()


async def reader(data: Data, caller: Caller, experiment_id: ExperimentId) -> Reader:
    """Return the caller's right to read an experiment's data.

    Raises:
        NotFound: no such experiment, or not for this person; the text does not tell which. The refusal is recorded.
    """
    async with audited(data.app, "data", actor=caller.person.id, experiment=experiment_id):
        async with data.app.store.begin() as tx:
            experiment = await tx.people.experiment(experiment_id)
        if experiment is None or not may_read_data(caller.person, experiment):
            raise NotFound("There is no such experiment, or you are not in its team.")
    return Reader(account_for(caller.person, experiment), caller.person.id, experiment)


def account_for(person: Person, experiment: Experiment) -> HelperAccount:
    """Return the least account that can read: the person's uid and own group, and this experiment's group."""
    return HelperAccount(person.login, person.uid, person.uid, (experiment.gid,))


async def list_folder(
    data: Data, right: Reader, path: str = "", *, offset: int = 0, limit: int = 200, hidden: bool = False
) -> Folder:
    """List one page of a folder (``path`` relative to the experiment's folder). Errors: see ``ports.files``."""
    parts = split_path(path)
    folder = right.experiment.folder
    page = await data.files.list(right.account, folder, "/".join(parts), offset=offset, limit=limit, hidden=hidden)
    return Folder(right.experiment, parts, page)


async def read_file(data: Data, right: Reader, path: str, asked: Asked = Asked()) -> Download:
    """Answer a download: the whole file, one range of it, 304 or 416. The body, if any, must be iterated or closed.

    Raises:
        Invalid: it is a folder. NotFound, Forbidden, CloudUnavailable: see ``ports.files``.
    """
    opened = await data.files.open(right.account, right.experiment.folder, path)
    try:
        _require_file(opened)
        answer = _answer(data, opened, split_path(path)[-1], asked)
        if answer.status is HTTPStatus.OK and not asked.head:
            await _record(data, right, path, opened.size)
    except BaseException:
        opened.close()
        raise
    if answer.body is None:
        opened.close()
    return answer


def _require_file(opened: OpenedFile) -> None:
    if opened.kind is not FileKind.FILE:
        raise Invalid("This is a folder; choose a file in it.", field="path")


def _answer(data: Data, opened: OpenedFile, name: str, asked: Asked) -> Download:
    tag = entity_tag(opened.facts, data.app.clock.now())
    headers = _headers(opened, name, tag, inline=asked.inline)
    if not_modified(asked.if_none_match, tag):
        return Download(HTTPStatus.NOT_MODIFIED, headers, None)
    try:
        ranged = not asked.head and range_still_valid(asked.if_range, tag, opened.modified)
        span = parse_range(asked.range, opened.size) if ranged else None
    except Unsatisfiable:
        headers |= {"Content-Range": f"bytes */{opened.size}", "Content-Length": "0"}
        return Download(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers, None)
    status = HTTPStatus.OK
    if span is not None:
        status = HTTPStatus.PARTIAL_CONTENT
        headers["Content-Range"] = f"bytes {span.first}-{span.last}/{opened.size}"
    elif opened.size:
        span = Span(0, opened.size - 1)
    headers["Content-Length"] = str(span.length if span else 0)
    return Download(status, headers, None if asked.head else FileBody(opened, span))


def _headers(opened: OpenedFile, name: str, tag: str, *, inline: bool) -> dict[str, str]:
    """Return headers that make a hostile file harmless in the portal's origin: never a document, never sniffed."""
    return {
        "Content-Type": media_type(name),
        "Content-Disposition": content_disposition(name, inline=inline),
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Last-Modified": http_date(opened.modified),
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }


def media_type(name: str) -> str:
    """Return the media type for a file's name; of the types that a browser could run, none."""
    guessed, encoding = _TYPES.guess_type(name.lower())
    if encoding or guessed is None:
        return "application/octet-stream"
    main, _, sub = guessed.partition("/")
    if guessed in ("application/pdf", "application/x-hdf5", "application/json") or (main == "image" and "svg" not in sub):
        return guessed
    return "text/plain; charset=utf-8" if main == "text" else "application/octet-stream"


_TYPES = mimetypes.MimeTypes()
for _extension in (".h5", ".hdf5", ".nxs", ".nx"):
    _TYPES.add_type("application/x-hdf5", _extension)
for _extension in (".dat", ".xdi", ".log", ".md", ".toml", ".yaml", ".yml"):
    _TYPES.add_type("text/plain", _extension)


def content_disposition(name: str, *, inline: bool = False) -> str:
    """Return a Content-Disposition for any file name (RFC 6266): an ASCII fallback and the exact name in UTF-8."""
    shown = printable(name)
    plain = "".join(character if character.isascii() and character not in '"\\%' else "_" for character in shown)
    return f"{'inline' if inline else 'attachment'}; filename=\"{plain}\"; filename*=UTF-8''{quote(shown, safe='')}"


async def _record(data: Data, right: Reader, path: str, size: int) -> None:
    event = NewEvent(
        EventKind.DATA_READ, right.person, experiment=right.experiment.id, data={"path": printable(path), "bytes": size}
    )
    async with data.app.store.begin(write=True) as tx:
        await tx.events.add(data.app.clock.now(), event)


async def preview(data: Data, right: Reader, path: str, request: PreviewRequest) -> Preview:
    """Show what a file contains. A file that cannot be shown is an answer (``NoPreview``), not an error.

    Raises:
        Invalid: it is a folder. NotFound, Forbidden, CloudUnavailable: see ``ports.files``.
    """
    with await data.files.open(right.account, right.experiment.folder, path) as opened:
        _require_file(opened)
        return await data.previews.preview(opened, request)
