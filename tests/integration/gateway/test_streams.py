"""Streams: who may open one, what passes, what a hostile desktop can do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from beamdesk.adapters.demo.people import BOB
from beamdesk.gateway.upstream import session_token
from integration.gateway.stage import CANARY, Stage, put_ready_desktop
from integration.gateway.wire import MASTER, make_frame, read_frame

pytestmark = pytest.mark.anyio


async def test_messages_pass_both_ways_unchanged(stage: Stage):
    stream = await stage.stream(await stage.sign_in())
    assert stream.answer.status == 101
    for size in (0, 1, 125, 126, 70_000, 1_000_000):
        assert await stream.echo(b"x" * size) == b"x" * size


async def test_the_answer_is_ours(stage: Stage):
    stage.upstream.extra_fields = b"Set-Cookie: __Host-beamdesk=stolen\r\nX-Evil: 1\r\nContent-Security-Policy: *\r\n"
    stream = await stage.stream(await stage.sign_in())
    assert {name.lower() for name, _ in stream.answer.fields} == {"upgrade", "connection", "sec-websocket-accept"}


async def test_what_the_desktop_says_first_is_not_lost(stage: Stage):
    stage.upstream.greeting = make_frame(b"MODE websockets")
    stream = await stage.stream(await stage.sign_in())
    assert await asyncio.wait_for(read_frame(stream.reader), 5) == b"MODE websockets"


async def test_nothing_of_the_browser_reaches_the_desktop_but_the_key(stage: Stage):
    cookie = await stage.sign_in()
    extra = (
        f"Authorization: Bearer {CANARY}\r\nX-Forwarded-For: {CANARY}\r\nUser-Agent: {CANARY}\r\n"
        f"Sec-WebSocket-Protocol: {CANARY}\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSelkies-Authorization: {CANARY}\r\n"
    )
    assert (await stage.stream(cookie, extra=extra)).answer.status == 101
    sent = b"".join(stage.upstream.requests)
    for secret in (CANARY.encode(), cookie.split("=")[1].encode(), b"Cookie", b"Origin", b"permessage"):
        assert secret not in sent
    assert b"dGhlIHNhbXBsZSBub25jZQ==" in sent


async def test_the_table_names_every_open_session(stage: Stage):
    await stage.sign_in()
    await stage.stream(await stage.sign_in(BOB))
    async with stage.app.store.begin() as tx:
        sessions = await tx.sessions.open_sessions(stage.desktop.id, stage.app.clock.now())
    expected = {session_token(MASTER, session.id): {"role": str(session.role)} for session in sessions}
    assert len(expected) == 2
    assert stage.upstream.tables[-1] == expected


@pytest.mark.parametrize("origin", [None, "null", "http://localhost:8080", "https://evil.example", "http://d-other.localhost:1"])
async def test_only_the_desktops_own_page_opens_a_stream(stage: Stage, origin: str | None):
    stream = await stage.stream(await stage.sign_in(), origin=origin)
    assert stream.answer.status == 403
    assert not stage.upstream.requests


@pytest.mark.parametrize("cookie", ["", "__Host-beamdesk=x.y", "__Host-beamdesk=", "beamdesk=1"])
async def test_without_a_session_there_is_no_stream(stage: Stage, cookie: str):
    assert (await stage.stream(cookie)).answer.status == 403
    assert not stage.upstream.requests


async def test_the_cookie_of_another_desktop_is_worthless_here(stage: Stage):
    cookie = await stage.sign_in()
    other = await put_ready_desktop(stage.app, f"unix:{stage.upstream.path}")
    first, stage.desktop = stage.desktop, other
    assert (await stage.stream(cookie)).answer.status == 403
    assert (await stage.request("GET", "/", Cookie=cookie)).status == 403
    stage.desktop = first
    assert (await stage.stream(cookie)).answer.status == 101


@pytest.mark.parametrize(
    "change",
    [
        {"status": b"200 OK"},
        {"status": b"302 Found"},
        {"status": b"101 \x00"},
        {"accept": lambda _key: "wrong"},
        {"extra_fields": b"Sec-WebSocket-Extensions: permessage-deflate\r\n"},
        {"extra_fields": b" folded: 1\r\n"},
        {"extra_fields": b"x: " + b"a" * 20_000 + b"\r\n"},
        {"token_status": b"401 No"},
    ],
)
async def test_a_desktop_that_does_not_speak_websocket_is_not_relayed(stage: Stage, change: dict[str, object]):
    for name, value in change.items():
        setattr(stage.upstream, name, value)
    assert (await stage.stream(await stage.sign_in())).answer.status == 503


async def test_a_socket_that_became_a_link_is_not_followed(stage: Stage):
    cookie = await stage.sign_in()
    path = stage.upstream.path
    path.rename(path.with_name("real.sock"))
    path.symlink_to(path.with_name("real.sock"))
    assert (await stage.stream(cookie)).answer.status == 503
    assert not stage.upstream.requests


async def test_a_desktop_that_is_gone_is_told(stage: Stage):
    cookie = await stage.sign_in()
    stage.upstream.path.unlink()
    assert (await stage.stream(cookie)).answer.status == 503


async def test_a_slow_browser_stops_the_sender(stage: Stage):
    stage.upstream.flood = b"x" * 65536
    stream = await stage.stream(await stage.sign_in())
    assert stream.answer.status == 101
    stream.writer.transport.pause_reading()
    await asyncio.sleep(0.5)
    before = _resident()
    await asyncio.sleep(0.5)
    assert _resident() - before < 8 * 1024 * 1024
    stream.writer.transport.abort()
    stage.upstream.flood = b""


async def test_both_ends_close_together(stage: Stage):
    stream = await stage.stream(await stage.sign_in())
    stream.writer.write_eof()
    assert await stream.is_cut(2) < 2


async def test_a_session_has_a_few_streams_only(stage: Stage):
    cookie = await stage.sign_in()
    streams = [await stage.stream(cookie) for _ in range(stage.settings.limits.streams_per_session)]
    assert {stream.answer.status for stream in streams} == {101}
    assert (await stage.stream(cookie)).answer.status == 429


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
