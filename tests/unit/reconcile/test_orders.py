"""A storm on a slow cloud: orders wait for each other, none is given up for that, and no more are given at once than may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from beamdesk.adapters.fake.cloud import FakeCloud, FakeTimes
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.domain.desktop import Desired, Phase, Reason
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.server import Server
from beamdesk.ports.cloud import ServerSpec
from beamdesk.reconcile.main import run
from beamdesk.reconcile.rules import ReconcileRules
from engine_kit import make_desktop

pytestmark = pytest.mark.anyio
ORDERS = 2
PATIENCE = timedelta(milliseconds=200)
NAMES = tuple(DesktopId(f"desktop{number:02}") for number in range(16))


class SlowCloud(FakeCloud):
    """Takes its time for each order, and notes how many it has at once."""

    def __init__(self, build_s: float = 60) -> None:
        super().__init__(SystemClock(), times=FakeTimes(build=build_s), capacity=None)
        self.orders: list[DesktopId] = []
        self.most = self.now = 0

    async def create_server(self, spec: ServerSpec) -> Server:
        self.orders.append(spec.desktop_id)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.5)  # longer than people wait without a word
            return await super().create_server(spec)
        finally:
            self.now -= 1


async def storm(store: SqlStore, cloud: SlowCloud, stop: asyncio.Event) -> None:
    usual = ReconcileRules()
    timings = replace(usual.timings, patience=PATIENCE)
    rules = replace(usual, timings=timings, concurrency=4, orders=ORDERS, tick=PATIENCE / 2, call_timeout=timedelta(seconds=1.5))
    async with store.begin(write=True) as tx:
        for name in NAMES:
            await tx.desktops.insert(make_desktop(name, SystemClock().now()))
    await run(store, cloud, SystemClock(), SystemSecrets(), rules, stop)


async def patience() -> AsyncIterator[None]:
    async with asyncio.timeout(20):
        while True:
            yield
            await asyncio.sleep(0.1)


async def phases(store: SqlStore) -> set[Phase]:
    async with store.begin() as tx:
        return set((await tx.desktops.phases()).values())


async def test_a_storm_is_ordered_by_and_by_and_no_order_is_given_twice(store: SqlStore) -> None:
    cloud, stop = SlowCloud(), asyncio.Event()
    working = asyncio.create_task(storm(store, cloud, stop))
    async for _ in patience():
        if len(cloud.orders) >= len(NAMES) and await phases(store) == {Phase.BUILDING}:
            break
    stop.set()
    await working
    assert sorted(cloud.orders) == list(NAMES), "one order each: none was given up because others were before it"
    assert cloud.most == ORDERS


async def test_a_server_that_runs_is_told_while_others_stand_in_line(store: SqlStore) -> None:
    cloud, stop = SlowCloud(build_s=0.1), asyncio.Event()
    working = asyncio.create_task(storm(store, cloud, stop))
    async for _ in patience():
        if Phase.BOOTING in await phases(store):
            break
    waiting = len(NAMES) - len(cloud.orders)
    stop.set()
    await working
    assert waiting > len(NAMES) / 2


async def test_what_nobody_wants_any_more_when_its_turn_comes_is_not_ordered(store: SqlStore) -> None:
    cloud, stop = SlowCloud(), asyncio.Event()
    working = asyncio.create_task(storm(store, cloud, stop))
    await asyncio.sleep(1.5)  # all stand in line by now
    unwanted = max(set(NAMES) - set(cloud.orders))
    async with store.begin(write=True) as tx:
        await tx.desktops.change_intent(unwanted, now=SystemClock().now(), desired=Desired.DELETED, reason=Reason.USER)
    async for _ in patience():
        if len(set(cloud.orders)) >= len(NAMES) - 1 and unwanted not in await known(store):
            break
    stop.set()
    await working
    assert unwanted not in cloud.orders


async def known(store: SqlStore) -> frozenset[DesktopId]:
    async with store.begin() as tx:
        return await tx.desktops.known_ids()
