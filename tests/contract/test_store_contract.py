"""The store's contract, on SQLite and on a real PostgreSQL: desktops, people and experiments."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Phase, Reason, Shape
from beamdesk.domain.errors import NotFound, StaleWrite
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.ids import DesktopId, FlavorId, PersonId, SessionId
from beamdesk.scheduling.vocabulary import Words
from engine_kit import ADA, EXPERIMENT, T0, make_desktop
from storekit import LATER, SOON, claim, get, insert, make_guest, make_session

pytestmark = pytest.mark.anyio


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


async def test_another_shape_is_an_intent_that_asks_for_a_server_made_anew(store: SqlStore) -> None:
    await insert(store, "desktop01", desired=Desired.STOPPED)
    words = Words(gpus=1, aggregates=frozenset({"beamline-b7"}))
    shape = Shape("fresh-image", FlavorId("large"), Resources(8, 32768, 40, 1), words)
    async with store.begin(write=True) as tx:
        changed = await tx.desktops.change_intent(DesktopId("desktop01"), now=SOON, shape=shape)
        assert Shape(changed.image_ref, changed.flavor, changed.resources, changed.words) == shape
        assert (changed.generation, changed.fresh_generation, changed.server_generation, changed.outdated) == (2, 2, 0, True)
        assert (changed.desired, changed.desired_generation) == (Desired.STOPPED, 0), "nothing else is wanted than before"
        renamed = await tx.desktops.change_intent(DesktopId("desktop01"), now=SOON, name="New")
        assert (renamed.fresh_generation, renamed.flavor) == (2, "large")


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
