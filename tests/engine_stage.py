"""A stage for reconcilers: the test decides, call by call, who goes on, who dies, and what happens in between.

Every reconciler is an actor whose task stops before and after each cloud call and each transaction. The director lets one actor go
on at a time, so a run is decided by its schedule alone and can be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from beamdesk.adapters.fake.cloud import FakeCloud, FakeTimes
from beamdesk.adapters.fake.guest import FakeGuests
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Desktop, Phase, Shape
from beamdesk.domain.errors import CloudRefused, CloudUnavailable
from beamdesk.domain.events import EventKind
from beamdesk.domain.ids import DesktopId, FlavorId
from beamdesk.domain.lifecycle import TRANSITIONS
from beamdesk.domain.server import HostState, Remedy
from beamdesk.ports.cloud import Capacity, ServerStatus
from beamdesk.ports.store import Store, Transaction
from beamdesk.reconcile.rules import ReconcileRules
from beamdesk.reconcile.sweeper import Sweeper
from beamdesk.reconcile.worker import Worker
from engine_kit import ADA, EXPERIMENT, CountedSecrets, FrozenClock, add_people, make_desktop

RULES = replace(ReconcileRules(), call_timeout=timedelta(seconds=300), tick=timedelta(seconds=300))
"""Calls never time out here (a held actor is not a slow cloud), nor are claims renewed; they expire as they do in production."""
TOTAL = Capacity(vcpus=2, memory_mib=2 * 2048, disk_gib=100, gpus=0)
NAMES = ("desktop01", "desktop02", "desktop03", "desktop04")
_ALLOWED = {(one.source, one.to) for one in TRANSITIONS}
_ALIVE = (ServerStatus.BUILD, ServerStatus.ACTIVE)


class Crash(BaseException):
    """The process dies here: not an Exception, so that nobody handles it."""


class Actor:
    """A reconciler whose passes stop at every gate."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.at = ""
        self.task: asyncio.Task[None] | None = None
        self._gate: asyncio.Future[None] | None = None
        self._stopped = asyncio.Event()

    @property
    def busy(self) -> bool:
        return self.task is not None and not self.task.done()

    async def hold(self, where: str) -> None:
        """Wait here until the director says go on, or die."""
        self.at = where
        self._gate = asyncio.get_running_loop().create_future()
        self._stopped.set()
        try:
            await self._gate
        finally:
            self._gate = None

    def begin(self, work: Any) -> None:
        self._stopped.clear()
        self.task = asyncio.create_task(work, name=self.name)
        self.task.add_done_callback(lambda _: self._stopped.set())

    async def reached(self) -> None:
        """Wait until the actor is at a gate or has ended."""
        await self._stopped.wait()

    async def go(self, crash: BaseException | None = None) -> None:
        """Let the actor go on to its next gate or end; with ``crash`` it dies where it is."""
        await self._stopped.wait()
        if self._gate is None or self.task is None or self.task.done():
            return
        self._stopped.clear()
        self._gate.set_exception(crash) if crash else self._gate.set_result(None)
        await self._stopped.wait()
        if self.task.done() and not self.task.cancelled():
            error = self.task.exception()
            if error is not None and not isinstance(error, Crash):
                raise error


class Stage:
    """The world and its actors. ``step`` and ``crash`` move one actor; the rest happens to the world."""

    def __init__(self, store: Store, clock: FrozenClock, *, actors: int = 3, racy: bool = True) -> None:
        self.raw = store
        self.clock = clock
        self.secrets = CountedSecrets()
        self.cloud = FakeCloud(
            clock,
            capacity=TOTAL,
            times=FakeTimes(build=0.3, delete=0.3),
            racy=racy,
            pause=self._gate_of_call,
        )
        self.guests = FakeGuests(store, self.cloud.world, clock, self.secrets, step_s=0.1)
        gated = GatedStore(store, self)
        self.worker = Worker(gated, self.cloud, clock, self.secrets, RULES)
        self.sweeper = Sweeper(gated, self.cloud, clock, RULES)
        self.remakes = 0
        self.actors = [Actor(f"reconciler-{number}") for number in range(actors)]

    async def _gate_of_call(self, call: str, moment: str) -> None:
        kind = "write" if call.startswith(("create", "start", "stop", "delete")) else "read"
        await self.gate(f"{call}, {kind} {moment}")

    async def gate(self, where: str) -> None:
        task = asyncio.current_task()
        for actor in self.actors:
            if actor.task is task:
                await actor.hold(where)

    async def step(self, number: int, times: int = 1) -> None:
        actor = self.actors[number % len(self.actors)]
        for _ in range(times):
            if not actor.busy:
                actor.begin(self._one_pass())
            await actor.go()

    async def run_until(self, number: int, where: str) -> bool:
        """Let an actor work until it is at a gate whose name ends with ``where``; False when its pass ended before."""
        actor = self.actors[number % len(self.actors)]
        if not actor.busy:
            actor.begin(self._one_pass())
            await actor.reached()
        while actor.busy and not actor.at.endswith(where):
            await actor.go()
        return actor.busy

    async def whole_pass(self, number: int) -> None:
        """Let an actor finish its pass, or do one."""
        await self.run_until(number, "the end")

    async def crash(self, number: int) -> None:
        actor = self.actors[number % len(self.actors)]
        if actor.busy:
            await actor.go(Crash())

    async def _one_pass(self) -> None:
        for claimed in await self.worker.claim(1):
            await self.worker.process(claimed)

    async def finish(self) -> None:
        """Let everybody who is in the middle of something go on to its end, however late."""
        for actor in self.actors:
            while actor.busy:
                await actor.go()

    async def apply_for(self, number: int) -> None:
        async with self.raw.begin(write=True) as tx:
            name = NAMES[number % len(NAMES)]
            known = await tx.desktops.known_ids() | await tx.desktops.removed_among(frozenset({DesktopId(name)}))
            if name not in known:
                await tx.desktops.insert(make_desktop(name, self.clock.now(), resources=Resources(1, 2048, 10, 0)))

    async def want(self, number: int, desired: Desired) -> None:
        desktop_id = DesktopId(NAMES[number % len(NAMES)])
        now = self.clock.now()
        async with self.raw.begin(write=True) as tx:
            if await tx.desktops.get(desktop_id):
                lease = now + timedelta(hours=8) if desired is Desired.RUNNING else None
                await tx.desktops.change_intent(desktop_id, now=now, desired=desired, lease_ends_at=lease)

    async def rebuild(self, number: int) -> None:
        """Have a stopped or failed desktop started on a server made anew, as the use case does."""
        await self._remake(number, (Phase.STOPPED, Phase.FAILED), Desired.RUNNING)

    async def resize(self, number: int) -> None:
        """Give a desktop that holds nothing another size."""
        await self._remake(number, (Phase.STOPPED, Phase.FAILED), None)

    async def _remake(self, number: int, phases: tuple[Phase, ...], desired: Desired | None) -> None:
        desktop_id, now = DesktopId(NAMES[number % len(NAMES)]), self.clock.now()
        async with self.raw.begin(write=True) as tx:
            desktop = await tx.desktops.get(desktop_id)
            if desktop is None or desktop.phase not in phases or desktop.desired is Desired.DELETED:
                return
            if desired is None and not desktop.resizable:
                return
            self.remakes += 1
            shape = Shape(f"image-{self.remakes}", FlavorId(f"size-{self.remakes}"), desktop.resources, desktop.words)
            lease = now + timedelta(hours=8) if desired else None
            await tx.desktops.change_intent(desktop_id, now=now, desired=desired, lease_ends_at=lease, shape=shape)

    async def end_lease(self, number: int) -> None:
        desktop_id = DesktopId(NAMES[number % len(NAMES)])
        async with self.raw.begin(write=True) as tx:
            if await tx.desktops.get(desktop_id):
                await tx.desktops.change_intent(desktop_id, now=self.clock.now(), lease_ends_at=self.clock.now())

    def spoil(self, kind: str) -> None:
        faults = self.cloud.faults
        match kind.split():
            case ["stale"]:
                faults.stale += 1
            case ["incomplete"]:
                faults.incomplete += 1
            case ["broken", remedy]:
                faults.broken_builds.append(("No valid host was found.", Remedy(remedy)))
            case ["lost", call]:
                faults.fail(call, CloudUnavailable("The answer got lost."), after_effect=True)
            case ["down", call]:
                faults.fail(call, CloudUnavailable("No connection."))
            case ["refused", call]:
                faults.fail(call, CloudRefused("Not allowed."))

    def heal(self) -> None:
        self.cloud.faults = type(self.cloud.faults)()
        for name in NAMES:
            self.cloud.strand(DesktopId(name), HostState.UP)
        self.guests.silent.clear()
        self.guests.failing.clear()

    async def check_always(self, *, one_server: bool) -> None:
        """What must hold at every moment."""
        async with self.raw.begin() as tx:
            admitted = await tx.desktops.admitted_total()
        assert admitted.vcpus <= TOTAL.vcpus, "capacity was given twice"
        if one_server:
            owners = [server.desktop_id for server in self.cloud.world.state.servers.values() if server.gone_at is None]
            assert len(owners) == len(set(owners)), f"two servers for one desktop: {owners}"

    async def settle(self) -> list[Desktop]:
        """Heal the world, let time pass, and work with one reconciler until nothing changes any more."""
        self.heal()
        await self.finish()
        quiet, versions = 0, {}
        for number in range(400):
            await self.guests.tick()
            claimed = await self.worker.claim(16)
            for one in claimed:
                await self.worker.process(one)
            desktops = await self.desktops()
            before, versions = versions, {one.id: one.version for one in desktops}
            quiet = quiet + 1 if versions == before and all(map(_at_rest, desktops)) else 0
            if quiet > 4:
                return desktops
            moving = any(not _at_rest(one) and one.attempts < 3 for one in desktops)
            self.clock.advance((0.3 if number < 100 else 1.5) if moving else 5)  # in all longer than a boot may take
        raise AssertionError(f"no end in sight: {[(one.id, one.desired, one.phase, one.reason, one.detail) for one in desktops]}")

    async def desktops(self) -> list[Desktop]:
        async with self.raw.begin() as tx:
            return list(await tx.desktops.page())

    async def check_end(self) -> None:
        """Everything ends as desired, with one server each and nothing left over."""
        await self.settle()
        for _ in range(4):  # the sweeper removes a few a run; what it wakes is settled
            self.clock.advance(RULES.sweep_min_age.total_seconds() + 1)
            await self.sweeper.sweep()
            await self.settle()
        for desktop in await self.desktops():  # failing is allowed when things were spoiled, being stuck is not
            if desktop.phase is Phase.FAILED:
                assert desktop.reason, "failed without a cause"
                await self.want(NAMES.index(desktop.id), Desired.RUNNING)
        desktops = await self.settle()
        observation = await self.cloud.list_servers()
        by_desktop: dict[str, list[ServerStatus]] = {one.id: [] for one in desktops}
        for server in observation.servers:
            assert server.desktop_id in by_desktop, f"orphan server of {server.desktop_id}"
            by_desktop[server.desktop_id].append(server.status)
        assert set(await self.cloud.list_homes()) <= set(by_desktop), "orphan home"
        waiting = [one for one in desktops if one.phase is Phase.QUEUED]
        for desktop in desktops:
            servers = by_desktop[desktop.id]
            assert len(servers) <= 1, f"two servers for {desktop.id}"
            if desktop.desired is Desired.STOPPED:
                assert desktop.phase is Phase.STOPPED
                assert not desktop.admitted
                assert not set(servers) & set(_ALIVE)
            elif desktop not in waiting:
                assert desktop.phase is Phase.READY, (desktop.phase, desktop.reason, desktop.detail)
                assert servers == [ServerStatus.ACTIVE]
                assert desktop.address
                assert not desktop.outdated
                assert self._made_of(desktop.id) == (desktop.image_ref, desktop.flavor), "the server is not what was asked for last"
        await self.check_room(desktops)
        await self.check_always(one_server=True)
        await self._check_events()

    def _made_of(self, desktop_id: DesktopId) -> tuple[str, str]:
        (made,) = (one for one in self.cloud.world.state.servers.values() if one.desktop_id == desktop_id and one.gone_at is None)
        return made.spec["image_ref"], made.spec["flavor_ref"]

    async def check_room(self, desktops: list[Desktop]) -> None:
        """Who waits in the end waits because there is no room."""
        running = sum(one.admitted for one in desktops)
        waiting = any(one.phase is Phase.QUEUED for one in desktops)
        assert not waiting or running == TOTAL.vcpus, "somebody waits although there is room"

    async def play_more(self, _name: str, *_details: Any) -> bool:
        """Play a move that only this stage knows; False = it is none."""
        return False

    async def _check_events(self) -> None:
        async with self.raw.begin() as tx:
            events = await tx.events.page(limit=10_000, newest_first=False)
        phases: dict[DesktopId | None, object] = {}
        for event in events:
            if event.kind is EventKind.DESKTOP_PHASE:
                before, after = event.data["from"], event.data["phase"]
                assert (before, after) in _ALLOWED
                assert phases.get(event.desktop_id, Phase.QUEUED) == before, "somebody wrote over somebody else's state"
                phases[event.desktop_id] = after


def _at_rest(desktop: Desktop) -> bool:
    if desktop.generation != desktop.observed_generation:
        return False
    match desktop.desired:
        case Desired.RUNNING:
            waits = desktop.phase is Phase.QUEUED and desktop.queue is not None
            return waits or desktop.phase in (Phase.READY, Phase.FAILED)
        case Desired.STOPPED:
            return desktop.phase is Phase.STOPPED
        case _:
            return False


class GatedStore:
    """The store as the actors see it: a gate before each transaction and one after its commit."""

    def __init__(self, store: Store, stage: Stage) -> None:
        self._store = store
        self._stage = stage

    @asynccontextmanager
    async def begin(self, *, write: bool = False) -> AsyncIterator[Transaction]:
        await self._stage.gate("begin")
        async with self._store.begin(write=write) as tx:
            yield tx
        await self._stage.gate("committed")

    async def may_be_due(self, now: datetime) -> bool:
        return await self._store.may_be_due(now)


async def open_stage(url: str, **options: Any) -> tuple[Stage, SqlStore]:
    store = await SqlStore.open(url)
    await add_people(store)
    return Stage(store, FrozenClock(), **options), store


__all__ = ["ADA", "EXPERIMENT", "NAMES", "Stage", "open_stage"]
