"""Sessions: what the page is told, extending, disconnecting, and the feed that cuts streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from beamdesk.adapters.demo.people import ADA, BOB
from beamdesk.app.connections import end_session
from beamdesk.app.desktops import stop
from beamdesk.app.logins import sign_out
from beamdesk.domain.desktop import Phase, Reason
from beamdesk.domain.errors import StoreUnavailable
from beamdesk.gateway.lookup import look
from integration.gateway.stage import Stage, change_state, make_stage

pytestmark = pytest.mark.anyio


async def told(stage: Stage, cookie: str) -> dict[str, object]:
    answer = await stage.request("GET", "/session", Cookie=cookie)
    assert answer.status == 200
    return json.loads(answer.body)


async def test_the_page_learns_how_long_the_desktop_runs(stage: Stage):
    session = await told(stage, await stage.sign_in())
    assert session["state"] == "open"
    assert 8 * 3600 - 60 < session["left_s"] <= 8 * 3600
    assert session["may_extend"] is True
    assert session["role"] == "controller"


async def test_extending_gives_more_time(stage: Stage):
    cookie = await stage.sign_in()
    answer = await stage.request("POST", "/session/extend", b"", Cookie=cookie, Origin=stage.origin)
    assert json.loads(answer.body)["left_s"] > 11 * 3600


async def test_who_only_watches_cannot_extend(stage: Stage):
    cookie = await stage.sign_in(BOB)
    assert (await told(stage, cookie))["may_extend"] is False
    answer = await stage.request("POST", "/session/extend", b"", Cookie=cookie, Origin=stage.origin)
    assert answer.status == 409
    assert json.loads(answer.body)["code"] == "forbidden"


async def test_disconnecting_ends_the_session_and_its_stream(stage: Stage):
    cookie = await stage.sign_in()
    stream = await stage.stream(cookie)
    answer = await stage.request("POST", "/session/end", b"", Cookie=cookie, Origin=stage.origin)
    assert json.loads(answer.body) == {"portal": "http://localhost:8080/"}
    assert "Max-Age=0" in answer.field("set-cookie")
    assert await stream.is_cut(2) < 1
    assert (await told(stage, cookie))["state"] == "ended"
    assert (await stage.request("GET", "/", Cookie=cookie)).status == 403


async def test_strangers_are_told_nothing(stage: Stage):
    cookie = await stage.sign_in()
    session_id = cookie.split("=")[1].split(".")[0]
    for guess in ("", f"__Host-beamdesk={session_id}.wrong", f"__Host-beamdesk=.{cookie.split('.')[1]}"):
        answer = await told(stage, guess)
        assert (answer["state"], answer["name"], answer["session"]) == ("none", "", "")


async def cut_by(stage: Stage, action: Callable[[], Awaitable[object]]) -> float:
    stream = await stage.stream(await stage.sign_in())
    assert stream.answer.status == 101
    await asyncio.sleep(0.6)  # at least one poll with nothing to do
    await action()
    return await stream.is_cut(3)


async def test_sign_out_cuts_within_a_second(stage: Stage):
    cookie = await stage.sign_in()
    found = await look(stage.app, stage.desktop.id, cookie.split("=")[1])
    caller = await stage.caller()
    stream = await stage.stream(cookie)
    await sign_out(stage.app, type(caller)(ADA, found.session.login_id))
    assert await stream.is_cut(3) < 1
    assert (await told(stage, cookie))["state"] == "ended"


async def test_stopping_the_desktop_cuts_within_a_second(stage: Stage):
    caller = await stage.caller()
    assert await cut_by(stage, lambda: stop(stage.app, caller, stage.desktop.id)) < 1


async def test_a_desktop_that_is_not_ready_any_more_is_cut_within_a_second(stage: Stage):
    assert await cut_by(stage, lambda: change_state(stage.app, stage.desktop.id, phase=Phase.REPAIRING)) < 1


async def test_a_desktop_that_moved_is_cut_within_a_second(stage: Stage):
    assert await cut_by(stage, lambda: change_state(stage.app, stage.desktop.id, address="tcp:127.0.0.1:9")) < 1


async def test_an_operator_ending_all_sessions_cuts_within_a_second(stage: Stage):
    async def end_all() -> None:
        async with stage.app.store.begin(write=True) as tx:
            await tx.sessions.end_sessions(stage.app.clock.now(), "operator", desktop=stage.desktop.id)

    assert await cut_by(stage, end_all) < 1


async def test_a_session_that_is_too_old_is_cut(stage: Stage):
    async def wait_a_day() -> None:
        stage.clock.ahead += timedelta(hours=25)

    assert await cut_by(stage, wait_a_day) < 1


async def test_others_stay_connected(stage: Stage):
    ada, bob = await stage.sign_in(), await stage.sign_in(BOB)
    watching = await stage.stream(bob)
    stream = await stage.stream(ada)
    session = (await look(stage.app, stage.desktop.id, ada.split("=")[1])).session
    await end_session(stage.app, session, "disconnected")
    assert await stream.is_cut(3) < 1
    assert await watching.echo(b"still here") == b"still here"


async def test_the_reason_is_told_afterwards(stage: Stage):
    cookie = await stage.sign_in(BOB)
    await change_state(stage.app, stage.desktop.id, phase=Phase.STOPPING, reason=Reason.LEASE_ENDED)
    stopped = await told(stage, cookie)
    assert (stopped["state"], stopped["title"]) == ("stopped", "Your desktop was stopped")
    await change_state(stage.app, stage.desktop.id, phase=Phase.REPAIRING)
    assert (await told(stage, cookie))["title"] == "Your desktop is being repaired"


async def test_the_stream_client_is_told_to_wait_or_to_come(stage: Stage):
    cookie = await stage.sign_in()
    assert (await stage.request("GET", "/api/websockets", Cookie=cookie)).status == 204
    await change_state(stage.app, stage.desktop.id, phase=Phase.REPAIRING)
    assert (await stage.request("GET", "/api/websockets", Cookie=cookie)).status == 503


def take_store_away(stage: Stage) -> Callable[[], None]:
    """Make the store raise; returns what brings it back."""
    real = stage.app.store.begin

    @asynccontextmanager
    async def away(*, write: bool = False):
        raise StoreUnavailable("away")
        yield

    stage.app.store.begin = away

    def back() -> None:
        stage.app.store.begin = real

    return back


async def test_without_a_store_open_streams_live_and_new_ones_wait(stage: Stage):
    cookie, ticket = await stage.sign_in(), await stage.ticket()
    stream = await stage.stream(cookie)
    back = take_store_away(stage)
    await asyncio.sleep(0.8)
    assert await stream.echo(b"still here") == b"still here"
    assert (await stage.stream(cookie)).answer.status == 503
    refused = await stage.post_ticket(ticket)
    assert refused.status == 503
    assert b"cannot be reached right now" in refused.body
    assert json.loads((await stage.request("GET", "/session", Cookie=cookie)).body)["state"] == "unknown"
    back()
    assert (await stage.stream(cookie)).answer.status == 101


async def test_what_happened_while_the_store_was_away_counts(stage: Stage):
    stream = await stage.stream(await stage.sign_in())
    await asyncio.sleep(0.6)
    back = take_store_away(stage)
    await asyncio.sleep(0.6)
    back()
    await change_state(stage.app, stage.desktop.id, phase=Phase.REPAIRING)
    assert await stream.is_cut(3) < 1


async def test_without_a_store_for_too_long_streams_are_cut(tmp_path: Path):
    async with make_stage(tmp_path, store_grace_s=0.5) as stage:
        stream = await stage.stream(await stage.sign_in())
        take_store_away(stage)
        assert 0.4 < await stream.is_cut(3) < 2
