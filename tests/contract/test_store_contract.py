"""The store's contract, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Phase, Reason
from beamdesk.domain.errors import NotFound, StaleWrite
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId, EventId, PersonId, SessionId
from beamdesk.domain.session import Login, Session, Ticket, ViewerRole
from beamdesk.ports.store import Claimed
from beamdesk.protocol.guest import NO_CARD_WORKS, Step, StepName, StepState
from beamdesk.reconcile.apply import outcome_of
from engine_kit import ADA, EXPERIMENT, T0, add_people, make_desktop
from postgres import Postgres, running_postgres

pytestmark = pytest.mark.anyio
TOTAL = Resources(8, 16384, 100, 1)
SOON = T0 + timedelta(seconds=10)
LATER = T0 + timedelta(minutes=5)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/store.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    opened = await SqlStore.open(url)
    await add_people(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def other(url: str, store: SqlStore) -> AsyncIterator[SqlStore]:
    """The store of another process."""
    opened = await SqlStore.open(url)
    yield opened
    await opened.close()


async def insert(store: SqlStore, *ids: str, **changes: object) -> None:
    async with store.begin(write=True) as tx:
        for desktop_id in ids:
            await tx.desktops.insert(make_desktop(desktop_id, **changes))


async def claim(store: SqlStore, token: str = "t1", now=T0, until=SOON, limit: int = 10) -> tuple[Claimed, ...]:
    async with store.begin(write=True) as tx:
        return await tx.desktops.claim(token=token, now=now, until=until, limit=limit)


async def get(store: SqlStore, desktop_id: str):
    async with store.begin() as tx:
        return await tx.desktops.get(DesktopId(desktop_id))


async def test_a_desktop_comes_back_as_it_was_written(store: SqlStore) -> None:
    await insert(store, "desktop01")
    assert await get(store, "desktop01") == make_desktop("desktop01")


async def test_an_exception_rolls_everything_back(store: SqlStore) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  # what the block did is what must not stay
        async with store.begin(write=True) as tx:
            await tx.desktops.insert(make_desktop())
            await tx.events.add(T0, NewEvent(EventKind.DESKTOP_CREATED))
            raise ZeroDivisionError
    async with store.begin() as tx:
        assert await tx.desktops.known_ids() == frozenset()
        assert await tx.events.last_id() == 0


async def test_a_write_without_announcement_is_refused(store: SqlStore) -> None:
    with pytest.raises(RuntimeError, match="write=True"):
        async with store.begin() as tx:
            await tx.desktops.insert(make_desktop())
    with pytest.raises(RuntimeError, match="write=True"):
        async with store.begin() as tx:
            await tx.events.add(T0, NewEvent(EventKind.DESKTOP_CREATED))


async def test_the_same_key_returns_the_same_desktop_even_after_its_removal(store: SqlStore) -> None:
    async with store.begin(write=True) as tx:
        await tx.desktops.insert(make_desktop("desktop01"), idempotency_key="k")
        again = await tx.desktops.insert(make_desktop("desktop02"), idempotency_key="k")
        assert again.id == "desktop01"
    (claimed,) = await claim(store)
    async with store.begin(write=True) as tx:
        assert await tx.desktops.remove(claimed, T0)
    async with store.begin(write=True) as tx:
        again = await tx.desktops.insert(make_desktop("desktop03"), idempotency_key="k")
        assert (again.id, again.phase, again.desired) == ("desktop01", Phase.DELETING, Desired.DELETED)
        assert (again.created_at, again.resources) == (T0, make_desktop().resources)
        assert await tx.desktops.known_ids() == frozenset()


async def test_two_requests_with_one_key_at_the_same_time_make_one_desktop(store: SqlStore, other: SqlStore) -> None:
    async def apply(where: SqlStore, desktop_id: str) -> str:
        async with where.begin(write=True) as tx:
            return (await tx.desktops.insert(make_desktop(desktop_id), idempotency_key="k")).id

    winners = await asyncio.gather(*(apply(where, f"desktop{n}{where is store:d}") for n in range(5) for where in (store, other)))
    assert len(set(winners)) == 1


async def test_pages_are_newest_first_and_go_on_after_a_removed_row(store: SqlStore) -> None:
    for number in range(5):
        await insert(store, f"desktop0{number}", now=T0 + timedelta(seconds=number // 2))
    async with store.begin() as tx:
        first = await tx.desktops.page(owner=ADA.id, limit=2)
        assert [one.id for one in first] == ["desktop04", "desktop03"]
    claimed = next(one for one in await claim(store, now=LATER, until=LATER) if one.desktop.id == "desktop03")
    async with store.begin(write=True) as tx:
        await tx.desktops.remove(claimed, T0)
        rest = await tx.desktops.page(experiments=(EXPERIMENT.id,), after="desktop03")
        assert [one.id for one in rest] == ["desktop02", "desktop01", "desktop00"]
        assert await tx.desktops.page(owner=PersonId("nobody")) == ()
        assert await tx.desktops.page(experiments=()) == ()
        assert len(await tx.desktops.page()) == 4


async def test_usage_counts_rows_and_running_resources(store: SqlStore) -> None:
    await insert(store, "desktop01", "desktop02")
    await insert(store, "desktop03", desired=Desired.STOPPED)
    await insert(store, "desktop04", desired=Desired.DELETED)
    async with store.begin() as tx:
        usage = await tx.desktops.usage(owner=ADA.id)
        assert (usage.desktops, usage.resources) == (3, Resources(2, 4096, 20, 0))
        assert (await tx.desktops.usage(experiment=EXPERIMENT.id)).desktops == 3
        assert (await tx.desktops.usage(owner=PersonId("nobody"))).resources == Resources()


async def test_an_intent_grows_generation_and_version_and_makes_the_row_due(store: SqlStore) -> None:
    await insert(store, "desktop01", due_at=LATER)
    async with store.begin(write=True) as tx:
        changed = await tx.desktops.change_intent(DesktopId("desktop01"), now=SOON, desired=Desired.STOPPED, expected_version=1)
        assert (changed.generation, changed.version, changed.due_at, changed.desired_generation) == (2, 2, SOON, 2)
        with pytest.raises(StaleWrite):
            await tx.desktops.change_intent(DesktopId("desktop01"), now=SOON, name="x", expected_version=1)
        with pytest.raises(NotFound):
            await tx.desktops.change_intent(DesktopId("desktop99"), now=SOON, name="x", expected_version=1)
        renamed = await tx.desktops.change_intent(DesktopId("desktop01"), now=SOON, name="New", lease_ends_at=LATER)
        assert (renamed.name, renamed.lease_ends_at, renamed.desired, renamed.desired_generation) == (
            "New",
            LATER,
            Desired.STOPPED,
            2,
        )


async def test_wanted_deleted_stays_wanted_deleted(store: SqlStore) -> None:
    await insert(store, "desktop01")
    async with store.begin(write=True) as tx:
        await tx.desktops.change_intent(DesktopId("desktop01"), now=T0, desired=Desired.DELETED, reason=Reason.OPERATOR)
        again = await tx.desktops.change_intent(DesktopId("desktop01"), now=T0, desired=Desired.RUNNING)
    assert (again.desired, again.desired_reason) == (Desired.DELETED, Reason.OPERATOR)


async def test_the_guest_of_a_desktop_that_is_gone_is_not_kept(store: SqlStore) -> None:
    with pytest.raises(LookupError):
        async with store.begin(write=True) as tx:
            await tx.guests.put(make_guest())
    async with store.begin() as tx:
        assert await tx.guests.get(make_guest().desktop_id) is None


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


async def test_removal_leaves_proof_and_ends_sessions(store: SqlStore) -> None:
    await insert(store, "desktop01")
    (claimed,) = await claim(store)
    async with store.begin(write=True) as tx:
        await tx.guests.put(make_guest())
        await tx.sessions.insert_session(make_session())
        await tx.desktops.remove(claimed, SOON)
    async with store.begin() as tx:
        asked = frozenset({DesktopId("desktop01"), DesktopId("stranger1")})
        assert await tx.desktops.removed_among(asked) == {"desktop01"}
        assert await tx.desktops.removed_among(frozenset()) == frozenset()
        assert await tx.guests.get(DesktopId("desktop01")) is None
        (ended,) = await tx.sessions.ended_among((SessionId("session1"),), T0)
        assert ended.end_reason == "deleted"


def make_guest(nonce: bytes = b"n" * 32, **changes: object) -> Guest:
    return replace(Guest(DesktopId("desktop01"), nonce, SOON, None, "stream-secret"), **changes)


async def test_a_nonce_is_spent_once(store: SqlStore, other: SqlStore) -> None:
    await insert(store, "desktop01")
    async with store.begin(write=True) as tx:
        await tx.guests.put(make_guest())

    async def spend(where: SqlStore, token: bytes) -> bool:
        async with where.begin(write=True) as tx:
            return await tx.guests.spend_nonce(b"n" * 32, token, T0) is not None

    tries = await asyncio.gather(*(spend((store, other)[n % 2], bytes([n]) * 32) for n in range(6)))
    assert sum(tries) == 1
    async with store.begin() as tx:
        winner = bytes([tries.index(True)]) * 32
        guest = await tx.guests.by_token(winner)
        assert guest is not None
        assert (guest.nonce_hash, guest.enrolled_at, guest.seen_at) == (None, T0, T0)


async def test_an_expired_unknown_or_forgotten_nonce_is_refused(store: SqlStore) -> None:
    await insert(store, "desktop01")
    async with store.begin(write=True) as tx:
        await tx.guests.put(make_guest())
        assert await tx.guests.spend_nonce(b"x" * 32, b"t" * 32, T0) is None
        assert await tx.guests.spend_nonce(b"n" * 32, b"t" * 32, SOON) is None
        await tx.guests.remove(DesktopId("desktop01"))
        assert await tx.guests.spend_nonce(b"n" * 32, b"t" * 32, T0) is None
        await tx.guests.put(make_guest(b"m" * 32))
        assert await tx.guests.spend_nonce(b"n" * 32, b"t" * 32, T0) is None


async def test_every_nonce_that_a_server_may_have_works_and_one_spends_all(store: SqlStore) -> None:
    await insert(store, "desktop01")
    async with store.begin(write=True) as tx:
        await tx.guests.put(make_guest(b"1" * 32))
        await tx.guests.put(make_guest(b"2" * 32))
        assert await tx.guests.spend_nonce(b"1" * 32, b"t" * 32, T0) is not None
        assert await tx.guests.spend_nonce(b"2" * 32, b"u" * 32, T0) is None


async def test_reports_and_thumbnails(store: SqlStore) -> None:
    await insert(store, "desktop01")
    steps = (Step(StepName.ENROL, StepState.DONE), Step(StepName.DISPLAY, StepState.FAILED, "no X"))
    async with store.begin(write=True) as tx:
        desktop_id = DesktopId("desktop01")
        await tx.guests.put(make_guest())
        await tx.guests.report(desktop_id, now=SOON, steps=steps, failure="no X", input_idle_s=3.5, cpu=0.5, gpu=0.1)
        guest = await tx.guests.get(desktop_id)
        assert guest is not None
        assert (guest.steps, guest.failure, guest.seen_at, guest.cpu) == (steps, "no X", SOON, 0.5)
        assert await tx.guests.thumbnail(desktop_id) is None
        await tx.guests.put_thumbnail(desktop_id, "image/jpeg", b"one", T0)
        await tx.guests.put_thumbnail(desktop_id, "image/jpeg", b"two", SOON)
        assert await tx.guests.thumbnail(desktop_id) == ("image/jpeg", b"two", SOON)
        await tx.guests.report(DesktopId("gone"), now=SOON, steps=(), failure="", input_idle_s=0, cpu=0, gpu=0)


async def test_the_guests_of_several_desktops_are_read_at_once(store: SqlStore) -> None:
    for name in ("desktop01", "desktop02", "desktop03"):
        await insert(store, name)
    async with store.begin(write=True) as tx:
        for name in ("desktop01", "desktop03"):
            await tx.guests.put(replace(make_guest(name.encode() * 3), desktop_id=DesktopId(name)))
        found = await tx.guests.many([DesktopId(name) for name in ("desktop01", "desktop02", "gone")])
        assert {key: guest.desktop_id for key, guest in found.items()} == {"desktop01": "desktop01"}
        assert await tx.guests.many([]) == {}


async def test_how_a_card_is_used_may_be_unknown_and_the_last_work_is_remembered(store: SqlStore) -> None:
    await insert(store, "desktop01")

    async def told(now: datetime, gpu: float | None, *, worked: bool) -> tuple[float | None, datetime | None]:
        async with store.begin(write=True) as tx:
            await tx.guests.report(
                DesktopId("desktop01"), now=now, steps=(), failure="", input_idle_s=0, cpu=0, gpu=gpu, worked=worked
            )
            guest = await tx.guests.get(DesktopId("desktop01"))
            assert guest is not None
            return guest.gpu, guest.worked_at

    async with store.begin(write=True) as tx:
        await tx.guests.put(make_guest())
    assert await told(T0, 0.25, worked=False) == (0.25, None)
    assert await told(SOON, None, worked=True) == (None, SOON)
    assert await told(LATER, 0.0, worked=False) == (0.0, SOON)
    assert await told(LATER, NO_CARD_WORKS, worked=False) == (NO_CARD_WORKS, SOON)
    async with store.begin(write=True) as tx:
        await tx.guests.put(replace(make_guest(b"m" * 32), gpu=None, worked_at=LATER))
        guest = await tx.guests.get(DesktopId("desktop01"))
    assert guest is not None
    assert (guest.gpu, guest.worked_at) == (None, LATER)


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


def make_session(session_id: str = "session1", **changes: object) -> Session:
    base = Session(
        SessionId(session_id), DesktopId("desktop01"), ADA.id, "login1", ViewerRole.CONTROLLER, session_id.encode() * 4, T0, LATER
    )
    return replace(base, **changes)


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


async def test_people_and_experiments(store: SqlStore) -> None:
    async with store.begin(write=True) as tx:
        assert await tx.people.person(ADA.id) == ADA
        assert await tx.people.person_by_login("ada") == ADA
        assert await tx.people.person_by_login("Ada") is None
        assert await tx.people.experiment(EXPERIMENT.id) == EXPERIMENT
        assert await tx.people.experiments_of(ADA.id) == (EXPERIMENT,)
        await tx.people.put_person(replace(ADA, full_name="Ada L."))
        await tx.people.put_experiment(replace(EXPERIMENT, team=frozenset({PersonId("p-bob")})))
        assert await tx.people.experiments_of(ADA.id) == ()
        assert [one.team for one in await tx.people.all_experiments()] == [{"p-bob"}]
        assert (await tx.people.person(ADA.id)) == replace(ADA, full_name="Ada L.")
