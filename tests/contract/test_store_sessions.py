"""The store's contract, sessions and events: tickets that are spent once, ends, a log without gaps."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.ids import DesktopId, EventId, PersonId, SessionId
from beamdesk.domain.session import Login, Ticket, ViewerRole
from engine_kit import ADA, EXPERIMENT, T0
from storekit import LATER, SOON, insert, make_session

pytestmark = pytest.mark.anyio


async def test_a_ticket_is_spent_once_and_only_for_its_desktop(store: SqlStore, other: SqlStore) -> None:
    await insert(store, "desktop01", "desktop02")
    ticket = Ticket(b"k" * 32, DesktopId("desktop01"), ADA.id, "login1", ViewerRole.VIEWER, SOON)
    async with store.begin(write=True) as tx:
        await tx.sessions.insert_ticket(ticket)
        assert await tx.sessions.spend_ticket(b"k" * 32, DesktopId("desktop02"), T0) is None
        assert await tx.sessions.spend_ticket(b"k" * 32, DesktopId("desktop01"), SOON) is None

    async def spend(where: SqlStore) -> Ticket | None:
        async with where.begin(write=True) as tx:
            return await tx.sessions.spend_ticket(b"k" * 32, DesktopId("desktop01"), T0)

    got = await asyncio.gather(*(spend((store, other)[n % 2]) for n in range(6)))
    assert [one for one in got if one] == [ticket]


async def test_the_end_of_a_login_ends_its_tickets_and_sessions(store: SqlStore) -> None:
    await insert(store, "desktop01")
    login = Login("login1", ADA.id, b"l" * 32, "portal", T0, LATER)
    async with store.begin(write=True) as tx:
        await tx.sessions.insert_login(login)
        assert await tx.sessions.login_by_hash(b"l" * 32, T0) == login
        assert await tx.sessions.login_by_hash(b"l" * 32, LATER) is None
        await tx.sessions.insert_ticket(Ticket(b"k" * 32, DesktopId("desktop01"), ADA.id, "login1", ViewerRole.VIEWER, SOON))
        await tx.sessions.insert_session(make_session())
        await tx.sessions.end_login("login1", T0)
        await tx.sessions.end_login("login1", T0)
        assert await tx.sessions.login_by_hash(b"l" * 32, T0) is None
        assert await tx.sessions.spend_ticket(b"k" * 32, DesktopId("desktop01"), T0) is None
        assert await tx.sessions.session_by_hash(b"session1" * 4, DesktopId("desktop01"), T0) is None
        assert await tx.sessions.ended_among((SessionId("session1"),), T0) != ()


async def test_sessions_end_by_any_key_and_only_those(store: SqlStore) -> None:
    await insert(store, "desktop01")
    async with store.begin(write=True) as tx:
        await tx.sessions.insert_session(make_session("session1"))
        await tx.sessions.insert_session(make_session("session2", person=PersonId("p-bob"), login_id="login2"))
        await tx.sessions.insert_session(make_session("session3", desktop_id=DesktopId("desktop09")))
        ids = tuple(SessionId(f"session{n}") for n in (1, 2, 3))
        assert await tx.sessions.ended_among(ids, T0) == ()
        assert await tx.sessions.end_sessions(T0, "left", person=PersonId("p-bob"), experiment=EXPERIMENT.id) == 1
        assert [one.id for one in await tx.sessions.ended_among(ids, T0)] == ["session2"]
        assert [one.id for one in await tx.sessions.open_sessions(DesktopId("desktop01"), T0)] == ["session1"]
        assert await tx.sessions.session_by_hash(b"session1" * 4, DesktopId("desktop09"), T0) is None
        assert await tx.sessions.end_sessions(T0, "stopped", desktop=DesktopId("desktop01")) == 1
        assert len(await tx.sessions.ended_among(ids, LATER)) == 3, "an expired session has ended"
        with pytest.raises(ValueError, match="key"):
            await tx.sessions.end_sessions(T0, "all of them")
        assert await tx.sessions.purge(LATER + timedelta(days=1)) == 3


async def test_events_are_filtered_and_paged(store: SqlStore) -> None:
    bob = PersonId("p-bob")
    async with store.begin(write=True) as tx:
        await tx.events.add(
            T0, NewEvent(EventKind.SIGNED_IN, actor=bob), NewEvent(EventKind.DESKTOP_CREATED, bob, DesktopId("d1"), bob)
        )
        await tx.events.add(T0, NewEvent(EventKind.DESKTOP_PHASE, None, DesktopId("d2"), ADA.id, EXPERIMENT.id, {"phase": "ready"}))
    async with store.begin() as tx:
        everything = await tx.events.page(newest_first=False)
        assert [one.id for one in everything] == [1, 2, 3]
        assert everything[2].data == {"phase": "ready"}
        assert [one.id for one in await tx.events.page(limit=2)] == [3, 2]
        assert [one.id for one in await tx.events.page(before=EventId(3), limit=1)] == [2]
        assert [one.id for one in await tx.events.page(after=EventId(1), newest_first=False)] == [2, 3]
        assert [one.id for one in await tx.events.page(owner=ADA.id, actor=bob)] == [3, 2, 1]
        assert [one.id for one in await tx.events.page(owner=bob, desktop_id=DesktopId("d1"))] == [2]
        assert [one.id for one in await tx.events.page(experiments=(EXPERIMENT.id,))] == [3]
        assert await tx.events.page(experiments=()) == ()
        assert await tx.events.last_id() == 3


async def test_old_events_are_purged_a_few_at_a_time_and_the_newest_stays(store: SqlStore) -> None:
    for at in (T0, T0, T0, LATER):
        async with store.begin(write=True) as tx:
            await tx.events.add(at, NewEvent(EventKind.SIGNED_IN, actor=ADA.id))
    async with store.begin(write=True) as tx:
        assert await tx.events.purge(T0) == 0
        assert await tx.events.purge(LATER, most=2) == 2
        assert await tx.events.purge(LATER) == 1
        assert await tx.events.purge(LATER + timedelta(days=1)) == 0
        assert [one.id for one in await tx.events.page()] == [4]
    async with store.begin(write=True) as tx:
        await tx.events.add(LATER, NewEvent(EventKind.SIGNED_OUT, actor=ADA.id))
    async with store.begin() as tx:
        assert await tx.events.last_id() == 5


async def test_a_reader_who_follows_by_id_misses_no_event(store: SqlStore, other: SqlStore) -> None:
    writers, each = 6, 15

    async def write(where: SqlStore, number: int) -> None:
        for turn in range(each):
            async with where.begin(write=True) as tx:
                await tx.events.add(T0, NewEvent(EventKind.REFUSED, data={"who": number}))
                await asyncio.sleep(0.001 * ((number + turn) % 3))  # commit later than a neighbour that began later

    async def follow() -> list[int]:
        seen: list[int] = []
        while len(seen) < writers * each:
            last = EventId(seen[-1] if seen else 0)
            await other.wait_for_events(last, 5)
            async with other.begin() as tx:
                seen += [one.id for one in await tx.events.page(after=last, newest_first=False)]
        return seen

    async with asyncio.timeout(30):
        seen, *_ = await asyncio.gather(follow(), *(write((store, other)[n % 2], n) for n in range(writers)))
    assert len(seen) == writers * each
