"""The store's contract, what reconcilers live on: claims, the waiting line, capacity, and what wakes a desktop."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Phase, Reason
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.ids import DesktopId, EventId
from beamdesk.reconcile.apply import outcome_of
from engine_kit import T0
from storekit import LATER, SOON, claim, get, insert, make_guest

pytestmark = pytest.mark.anyio
TOTAL = Resources(8, 16384, 100, 1)


async def test_a_reason_is_told_under_the_claim_and_makes_a_new_version(store: SqlStore) -> None:
    await insert(store, "desktop01")
    (first,) = await claim(store, "t1")
    async with store.begin(write=True) as tx:
        assert await tx.desktops.tell(first, Reason.CLOUD_BUSY, "It takes long.")
    told = await get(store, "desktop01")
    assert (told.reason, told.detail, told.version) == (Reason.CLOUD_BUSY, "It takes long.", first.desktop.version + 1)
    assert told.due_at == first.desktop.due_at
    (second,) = await claim(store, "t2", now=SOON, until=LATER)
    async with store.begin(write=True) as tx:
        assert not await tx.desktops.tell(first, Reason.NONE, "")
        assert await tx.desktops.apply(second, outcome_of(second.desktop), SOON), "the claim is held on to"


async def test_a_claim_holds_until_it_expires(store: SqlStore) -> None:
    await insert(store, "desktop01")
    (first,) = await claim(store, "t1")
    assert await claim(store, "t2") == ()
    (second,) = await claim(store, "t2", now=SOON, until=LATER)
    async with store.begin(write=True) as tx:
        assert not await tx.desktops.renew(first, LATER)
        assert not await tx.desktops.apply(first, outcome_of(first.desktop), SOON)
        assert not await tx.desktops.remove(first, SOON)
        with pytest.raises(LookupError):
            await tx.desktops.admit(first, TOTAL, SOON)
        assert await tx.desktops.renew(second, LATER)
    assert (await get(store, "desktop01")).version == 1


async def test_claims_take_the_oldest_due_first_and_nothing_that_is_not_due(store: SqlStore) -> None:
    await insert(store, "desktop03", due_at=T0 - timedelta(seconds=1))
    await insert(store, "desktop01", due_at=T0 - timedelta(seconds=3))
    await insert(store, "desktop02", due_at=T0 - timedelta(seconds=2))
    await insert(store, "desktop04", due_at=SOON)
    assert [one.desktop.id for one in await claim(store, limit=2)] == ["desktop01", "desktop02"]
    assert [one.desktop.id for one in await claim(store, limit=9)] == ["desktop03"]


async def test_reconcilers_at_once_never_claim_the_same_row(store: SqlStore, other: SqlStore) -> None:
    await insert(store, *(f"desktop{number:02}" for number in range(40)))

    async def work(where: SqlStore, name: str) -> list[str]:
        mine: list[str] = []
        while got := await claim(where, name, limit=3):
            mine += [one.desktop.id for one in got]
        return mine

    shares = await asyncio.gather(*(work(where, f"t{number}") for number, where in enumerate((store, other) * 3)))
    everything = [desktop_id for share in shares for desktop_id in share]
    assert sorted(everything) == [f"desktop{number:02}" for number in range(40)]


async def test_apply_writes_the_state_and_lets_go(store: SqlStore) -> None:
    await insert(store, "desktop01")
    (claimed,) = await claim(store)
    after = replace(claimed.desktop, phase=Phase.BUILDING, server_id="server-1", due_at=LATER, absent_since=T0, repairs=1)
    after = replace(after, server_generation=1)
    async with store.begin(write=True) as tx:
        assert await tx.desktops.apply(claimed, outcome_of(after), T0)
    assert await get(store, "desktop01") == replace(after, version=2)
    assert await claim(store, now=SOON) == ()
    assert len(await claim(store, now=LATER)) == 1


async def test_a_pass_that_shows_nobody_anything_leaves_the_version(store: SqlStore) -> None:
    await insert(store, "desktop01")
    (claimed,) = await claim(store)
    after = replace(claimed.desktop, due_at=LATER, attempts=3, last_active_at=SOON)
    async with store.begin(write=True) as tx:
        await tx.desktops.apply(claimed, outcome_of(after), T0)
    assert (await get(store, "desktop01")).version == 1


@pytest.mark.parametrize("by", ["intent", "wake"])
async def test_whatever_happens_during_a_pass_is_looked_at_right_after(store: SqlStore, by: str) -> None:
    await insert(store, "desktop01")
    (claimed,) = await claim(store)
    async with store.begin(write=True) as tx:
        if by == "intent":
            await tx.desktops.change_intent(DesktopId("desktop01"), now=T0, desired=Desired.STOPPED)
        else:
            await tx.desktops.wake(DesktopId("desktop01"), T0)
    async with store.begin(write=True) as tx:
        await tx.desktops.apply(claimed, outcome_of(replace(claimed.desktop, due_at=LATER)), SOON)
    assert (await get(store, "desktop01")).due_at == SOON
    if by == "intent":
        assert (await get(store, "desktop01")).desired is Desired.STOPPED


async def test_capacity_is_never_given_twice(store: SqlStore, other: SqlStore) -> None:
    ids = [f"desktop{number:02}" for number in range(12)]
    await insert(store, *ids, resources=Resources(1, 1024, 1, 0))
    claims = {one.desktop.id: one for one in await claim(store, limit=12)}

    async def admit(where: SqlStore, desktop_id: str) -> bool:
        async with where.begin(write=True) as tx:
            return await tx.desktops.admit(claims[desktop_id], TOTAL, T0) is None

    admitted = await asyncio.gather(*(admit((store, other)[n % 2], one) for n, one in enumerate(ids)))
    assert sum(admitted) == 8
    async with store.begin() as tx:
        assert await tx.desktops.admitted_total() == Resources(8, 8192, 8, 0)
        assert len(await tx.desktops.holders()) == 8


async def test_the_line_tells_place_lack_and_expected_time(store: SqlStore) -> None:
    await insert(store, "desktop01", resources=TOTAL, admitted=True, phase=Phase.READY, lease_ends_at=LATER)
    await insert(store, "desktop02", queued_at=T0)
    await insert(store, "desktop03", queued_at=T0 + timedelta(seconds=1))
    claims = {one.desktop.id: one for one in await claim(store)}
    async with store.begin(write=True) as tx:
        place = await tx.desktops.admit(claims[DesktopId("desktop03")], TOTAL, T0)
        assert place is not None
        assert (place.place, place.expected_at) == (2, LATER)
        assert "vcpus" in place.lacking
        assert await tx.desktops.wake_waiting(LATER) == 2


async def test_the_watchdog_wakes_only_ready_desktops_with_silent_guests(store: SqlStore) -> None:
    await insert(store, "desktop01", phase=Phase.READY, due_at=LATER)
    await insert(store, "desktop02", phase=Phase.STOPPED, due_at=LATER)
    async with store.begin(write=True) as tx:
        for name in ("desktop01", "desktop02"):
            await tx.guests.put(make_guest(name.encode() * 3, desktop_id=DesktopId(name), seen_at=T0))
        assert await tx.desktops.wake_silent(T0, SOON) == 0
        assert await tx.desktops.wake_silent(T0 + timedelta(seconds=1), SOON) == 1
        assert await tx.desktops.wake_silent(T0 + timedelta(seconds=1), SOON) == 0
    assert (await get(store, "desktop01")).due_at == SOON


async def test_claims_are_renewed_together_and_lost_ones_are_told(store: SqlStore) -> None:
    await insert(store, "desktop01", "desktop02", "desktop03")
    mine = await claim(store, limit=2)
    (other,) = await claim(store, token="t2")
    stale = replace(mine[0], desktop=other.desktop)
    async with store.begin(write=True) as tx:
        assert await tx.desktops.renew_all((*mine, stale), LATER) == {one.desktop.id for one in mine}
        assert await tx.desktops.renew_all((), LATER) == frozenset()
    (free,) = await claim(store, token="t3", now=SOON + timedelta(seconds=1), until=LATER)
    assert free.desktop.id == other.desktop.id


async def test_news_wakes_what_is_on_its_way_and_nothing_else(store: SqlStore) -> None:
    phases = (Phase.BUILDING, Phase.DELETING, Phase.READY, Phase.QUEUED)
    for number, phase in enumerate(phases):
        await insert(store, f"desktop0{number}", phase=phase, due_at=LATER)
    async with store.begin(write=True) as tx:
        assert await tx.desktops.moves()
        named = frozenset({DesktopId("desktop00"), DesktopId("desktop02"), DesktopId("nobody")})
        assert await tx.desktops.wake_moving(SOON, named) == 1
        assert await tx.desktops.wake_moving(SOON, None) == 2
    assert [(await get(store, f"desktop0{number}")).due_at for number in range(4)] == [SOON, SOON, LATER, LATER]


async def test_nothing_moves_where_everything_rests(store: SqlStore) -> None:
    await insert(store, "desktop01", phase=Phase.READY)
    await insert(store, "desktop02", phase=Phase.QUEUED)
    async with store.begin() as tx:
        assert not await tx.desktops.moves()


async def test_news_during_a_pass_is_looked_at_after_it(store: SqlStore) -> None:
    await insert(store, "desktop01")
    (claimed,) = await claim(store)
    async with store.begin(write=True) as tx:
        assert await tx.desktops.wake_moving(SOON, frozenset({claimed.desktop.id})) == 1
        building = replace(claimed.desktop, phase=Phase.BUILDING, due_at=LATER)
        assert await tx.desktops.apply(claimed, outcome_of(building), SOON)
    assert (await get(store, "desktop01")).due_at == SOON


async def test_woken_desktops_are_claimed_before_those_that_wait_in_line(store: SqlStore) -> None:
    await insert(store, "desktop01", "desktop02", "desktop03")
    async with store.begin(write=True) as tx:
        await tx.desktops.wake(DesktopId("desktop03"), SOON)
    async with store.begin(write=True) as tx:
        woken = await tx.desktops.claim(token="t1", now=SOON, until=LATER, limit=9, woken_only=True)
    assert [one.desktop.id for one in woken] == ["desktop03"]
    async with store.begin(write=True) as tx:
        await tx.desktops.wake(DesktopId("desktop02"), SOON)
    assert [one.desktop.id for one in await claim(store, now=SOON, until=LATER, limit=1)] == ["desktop02"]


async def test_may_be_due_is_never_false_where_a_claim_takes_something(store: SqlStore, other: SqlStore, url: str) -> None:
    unsure = url.startswith("postgresql")

    async def asked(at: timedelta = timedelta()) -> bool:
        return await other.may_be_due(T0 + at)

    assert await asked() is unsure
    await insert(store, "desktop01", due_at=T0 + timedelta(microseconds=1))
    assert await asked() is unsure
    assert await asked(timedelta(microseconds=1))
    assert await asked(timedelta(seconds=1)), "a time without a fraction beside one with"
    (held,) = await claim(store, now=SOON, until=LATER)
    assert await asked(SOON - T0) is unsure, "somebody has it"
    assert await asked(LATER - T0), "a claim that is over"
    async with store.begin(write=True) as tx:
        await tx.desktops.apply(held, replace(outcome_of(held.desktop), due_at=LATER), SOON)
    assert await asked(SOON - T0) is unsure
    async with store.begin(write=True) as tx:
        await tx.desktops.wake(DesktopId("desktop01"), SOON)
    assert await asked(SOON - T0)


async def test_waiting_ends_soon_after_another_process_writes(store: SqlStore, other: SqlStore) -> None:
    loop = asyncio.get_running_loop()
    waiting = asyncio.create_task(other.wait_for_events(EventId(0), 10))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    async with store.begin(write=True) as tx:
        await tx.events.add(T0, NewEvent(EventKind.SIGNED_IN))
    began = loop.time()
    await waiting
    assert loop.time() - began < 1.0
    await other.wait_for_events(EventId(0), 10)
    began = loop.time()
    await other.wait_for_events(EventId(1), 0.2)
    assert loop.time() - began >= 0.19


async def test_waiting_for_work_ends_when_a_row_becomes_due(store: SqlStore, other: SqlStore) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(3):  # let the watcher get up
        await other.wait_for_work(0.2)
    began = loop.time()
    waiting = asyncio.create_task(other.wait_for_work(10))
    await insert(store, "desktop01")
    await waiting
    assert loop.time() - began < 1.0
