"""Requests that try to be two things at once, too large, too slow, or addressed to nobody."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from beamdesk.gateway.config import Limits
from integration.gateway.stage import Stage, make_stage
from integration.gateway.wire import read_answer

pytestmark = pytest.mark.anyio


def raw(stage: Stage, *lines: str, first: str = "GET / HTTP/1.1", host: str = "", body: bytes = b"") -> bytes:
    host = host or stage.origin.removeprefix("http://")
    return "\r\n".join([first, f"Host: {host}", *lines]).encode("latin-1") + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/client/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/static/",
        "/static/connect.html",
        "/templates/connect.html",
        "/.git/config",
        "/api/tokens",
        "/api/files",
    ],
)
async def test_no_path_leads_elsewhere(stage: Stage, path: str):
    answer = await stage.request("GET", path, Cookie=await stage.sign_in())
    assert answer.status == 404
    assert b"root:" not in answer.body


async def test_files_are_kept_for_ever_and_compressed(stage: Stage):
    page = await stage.request("GET", "/", Cookie=await stage.sign_in())
    client = page.body.decode().split('modulepreload" href="')[1].split('"')[0]
    plain = await stage.request("GET", client)
    small = await stage.request("GET", client, Accept_Encoding="gzip")
    assert plain.status == small.status == 200
    assert "immutable" in plain.field("cache-control")
    assert len(small.body) < len(plain.body)
    assert small.field("content-encoding") == "gzip"
    assert small.field("x-content-type-options") == "nosniff"


async def test_a_head_request_gets_no_body(stage: Stage):
    answer = await stage.request("HEAD", "/", Cookie=await stage.sign_in())
    assert answer.status == 200
    assert int(answer.field("content-length")) > 1000


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Transfer-Encoding: chunked"], 400),
        (["Content-Length: 5", "Transfer-Encoding: chunked"], 400),
        (["Content-Length: 5", "Content-Length: 6"], 400),
        (["X-A: 1", " folded: 2"], 400),
        (["Content-Length: 5000"], 413),
        (["X-A: " + "a" * 17_000], 431),
        ([], 411),
    ],
)
async def test_smuggling_is_refused_and_the_connection_closed(stage: Stage, lines: list[str], status: int):
    reader, writer = await stage.raw()
    writer.write(raw(stage, *lines, first="POST /open HTTP/1.1"))
    answer = await read_answer(reader)
    assert (answer.status, answer.field("connection")) == (status, "close")
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 5) == b""


@pytest.mark.parametrize(
    "host", ["localhost", "evil.example", "{own}.evil.example", "{name}.localhost:1", "{name}.localhost", "{own}@evil.example"]
)
async def test_another_host_is_misdirected(stage: Stage, host: str):
    own = stage.origin.removeprefix("http://")
    answer = await stage.send(raw(stage, host=host.format(own=own, name=own.split(".")[0])))
    assert answer.status == 421


async def test_an_unknown_desktop_looks_like_one_without_a_session(stage: Stage):
    unknown = await stage.send(raw(stage, host=f"d-nobody.localhost:{stage.port}"))
    known = await stage.send(raw(stage))
    assert (unknown.status, unknown.body) == (known.status, known.body)
    assert known.status == 403


async def test_requests_follow_each_other_on_a_connection(stage: Stage):
    reader, writer = await stage.raw()
    writer.write(raw(stage, first="GET /manifest.json HTTP/1.1") * 3)
    answers = [await read_answer(reader) for _ in range(3)]
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"{}")] * 3


async def test_nothing_may_follow_a_handshake(stage: Stage):
    cookie = await stage.sign_in()
    smuggled = raw(stage, f"Cookie: {cookie}", f"Origin: {stage.origin}", "Content-Length: 0", first="POST /session/end HTTP/1.1")
    assert (await stage.send(stage.handshake(cookie) + smuggled)).status == 400
    assert b'"open"' in (await stage.request("GET", "/session", Cookie=cookie)).body
    assert not stage.upstream.requests


@pytest.mark.parametrize("version", ["12", "8", ""])
async def test_another_websocket_version_is_refused(stage: Stage, version: str):
    handshake = stage.handshake(await stage.sign_in()).replace(b"Version: 13", f"Version: {version}".encode())
    assert (await stage.send(handshake)).status == 400


@pytest.mark.parametrize("key", ["", "short", "a" * 100, "dGhl IHNhbXBsZSBub25jZQ=="])
async def test_a_strange_key_is_refused(stage: Stage, key: str):
    handshake = stage.handshake(await stage.sign_in()).replace(b"dGhlIHNhbXBsZSBub25jZQ==", key.encode())
    assert (await stage.send(handshake)).status == 400
    assert not stage.upstream.requests


async def test_who_is_slow_is_cut(tmp_path: Path):
    async with make_stage(tmp_path, limits=Limits(head_timeout_s=0.3)) as stage:
        reader, writer = await stage.raw()
        loop = asyncio.get_running_loop()
        start = loop.time()
        with contextlib.suppress(ConnectionError):
            for byte in raw(stage):
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
                if reader.at_eof():
                    break
            assert await asyncio.wait_for(reader.read(), 2) == b""
        assert loop.time() - start < 1.5


async def test_a_crowd_is_kept_out(tmp_path: Path):
    async with make_stage(tmp_path, limits=Limits(connections=3)) as stage:
        crowd = [await stage.raw() for _ in range(3)]
        await asyncio.sleep(0.1)
        reader, _ = await stage.raw()
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 2) == b""
        for _, writer in crowd:
            writer.close()
        await asyncio.sleep(0.1)
        assert (await stage.request("GET", "/manifest.json")).status == 200


@pytest.mark.parametrize("path", ["/session/extend", "/session/end"])
@pytest.mark.parametrize("origin", [None, "null", "http://localhost:8080", "https://evil.example"])
async def test_only_the_page_itself_may_change_something(stage: Stage, path: str, origin: str | None):
    cookie = await stage.sign_in()
    fields = {"Cookie": cookie} | ({"Origin": origin} if origin else {})
    assert (await stage.request("POST", path, b"", **fields)).status == 403
    assert (await stage.request("GET", path, Cookie=cookie)).status == 404
    assert b'"open"' in (await stage.request("GET", "/session", Cookie=cookie)).body
