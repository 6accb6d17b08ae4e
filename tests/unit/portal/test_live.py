"""The stream of hints: what it says, and that it ends with the login."""

from __future__ import annotations

import asyncio
import json

import pytest

from apikit import a_desktop, clock_of, signed_in
from beamdesk.app.context import App
from beamdesk.app.logins import sign_out
from beamdesk.domain.errors import TooManyRequests
from beamdesk.domain.events import Event, EventKind
from beamdesk.domain.ids import DesktopId, EventId
from beamdesk.portal.i18n import words_for
from beamdesk.portal.live import Live, Streams, messages
from beamdesk.portal.site import Site, Visit
from engine_kit import T0

from .conftest import SETTINGS, Browse

pytestmark = pytest.mark.anyio


def event(number: int, desktop: str | None, kind: EventKind = EventKind.DESKTOP_PHASE) -> Event:
    return Event(EventId(number), T0, kind, None, DesktopId(desktop) if desktop else None, None, None, {"name": "secret\n\nname"})


def test_each_desktop_is_named_once_with_the_newest_id() -> None:
    texts = messages((event(1, "a"), event(2, "b"), event(3, "a")))
    assert texts[0] == 'id: 2\nevent: desktop-changed\ndata: {"desktop": "b"}\n\n'
    assert texts[1] == 'id: 3\nevent: desktop-changed\ndata: {"desktop": "a"}\n\n'


def test_a_new_or_deleted_desktop_changes_the_list() -> None:
    assert "event: list-changed\ndata: {}\n\n" in messages((event(1, "a", EventKind.DESKTOP_CREATED),))
    assert "event: list-changed\ndata: {}\n\n" in messages((event(1, "a", EventKind.DESKTOP_DELETED),))
    assert "event: list-changed\ndata: {}\n\n" not in messages((event(1, "a"),))


def test_nothing_new_is_a_heartbeat() -> None:
    assert messages(()) == ["event: tick\ndata: {}\n\n"]


def test_hints_carry_no_content() -> None:
    assert "secret" not in "".join(messages((event(1, "a"), event(2, None))))


async def open_visit(app: App, person: str = "bob") -> Visit:
    from starlette.requests import Request

    signed = await signed_in(app, person, kind="browser")
    scope = {"type": "http", "method": "GET", "path": "/live", "query_string": b"", "headers": []}
    return Visit(Site(app, SETTINGS), Request(scope), words_for("en"), "", signed.caller, signed.secret)


async def test_a_change_arrives_and_signing_out_ends_the_stream(app: App) -> None:
    visit = await open_visit(app)
    streams = Streams(2)
    streams.enter(visit.caller.login_id)
    received: list[str] = []

    async def listen() -> None:
        async for message in Live(streams, 0.2)._stream(visit, None, None):
            received.append(message)  # noqa: PERF401  # read while it grows

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.1)
    view = await a_desktop(app, "bob")
    await asyncio.sleep(0.5)
    assert f"data: {json.dumps({'desktop': view.desktop.id})}" in "".join(received)
    await sign_out(app, visit.caller)
    await asyncio.wait_for(listening, 3)
    assert received[-1].startswith("event: ended")


async def test_an_expired_login_ends_the_stream(app: App) -> None:
    visit = await open_visit(app)
    streams = Streams(2)
    streams.enter(visit.caller.login_id)
    clock_of(app).tick(13 * 3600)
    received = [message async for message in Live(streams, 0.1)._stream(visit, None, None)]
    assert received[-1].startswith("event: ended")


async def test_the_stream_is_for_signed_in_people_only(browse: Browse) -> None:
    async with browse(None) as client:
        answer = await client.get("/live", headers={"HX-Request": "true"})
    assert answer.status_code == 401


async def test_another_persons_desktop_is_never_hinted_at(app: App) -> None:
    visit = await open_visit(app, "chen")
    streams = Streams(1)
    streams.enter(visit.caller.login_id)
    received: list[str] = []

    async def listen() -> None:
        async for message in Live(streams, 0.1)._stream(visit, EventId(0), None):
            received.append(message)  # noqa: PERF401  # read while it grows

    listening = asyncio.create_task(listen())
    await a_desktop(app, "bob")
    await asyncio.sleep(0.4)
    listening.cancel()
    assert "desktop-changed" not in "".join(received)


def test_one_login_may_open_only_so_many_streams() -> None:
    streams = Streams(2)
    streams.enter("one")
    streams.enter("one")
    streams.enter("two")
    with pytest.raises(TooManyRequests):
        streams.enter("one")
    streams.leave("one")
    streams.enter("one")


async def test_a_page_listens_from_what_it_shows(browse: Browse, app: App) -> None:
    await a_desktop(app, "bob")
    async with app.store.begin() as tx:
        newest = await tx.events.last_id()
    async with browse("bob") as client:
        page = await client.get("/desktops")
    assert f'hx-sse:connect="/live?after={newest + 1}"' in page.text  # + 1: signing in is an event too
