"""Passes that wait for the cloud: they keep their claim, say so in time, and hold up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from beamdesk.adapters.fake.cloud import FakeCloud
from beamdesk.adapters.fake.guest import FakeGuests
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.domain.decision import Timings
from beamdesk.domain.desktop import Desktop, Phase, Reason
from beamdesk.domain.events import Event, EventKind
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.meanwhile import SLOW
from beamdesk.reconcile.main import run
from beamdesk.reconcile.rules import ReconcileRules
from beamdesk.reconcile.worker import Worker
from engine_kit import add_people, make_desktop

pytestmark = pytest.mark.anyio
FIRST = DesktopId("desktop01")
QUICK = replace(
    ReconcileRules(),
    timings=replace(Timings(), patience=timedelta(seconds=0.1), quiet=timedelta(seconds=0.3), late=timedelta(seconds=0.2)),
    tick=timedelta(seconds=0.05),
    claim=timedelta(seconds=0.3),
    call_timeout=timedelta(seconds=30),
    watchdog=timedelta(seconds=0.1),
    concurrency=2,
)
"""Production's order of times, a hundredth as long."""


class Holding:
    """A cloud whose reads wait for as long as it is told to."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self.asked = asyncio.Event()
        self.calls: list[str] = []

    async def __call__(self, call: str, moment: str) -> None:
        if moment == "before":
            self.calls.append(call)
            self.asked.set()
            await self.free.wait()


class Site:
    def __init__(self, store: SqlStore) -> None:
        self.store, self.clock = store, SystemClock()
        self.holding = Holding()
        self.cloud = FakeCloud(self.clock, pause=self.holding, capacity=None)

    def worker(self) -> Worker:
        return Worker(self.store, self.cloud, self.clock, SystemSecrets(), QUICK)

    async def add(self, *names: str) -> None:
        async with self.store.begin(write=True) as tx:
            for name in names:
                await tx.desktops.insert(make_desktop(DesktopId(name), self.clock.now()))

    async def get(self, name: str = FIRST) -> Desktop:
        async with self.store.begin() as tx:
            found = await tx.desktops.get(DesktopId(name))
        assert found is not None
        return found

    async def events(self) -> list[Event]:
        async with self.store.begin() as tx:
            return [one for one in await tx.events.page(newest_first=False) if one.kind is EventKind.DESKTOP_STEP]

    async def until_told(self, name: str = FIRST) -> Desktop:
        async with asyncio.timeout(20):
            while True:
                row = await self.get(name)
                if row.reason:
                    return row
                await asyncio.sleep(0.01)

    async def until(self, phase: Phase) -> None:
        async with asyncio.timeout(20):
            while True:
                if (await self.get()).phase is phase:
                    return
                await asyncio.sleep(0.01)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    store = await SqlStore.open(f"sqlite+aiosqlite:///{tmp_path}/store.db")
    await add_people(store)
    yield Site(store)
    await store.close()


async def test_a_pass_that_waits_says_so_and_takes_it_back_with_the_answer(site: Site) -> None:
    await site.add(FIRST)
    worker = site.worker()
    (claimed,) = await worker.claim(1)
    site.holding.free.clear()
    working = asyncio.create_task(worker.process(claimed))
    told = await site.until_told()
    assert (told.reason, told.detail, told.phase) == (Reason.CLOUD_BUSY, SLOW, Phase.QUEUED)
    site.holding.free.set()
    await working
    after = await site.get()
    assert (after.phase, after.reason, after.detail) == (Phase.BUILDING, Reason.NONE, "")
    assert after.version > told.version
    assert [event.data["reason"] for event in await site.events()] == [Reason.CLOUD_BUSY]


async def test_a_pass_that_waits_keeps_its_claim_and_one_that_died_does_not(site: Site) -> None:
    await site.add(FIRST)
    worker = site.worker()
    (claimed,) = await worker.claim(1)
    site.holding.free.clear()
    working = asyncio.create_task(worker.process(claimed))
    await site.until_told()
    await asyncio.sleep(2 * QUICK.claim.total_seconds())
    assert await site.worker().claim(1) == ()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await asyncio.sleep(1.1 * QUICK.claim.total_seconds())
    assert [one.desktop.id for one in await site.worker().claim(1)] == [FIRST]


async def test_who_lost_the_claim_writes_nothing(site: Site) -> None:
    await site.add(FIRST)
    worker = site.worker()
    (claimed,) = await worker.claim(1)
    site.holding.free.clear()
    working = asyncio.create_task(worker.process(claimed))
    await site.holding.asked.wait()
    async with site.store.begin(write=True) as tx:
        (taken,) = await tx.desktops.claim(token="other", now=claimed.until, until=claimed.until + timedelta(hours=1), limit=1)
    site.holding.free.set()
    assert await working is None
    assert await site.get() == taken.desktop


async def test_a_ready_desktop_whose_guest_is_silent_is_told_though_the_cloud_says_nothing(site: Site) -> None:
    stop = asyncio.Event()
    guests = FakeGuests(site.store, site.cloud.world, site.clock, SystemSecrets(), step_s=0.01)
    rules = replace(
        QUICK,
        timings=replace(QUICK.timings, silent=timedelta(seconds=60), late=timedelta(seconds=2.2), quiet=timedelta(seconds=2.5)),
    )
    await site.add(FIRST)
    reconciling = asyncio.gather(run(site.store, site.cloud, site.clock, SystemSecrets(), rules, stop), guests.run(stop))
    await site.until(Phase.READY)
    site.holding.free.clear()
    guests.silent.add(FIRST)
    told = await site.until_told()
    assert (told.phase, told.reason) == (Phase.READY, Reason.GUEST_SILENT)
    site.holding.free.set()
    stop.set()
    await reconciling


async def test_passes_that_wait_hold_up_nobody_and_once_known_the_silence_is_told_at_once(site: Site) -> None:
    names = [f"desktop{number:02d}" for number in range(1, 13)]
    await site.add(*names)
    stop = asyncio.Event()
    site.holding.free.clear()
    begun = asyncio.get_running_loop().time()
    reconciling = asyncio.create_task(run(site.store, site.cloud, site.clock, SystemSecrets(), QUICK, stop))
    for name in names:
        await site.until_told(name)
    waited = asyncio.get_running_loop().time() - begun
    told_at = sorted(event.at for event in await site.events())
    assert (told_at[-1] - told_at[0]).total_seconds() < waited, "told one pair after another"
    assert site.holding.calls.count("find_servers") == len(names), "everybody waits at the same time"
    site.holding.free.set()
    stop.set()
    await reconciling
