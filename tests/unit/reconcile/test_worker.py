"""What a pass writes besides the phase: guests, sessions, events, intents."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Phase, Reason
from beamdesk.domain.events import EventKind
from beamdesk.domain.ids import DesktopId, ExperimentId, PersonId, SessionId
from beamdesk.domain.placement import Booking
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.session import Session, ViewerRole
from beamdesk.scheduling.vocabulary import Words
from engine_kit import ADA, EXPERIMENT, T0, FrozenClock, make_desktop
from engine_stage import NAMES, Stage

pytestmark = pytest.mark.anyio
FIRST = DesktopId(NAMES[0])


@pytest.fixture
def stage(store: SqlStore) -> Stage:
    return Stage(store, FrozenClock(), racy=False)


async def kinds(store: SqlStore) -> list[EventKind]:
    async with store.begin() as tx:
        return [event.kind for event in await tx.events.page(newest_first=False, limit=500)]


async def ready(stage: Stage, number: int = 0) -> None:
    await stage.apply_for(number)
    await stage.settle()


async def test_a_desktop_comes_up_and_tells_every_phase(stage: Stage, store: SqlStore) -> None:
    await ready(stage)
    async with store.begin() as tx:
        events = await tx.events.page(desktop_id=FIRST, newest_first=False)
    phases = [event.data["phase"] for event in events if event.kind is EventKind.DESKTOP_PHASE]
    assert phases == ["building", "booting", "ready"]
    assert {(event.owner, event.experiment) for event in events} == {(ADA.id, EXPERIMENT.id)}


async def test_the_server_gets_the_account_the_mounts_and_a_nonce_that_is_stored_hashed(stage: Stage, store: SqlStore) -> None:
    await stage.apply_for(0)
    await stage.whole_pass(0)
    (server,) = stage.cloud.world.state.servers.values()
    assert server.spec["account"] == {"login": "ada", "uid": 20001, "gid": 20001, "gids": (30147,), "full_name": "Ada Lin"}
    assert [(mount["experiment"], mount["area"], mount["writable"]) for mount in server.spec["mounts"]] == [
        ("heps-2026-0147", "raw", False),
        ("heps-2026-0147", "processed", True),
    ]
    async with store.begin() as tx:
        guest = await tx.guests.get(FIRST)
    assert guest is not None
    assert guest.nonce_hash == hash_secret(server.nonce)
    assert server.nonce not in repr(guest)


async def test_a_cloud_that_places_servers_itself_is_told_what_its_scheduler_needs(stage: Stage, store: SqlStore) -> None:
    ends, slot = T0 + timedelta(hours=8), (T0 + timedelta(hours=1), T0 + timedelta(hours=2))
    async with store.begin(write=True) as tx:
        for name, experiment in (("b1", EXPERIMENT.id), ("b2", "other"), ("b3", EXPERIMENT.id)):
            await tx.placing.put_booking(Booking(name, ExperimentId(experiment), "gpu", *slot, (), ADA.id, T0))
        words = Words(gpus=0, aggregates=frozenset({"B7"}))
        await tx.desktops.insert(make_desktop("desktop01", T0, words=words, resources=Resources(1, 2048, 10, 0)))
    await ready(stage)
    (server,) = stage.cloud.world.state.servers.values()
    until = str(int(ends.timestamp()))
    assert server.spec["hints"] == {"beamdesk_aggregates": "B7", "beamdesk_until": until, "beamdesk_booking": "b1|b3"}


async def test_an_owner_who_left_the_team_gets_no_server(stage: Stage, store: SqlStore) -> None:
    await stage.apply_for(0)
    async with store.begin(write=True) as tx:
        await tx.people.put_experiment(replace(EXPERIMENT, team=frozenset({PersonId("p-bob")})))
    (desktop,) = await stage.settle()
    assert (desktop.phase, desktop.reason) == (Phase.FAILED, Reason.CLOUD_REFUSED)
    assert "team" in desktop.detail
    assert stage.cloud.world.state.servers == {}
    assert not desktop.admitted


async def test_leaving_ready_ends_the_viewers_sessions_and_the_guests_identity(stage: Stage, store: SqlStore) -> None:
    await ready(stage)
    now = stage.clock.now()
    session = Session(SessionId("s1"), FIRST, ADA.id, "l1", ViewerRole.CONTROLLER, b"h" * 32, now, now + timedelta(days=1))
    async with store.begin(write=True) as tx:
        await tx.sessions.insert_session(session)
    stage.guests.silent.add(FIRST)
    stage.clock.advance(7)
    async with store.begin(write=True) as tx:
        assert await tx.desktops.wake_silent(stage.clock.now() - timedelta(seconds=3), stage.clock.now()) == 1
    await stage.whole_pass(0)
    async with store.begin() as tx:
        (ended,) = await tx.sessions.ended_among((SessionId("s1"),), stage.clock.now())
        desktop = await tx.desktops.get(FIRST)
        assert ended.end_reason == "guest_silent"
        assert (desktop.phase, desktop.address) == (Phase.REPAIRING, None)
        assert await tx.guests.get(FIRST) is None


async def test_the_end_of_the_lease_stops_the_desktop_and_says_so(stage: Stage, store: SqlStore) -> None:
    await ready(stage)
    await stage.end_lease(0)
    (desktop,) = await stage.settle()
    assert (desktop.desired, desktop.desired_reason, desktop.phase) == (Desired.STOPPED, Reason.LEASE_ENDED, Phase.STOPPED)
    assert desktop.reason is Reason.LEASE_ENDED
    assert stage.cloud.world.state.homes, "the home stays"
    assert EventKind.DESKTOP_INTENT in await kinds(store)


async def test_an_extension_in_the_last_moment_wins(stage: Stage, store: SqlStore) -> None:
    await ready(stage)
    await stage.end_lease(0)
    (claimed,) = await stage.worker.claim(1)
    async with store.begin(write=True) as tx:
        later = stage.clock.now() + timedelta(hours=4)
        await tx.desktops.change_intent(FIRST, now=stage.clock.now(), lease_ends_at=later)
    await stage.worker.process(claimed)
    (desktop,) = await stage.settle()
    assert (desktop.desired, desktop.phase) == (Desired.RUNNING, Phase.READY)


async def test_waiting_in_line_does_not_eat_up_the_lease(stage: Stage, store: SqlStore) -> None:
    async with store.begin(write=True) as tx:
        await tx.desktops.insert(make_desktop("holder001", stage.clock.now(), resources=Resources(2, 1024, 1, 0)))
    await stage.settle()
    await stage.apply_for(0)
    applied = stage.clock.now()
    await stage.settle()
    async with store.begin() as tx:
        waiting = await tx.desktops.get(FIRST)
    assert (waiting.phase, waiting.reason, waiting.queue.place) == (Phase.QUEUED, Reason.WAITING_FOR_CAPACITY, 1)
    assert waiting.queue.expected_at is not None
    stage.clock.advance(3600)
    async with store.begin(write=True) as tx:
        await tx.desktops.change_intent(DesktopId("holder001"), now=stage.clock.now(), desired=Desired.STOPPED)
    await stage.settle()
    async with store.begin() as tx:
        got = await tx.desktops.get(FIRST)
    assert got.phase is Phase.READY
    assert got.lease_ends_at >= applied + timedelta(hours=9)


async def test_what_never_fits_fails_at_once(stage: Stage, store: SqlStore) -> None:
    async with store.begin(write=True) as tx:
        await tx.desktops.insert(make_desktop("toolarge1", stage.clock.now(), resources=Resources(1, 1024, 1, 1)))
    await stage.whole_pass(0)
    async with store.begin() as tx:
        desktop = await tx.desktops.get(DesktopId("toolarge1"))
    assert (desktop.phase, desktop.reason) == (Phase.FAILED, Reason.NEVER_FITS)


async def test_a_delete_that_fails_is_not_recorded_as_done(stage: Stage, store: SqlStore) -> None:
    await ready(stage)
    for _ in range(3):
        stage.spoil("down delete_server")
        stage.spoil("refused delete_server")
    await stage.want(0, Desired.DELETED)
    for _ in range(6):
        await stage.whole_pass(0)
        stage.clock.advance(10)
    async with store.begin() as tx:
        desktop = await tx.desktops.get(FIRST)
    assert desktop.phase is Phase.DELETING
    assert desktop.reason in (Reason.CLOUD_UNAVAILABLE, Reason.CLOUD_REFUSED)
    assert await stage.settle() == []
    assert (stage.cloud.world.state.servers, stage.cloud.world.state.homes) == ({}, {})
    assert (await kinds(store))[-1] is EventKind.DESKTOP_DELETED


async def test_a_zombie_cannot_replace_the_guest_of_a_running_desktop(stage: Stage, store: SqlStore) -> None:
    await stage.apply_for(0)
    while True:  # until it has its share and is about to write the guest down
        await stage.step(0)
        async with store.begin() as tx:
            if (await tx.desktops.get(FIRST)).admitted:
                break
    stage.clock.advance(16)
    for _ in range(12):
        await stage.whole_pass(1)
        stage.clock.advance(0.3)
        await stage.guests.tick()
    async with store.begin() as tx:
        assert (await tx.desktops.get(FIRST)).phase is Phase.READY
        guest = await tx.guests.get(FIRST)
    await stage.finish()
    async with store.begin() as tx:
        assert await tx.guests.get(FIRST) == guest
    assert stage.cloud.world.state.created == 1
