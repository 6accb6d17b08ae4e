"""The sweeper removes what is provably left over, wakes what drifted, and touches nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from beamdesk.adapters.fake.cloud import FakeCloud
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.desktop import Desired
from beamdesk.domain.events import EventKind
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.server import Observation
from beamdesk.ports.cloud import ServerAccount, ServerSpec
from engine_kit import FrozenClock
from engine_stage import NAMES, RULES, Stage

pytestmark = pytest.mark.anyio


@pytest.fixture
def stage(store: SqlStore) -> Stage:
    return Stage(store, FrozenClock(), racy=False)


def spec(desktop_id: str) -> ServerSpec:
    return ServerSpec(DesktopId(desktop_id), "0" * 16, 1, 1024, 1, 0, ServerAccount("ada", 20001, 20001, (), "Ada"), (), "n")


async def removed_desktop(stage: Stage, number: int) -> DesktopId:
    await stage.apply_for(number)
    await stage.want(number, Desired.DELETED)
    await stage.settle()
    return DesktopId(NAMES[number])


async def sweep_kinds(store: SqlStore) -> list[EventKind]:
    async with store.begin() as tx:
        return [event.kind for event in await tx.events.page() if event.kind.startswith("sweeper")]


async def test_a_server_of_a_removed_desktop_goes_when_it_is_old(stage: Stage, store: SqlStore) -> None:
    gone = await removed_desktop(stage, 0)
    await stage.cloud.create_server(spec(gone))  # a zombie's last call
    await stage.sweeper.sweep()
    assert stage.cloud.world.state.servers, "too young"
    stage.clock.advance(RULES.sweep_min_age.total_seconds() + 1)
    await stage.sweeper.sweep()
    stage.clock.advance(1)
    await stage.sweeper.sweep()
    assert (stage.cloud.world.state.servers, stage.cloud.world.state.homes) == ({}, {})
    assert await sweep_kinds(store) == [EventKind.SWEEPER_REMOVED] * 2


async def test_a_desktop_that_goes_while_the_cloud_is_listed_left_nothing(stage: Stage, store: SqlStore) -> None:
    await stage.apply_for(0)
    await stage.settle()
    await stage.want(0, Desired.DELETED)
    list_servers = stage.cloud.list_servers

    async def list_slowly() -> Observation:
        listed = await list_servers()
        stage.clock.advance(10_000)
        await stage.settle()
        return listed

    stage.cloud.list_servers = list_slowly  # type: ignore[method-assign]
    await stage.sweeper.sweep()
    async with store.begin() as tx:
        assert not await tx.desktops.known_ids()
    assert await sweep_kinds(store) == []


async def test_nothing_is_removed_after_a_database_was_restored(stage: Stage, store: SqlStore) -> None:
    for number in range(9):
        await stage.cloud.create_server(spec(f"newerthan{number}"))
    for _ in range(3):
        stage.clock.advance(10_000)
        await stage.sweeper.sweep()
    assert len(stage.cloud.world.state.servers) == 9
    assert await sweep_kinds(store) == [EventKind.SWEEPER_ALARM] * 9, "told once each"


async def test_other_deployments_are_not_seen(stage: Stage, store: SqlStore) -> None:
    gone = await removed_desktop(stage, 0)
    other = FakeCloud(stage.clock, world=stage.cloud.world, deployment_id="another")
    await other.create_server(spec(gone))
    stage.clock.advance(10_000)
    await stage.sweeper.sweep()
    assert len(stage.cloud.world.state.servers) == 1
    assert await sweep_kinds(store) == []


async def test_half_a_list_removes_nothing(stage: Stage, store: SqlStore) -> None:
    gone = await removed_desktop(stage, 0)
    await stage.cloud.create_server(spec(gone))
    stage.clock.advance(10_000)
    stage.spoil("incomplete")
    await stage.sweeper.sweep()
    assert len(stage.cloud.world.state.servers) == 1


async def test_a_few_a_run(stage: Stage) -> None:
    for number in range(len(NAMES)):
        await stage.cloud.create_server(spec(await removed_desktop(stage, number)))
    stage.clock.advance(10_000)
    stage.sweeper._rules = type(RULES)(**{**{name: getattr(RULES, name) for name in RULES.__slots__}, "sweep_most": 1})
    await stage.sweeper.sweep()
    stage.clock.advance(1)
    assert len((await stage.cloud.list_servers()).servers) == len(NAMES) - 1


async def test_a_stopped_desktop_whose_server_runs_is_looked_at(stage: Stage, store: SqlStore) -> None:
    await stage.apply_for(0)
    await stage.settle()
    await stage.want(0, Desired.STOPPED)
    await stage.settle()
    (server,) = stage.cloud.world.state.servers.values()
    server.off = False  # somebody started it in the cloud's own dashboard
    await stage.sweeper.sweep()
    await stage.settle()
    assert server.off


async def test_a_cloud_that_does_not_answer_ends_the_run(stage: Stage, store: SqlStore) -> None:
    stage.cloud.faults.unreachable = True
    await stage.sweeper.sweep()
    assert await sweep_kinds(store) == []


async def test_a_run_costs_a_constant_number_of_calls(stage: Stage, store: SqlStore) -> None:
    calls: list[str] = []

    async def note(call: str, moment: str) -> None:
        if moment == "before":
            calls.append(call)

    for number in range(3):
        await stage.apply_for(number)
    await stage.settle()
    stage.cloud._pause = note
    await stage.sweeper.sweep()
    assert calls == ["list_servers", "list_homes"]
    await stage.sweeper.sweep()
    assert calls == ["list_servers", "list_homes", "list_servers"], "homes can wait while nothing is left of anybody"
    stage.clock.advance(RULES.sweep_homes.total_seconds())
    await stage.sweeper.sweep()
    assert calls[3:] == ["list_servers", "list_homes"]


async def test_once_something_is_left_every_run_looks_closely_until_nothing_is(stage: Stage) -> None:
    await stage.sweeper.sweep()
    gone = await removed_desktop(stage, 0)
    await stage.cloud.create_server(spec(gone))
    for _ in range(4):  # too young; the server goes; the home; nothing is left
        await stage.sweeper.sweep()
        stage.clock.advance((RULES.sweep_min_age if not stage.sweeper._homes_at else RULES.sweep).total_seconds() + 1)
    assert (stage.cloud.world.state.servers, stage.cloud.world.state.homes) == ({}, {})


async def test_events_are_kept_for_their_time_and_no_longer(stage: Stage, store: SqlStore) -> None:
    stage.sweeper._rules = replace(RULES, keep_events=timedelta(days=30))
    await stage.apply_for(0)
    await stage.settle()
    stage.clock.advance(29 * 86400)
    await stage.sweeper.sweep()
    async with store.begin() as tx:
        assert len(await tx.events.page()) > 2
    stage.clock.advance(2 * 86400)
    await stage.sweeper.sweep()
    async with store.begin() as tx:
        assert len(await tx.events.page(newest_first=False)) == 1
