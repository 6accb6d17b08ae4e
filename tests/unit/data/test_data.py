"""The data use cases: who may read, listing, downloads with ranges, previews."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import pytest

from apikit import IMAGING, caller, clock_of, events_of
from beamdesk.adapters.local.files import DirectFiles
from beamdesk.app import data as use_cases
from beamdesk.app.context import App
from beamdesk.app.data import Asked, Data, Download, FileBody, Reader, content_disposition, media_type
from beamdesk.domain.errors import Conflict, Invalid, NotFound
from beamdesk.domain.ids import ExperimentId
from beamdesk.ports.files import OpenedFile, split_path
from beamdesk.ports.previews import Preview, PreviewRequest, TextPreview
from beamdesk.protocol.helper import HelperAccount

pytestmark = pytest.mark.anyio
CONTENT = bytes(range(256)) * 10_000


class HeadOnly:
    async def preview(self, opened: OpenedFile, request: PreviewRequest) -> Preview:
        return TextPreview(os.pread(opened.descriptor, 4, 0).hex(), truncated=False)

    async def close(self) -> None:
        return None


class AsThisAccount(DirectFiles):
    """Files that belong to the account that runs the tests; remembers as whom they were asked for."""

    async def open(self, account: HelperAccount, folder: str, path: str) -> OpenedFile:
        ASKED.append(account)
        return await super().open(HelperAccount("me", os.getuid(), os.getgid(), ()), folder, path)


ASKED: list[HelperAccount] = []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    raw = tmp_path / "data" / IMAGING / "raw"
    raw.mkdir(parents=True)
    (raw / "scan.nxs").write_bytes(CONTENT)
    (raw / "empty").touch()
    return tmp_path / "data"


@pytest.fixture
async def data(app: App, root: Path) -> Data:
    ASKED.clear()
    past = clock_of(app).now() - timedelta(days=1)
    for path in (root / IMAGING / "raw").iterdir():
        os.utime(path, (past.timestamp(), past.timestamp()))
    return Data(app, AsThisAccount(root), HeadOnly())


async def ada(data: Data) -> Reader:
    return await use_cases.reader(data, await caller(data.app, "ada"), IMAGING)


async def get(data: Data, path: str = "raw/scan.nxs", **asked: object) -> tuple[Download, bytes]:
    answer = await use_cases.read_file(data, await ada(data), path, Asked(**asked))
    return answer, b"".join([block async for block in answer.body]) if answer.body else b""


# --- who may


@pytest.mark.parametrize("person", ["chen", "olga"])
async def test_who_is_not_in_the_team_learns_nothing(data: Data, person: str) -> None:
    who = await caller(data.app, person)
    with pytest.raises(NotFound) as refused:
        await use_cases.reader(data, who, IMAGING)
    with pytest.raises(NotFound) as unknown:
        await use_cases.reader(data, who, ExperimentId("none"))
    assert refused.value.message == unknown.value.message
    assert [event.data["action"] for event in await events_of(data.app, "refused")] == ["data", "data"]


async def test_files_are_opened_with_this_experiments_group_only(data: Data) -> None:
    await get(data)
    assert [HelperAccount("ada", 20101, 20101, (30147,))] == ASKED


async def test_a_download_is_recorded_once(data: Data) -> None:
    await get(data)
    await get(data, range="bytes=10-")
    await get(data, head=True)
    assert [event.data for event in await events_of(data.app, "data.read")] == [{"path": "raw/scan.nxs", "bytes": len(CONTENT)}]


# --- look


async def test_a_folder_is_listed_with_the_way_to_it(data: Data) -> None:
    folder = await use_cases.list_folder(data, await ada(data), "raw")
    assert folder.parts == ("raw",)
    assert [entry.name for entry in folder.page.entries] == ["empty", "scan.nxs"]


async def test_a_preview_gets_the_open_file(data: Data) -> None:
    assert await use_cases.preview(data, await ada(data), "raw/scan.nxs", PreviewRequest()) == TextPreview(
        "00010203", truncated=False
    )


async def test_a_folder_is_neither_previewed_nor_downloaded(data: Data) -> None:
    for path in ("raw", ""):
        with pytest.raises(Invalid):
            await use_cases.preview(data, await ada(data), path, PreviewRequest())
        with pytest.raises(Invalid):
            await use_cases.read_file(data, await ada(data), path)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "raw/../../x", "raw/\x00", "raw//scan.nxs"])
async def test_a_path_out_of_the_folder_is_invalid(data: Data, path: str) -> None:
    with pytest.raises(Invalid):
        await use_cases.list_folder(data, await ada(data), path)
    with pytest.raises(Invalid):
        await use_cases.read_file(data, await ada(data), path)


# --- download


async def test_the_whole_file_is_byte_identical(data: Data) -> None:
    answer, body = await get(data)
    assert (answer.status, body) == (HTTPStatus.OK, CONTENT)
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert answer.headers["Accept-Ranges"] == "bytes"


async def test_a_range_is_a_part(data: Data) -> None:
    answer, body = await get(data, range="bytes=1000-1999")
    assert (answer.status, body) == (HTTPStatus.PARTIAL_CONTENT, CONTENT[1000:2000])
    assert answer.headers["Content-Range"] == f"bytes 1000-1999/{len(CONTENT)}"
    assert answer.headers["Content-Length"] == "1000"


async def test_a_broken_download_goes_on_with_its_tag(data: Data) -> None:
    first, _ = await get(data)
    answer, body = await get(data, range="bytes=5000-", if_range=first.headers["ETag"])
    assert (answer.status, body) == (HTTPStatus.PARTIAL_CONTENT, CONTENT[5000:])


async def test_a_changed_file_starts_again(data: Data, root: Path) -> None:
    first, _ = await get(data)
    (root / IMAGING / "raw/scan.nxs").write_bytes(b"new")
    answer, body = await get(data, range="bytes=1-", if_range=first.headers["ETag"])
    assert (answer.status, body) == (HTTPStatus.OK, b"new")


async def test_a_range_behind_the_end_is_416(data: Data) -> None:
    answer, body = await get(data, range=f"bytes={len(CONTENT)}-")
    assert (answer.status, body) == (HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"")
    assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


async def test_an_unchanged_file_is_304(data: Data) -> None:
    first, _ = await get(data)
    answer, body = await get(data, if_none_match=first.headers["ETag"])
    assert (answer.status, body) == (HTTPStatus.NOT_MODIFIED, b"")


async def test_head_tells_the_size_and_sends_nothing(data: Data) -> None:
    answer, body = await get(data, head=True, range="bytes=0-9")
    assert (answer.status, answer.headers["Content-Length"], body) == (HTTPStatus.OK, str(len(CONTENT)), b"")


async def test_an_empty_file_is_empty(data: Data) -> None:
    answer, body = await get(data, "raw/empty")
    assert (answer.status, answer.headers["Content-Length"], body) == (HTTPStatus.OK, "0", b"")
    assert (await get(data, "raw/empty", range="bytes=0-"))[0].status is HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


async def receive(answer: Download, received: bytearray, meanwhile: Callable[[], object] = lambda: None) -> None:
    assert answer.body
    async for block in answer.body:
        received += block
        meanwhile()


async def test_a_file_that_shrinks_breaks_off(data: Data, root: Path) -> None:
    answer = await use_cases.read_file(data, await ada(data), "raw/scan.nxs")
    os.truncate(root / IMAGING / "raw/scan.nxs", 1_200_000)
    received = bytearray()
    with pytest.raises(Conflict):
        await receive(answer, received)
    assert len(received) < len(CONTENT)


async def test_a_file_rewritten_meanwhile_never_looks_complete(data: Data, root: Path) -> None:
    answer = await use_cases.read_file(data, await ada(data), "raw/scan.nxs")
    received = bytearray()
    with pytest.raises(Conflict):
        await receive(answer, received, meanwhile=lambda: (root / IMAGING / "raw/scan.nxs").write_bytes(b"mixed" * len(CONTENT)))
    assert len(received) < len(CONTENT)


async def test_a_body_that_is_never_read_stays_open_nowhere(data: Data) -> None:
    answer = await use_cases.read_file(data, await ada(data), "raw/scan.nxs")
    answer.body.close()
    answer.body.close()
    left = await use_cases.read_file(data, await ada(data), "raw/scan.nxs")
    stream = left.body.__aiter__()
    await anext(stream)
    await stream.aclose()
    assert left.body._opened.descriptor == -1


async def test_ten_gigabytes_need_little_memory(data: Data, root: Path) -> None:
    big = root / IMAGING / "raw/big"
    with big.open("wb") as file:
        file.truncate(10 * 1024**3)  # sparse
    tracemalloc.start()
    with OpenedFile(os.open(big, os.O_RDONLY)) as opened:
        received = 0
        async for block in FileBody(opened, use_cases.Span(0, opened.size - 1)):
            received += len(block)
            if received >= 64 * 1024**2:
                break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 1024**2


# --- headers


@pytest.mark.parametrize(
    ("name", "expected"), [("a.nxs", "application/x-hdf5"), ("a.PNG", "image/png"), ("a.log", "text/plain; charset=utf-8")]
)
def test_known_files_have_their_type(name: str, expected: str) -> None:
    assert media_type(name) == expected


@pytest.mark.parametrize(
    "name", ["a.svg", "a.html", "a.HTM", "a.xml", "a.js", "a.mjs", "a.xhtml", "a.swf", "a.tar.gz", "a.html.gz", "noext"]
)
def test_no_file_is_a_document_of_the_portal(name: str) -> None:
    assert media_type(name) in ("text/plain; charset=utf-8", "application/octet-stream")


async def test_a_download_cannot_run_in_the_portals_origin(data: Data) -> None:
    answer, _ = await get(data)
    assert answer.headers["Content-Security-Policy"].startswith("sandbox;")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"].startswith("attachment;")


@pytest.mark.parametrize(
    "name", ['a"; filename="b.exe', "a\r\nSet-Cookie: x=y", "数据 1.h5", "a\u202ecod.exe", os.fsdecode(b"\xff\xfe")]
)
def test_any_name_makes_one_clean_header(name: str) -> None:
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2


def test_a_split_path_is_joined_again() -> None:
    assert split_path("raw/a b/数据") == ("raw", "a b", "数据")
    assert split_path("") == ()
