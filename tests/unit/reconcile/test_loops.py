"""The reconciler's loops as they run in production, on the real clock, with the fake cloud and its guests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from beamdesk.adapters.fake.cloud import FakeCloud
from beamdesk.adapters.fake.guest import FakeGuests
from beamdesk.adapters.sql.store import SqlStore, SqlTransaction
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.domain.desktop import Desktop, Phase, Reason
from beamdesk.domain.events import EventKind
from beamdesk.domain.ids import DesktopId, EventId
from beamdesk.reconcile.main import run
from beamdesk.reconcile.rules import ReconcileRules
from engine_kit import add_people, make_desktop

pytestmark = pytest.mark.anyio
FIRST = DesktopId("desktop01")


class Engine:
    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.clock = SystemClock()
        self.cloud = FakeCloud(self.clock)
        self.guests = FakeGuests(store, self.cloud.world, self.clock, SystemSecrets(), step_s=0.02)
        self.stop = asyncio.Event()

    async def run(self) -> None:
        reconciler = run(self.store, self.cloud, self.clock, SystemSecrets(), ReconcileRules(), self.stop)
        await asyncio.gather(reconciler, self.guests.run(self.stop))

    async def apply(self) -> None:
        async with self.store.begin(write=True) as tx:
            await tx.desktops.insert(make_desktop(FIRST, self.clock.now()))

    async def until(self, phase: Phase, seconds: float) -> Desktop:
        async with asyncio.timeout(seconds):
            while True:
                async with self.store.begin() as tx:
                    desktop = await tx.desktops.get(FIRST)
                if desktop is not None and desktop.phase is phase:
                    return desktop
                await asyncio.sleep(0.02)

    async def told(self, phase: Phase, seconds: float) -> object:
        """Follow the events until one tells this phase (a phase may be over sooner than somebody looks); return its reason."""
        last = EventId(0)
        async with asyncio.timeout(seconds):
            while True:
                async with self.store.begin() as tx:
                    events = await tx.events.page(after=last, newest_first=False)
                for event in events:
                    if event.kind is EventKind.DESKTOP_PHASE and event.data["phase"] == phase:
                        return event.data["reason"]
                last = events[-1].id if events else last
                await self.store.wait_for_events(last, 1)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    store = await SqlStore.open(f"sqlite+aiosqlite:///{tmp_path}/store.db")
    await add_people(store)
    made = Engine(store)
    running = asyncio.create_task(made.run())
    yield made
    made.stop.set()
    async with asyncio.timeout(10):
        await running
    await store.close()


async def test_a_desktop_is_ready_soon_and_its_guest_is_watched(engine: Engine) -> None:
    await engine.apply()
    await engine.until(Phase.READY, 10)
    engine.guests.silent.add(FIRST)
    assert await engine.told(Phase.REPAIRING, 10) == Reason.GUEST_SILENT
    engine.guests.silent.clear()
    repaired = await engine.until(Phase.READY, 10)
    assert repaired.repairs == 1


async def test_a_guest_that_gives_up_is_told_within_seconds(engine: Engine) -> None:
    await engine.apply()
    await engine.until(Phase.READY, 10)
    engine.guests.failing[FIRST] = "The X server ended."
    failed = await engine.until(Phase.FAILED, 5)
    assert (failed.reason, failed.detail) == (Reason.GUEST_FAILED, "The X server ended.")


async def test_a_lost_server_is_noticed_and_made_again(engine: Engine) -> None:
    await engine.apply()
    await engine.until(Phase.READY, 10)
    engine.cloud.kill(FIRST)
    assert await engine.told(Phase.REPAIRING, 10) == Reason.SERVER_LOST
    await engine.until(Phase.READY, 10)


async def test_a_reconciler_with_nothing_to_do_takes_no_write_lock_and_still_hears_at_once(tmp_path: Path) -> None:
    writes, wrote = 0, asyncio.Event()

    class Counted(SqlStore):
        @asynccontextmanager
        async def begin(self, *, write: bool = False) -> AsyncIterator[SqlTransaction]:
            nonlocal writes
            writes += write
            if write:
                wrote.set()
            async with super().begin(write=write) as tx:
                yield tx

    url, hour, clock, stop = f"sqlite+aiosqlite:///{tmp_path}/store.db", timedelta(hours=1), SystemClock(), asyncio.Event()
    store, elsewhere = await Counted.open(url), await SqlStore.open(url)
    await add_people(elsewhere)
    rules = replace(ReconcileRules(), poll=timedelta(milliseconds=20), watchdog=hour, sweep=hour)
    running = asyncio.create_task(run(store, FakeCloud(clock), clock, SystemSecrets(), rules, stop))
    await asyncio.sleep(0.5)  # the watchdog and the sweeper have looked once
    writes = 0
    wrote.clear()
    await asyncio.sleep(0.5)
    assert writes == 0
    async with elsewhere.begin(write=True) as tx:
        await tx.desktops.insert(make_desktop(FIRST, clock.now()))
    async with asyncio.timeout(5):
        await wrote.wait()
    stop.set()
    await running
    await store.close()
    await elsewhere.close()
