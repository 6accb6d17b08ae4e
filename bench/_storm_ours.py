"""The same storm by Beamdesk: intents in a store, one reconciler in a process of its own, the agents spoken for."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from beamdesk.adapters.openstack.config import Homes, OpenStackConfig
from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.domain.desktop import Desktop, Phase
from beamdesk.domain.ids import DesktopId
from beamdesk.openstack_settings import OpenStackSettings
from beamdesk.pace import reconcile_rules
from beamdesk.protocol.guest import Step, StepName, StepState
from beamdesk.reconcile.main import run
from beamdesk.reconcile.rules import ReconcileRules
from beamdesk.settings import Settings
from bench._api_calls import Calls
from bench._cloud_cpu import by_service, load, process_s
from bench._storm import Spent, Storm, launched_at, told_after_launch
from controlplane.clouds import BEAMDESK
from controlplane.plane import ControlPlane
from controlplane.world import World, settings

_LONG = timedelta(hours=2)
_STEPS = tuple(Step(name, StepState.DONE) for name in StepName)
_LOOK_S = 2
"""Rows say themselves since when they are so. With half a second, who followed took half as much CPU as who was measured."""
_ANSWER_S = 30
_LONGEST_START_S = 120


def rules() -> ReconcileRules:
    """Return the product's rules on OpenStack; but nobody simulates heartbeats here or misses them, and Nova may queue for long."""
    usual = reconcile_rules(Settings(cloud="openstack", openstack=OpenStackSettings(call_timeout_s=_ANSWER_S)))
    times = replace(usual.timings, late=_LONG, silent=_LONG, build_timeout=_LONG, boot_timeout=_LONG)
    return replace(usual, timings=times)


def configure(clouds_yaml: Path, network: str) -> OpenStackConfig:
    """Return the driver's settings: no volumes, since the bare script makes none; an API that is busy may take its time."""
    changed: OpenStackConfig = replace(settings(clouds_yaml, network), homes=Homes(), timeout_s=_ANSWER_S)
    return changed


async def reconcile(url: str, deployment: str, clouds: str, network: str, services: dict[str, str], counts: str) -> None:
    """Be the reconciler's process until SIGTERM; SIGUSR1 writes to ``counts`` how many requests it sent."""
    calls = Calls({int(port): name for port, name in services.items()})
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: _write(Path(counts), calls))
    store = await SqlStore.open(url)
    cloud = OpenStackCloud(configure(Path(clouds), network), deployment)
    with calls.watched():
        _write(Path(counts), calls)  # says that it is there
        try:
            await run(store, cloud, SystemClock(), SystemSecrets(), rules(), stop)
        finally:
            await cloud.close()
            await store.close()


def _write(path: Path, calls: Calls) -> None:
    whole = path.with_suffix(".new")
    whole.write_text(json.dumps(calls.count))
    whole.rename(path)


def _counted(pid: int, path: Path) -> Counter[str]:
    """Return what the reconciler counted so far; the first time, wait until it is there."""
    _await(path)
    path.unlink()
    os.kill(pid, signal.SIGUSR1)
    _await(path)
    return Counter(json.loads(path.read_text()))


def _await(path: Path) -> None:
    until = time.monotonic() + _LONGEST_START_S
    while not path.exists():
        if time.monotonic() > until:
            raise TimeoutError("the reconciler does not come up")
        time.sleep(0.02)


async def ours(
    plane: ControlPlane, world: World, wanted: list[str], calls: Calls, folder: Path, limit_s: float, every_s: float
) -> Storm:
    """Write the intents at once or ``every_s``, let the reconciler work, and note when each row says that its server runs."""
    counts, log = folder / "counts.json", folder / "reconciler.log"
    await asyncio.to_thread(counts.unlink, missing_ok=True)
    told = _coordinates(plane, world) | {"counts": str(counts)}
    program = [sys.executable, "-m", "bench.openstack", "--reconcile", json.dumps(told)]
    here = Path(__file__).parents[1]
    reconciler = await asyncio.create_subprocess_exec(*program, cwd=here, stdout=log.open("wb"), stderr=asyncio.subprocess.STDOUT)
    try:
        before = await asyncio.to_thread(_counted, reconciler.pid, counts)
        await asyncio.sleep(1)  # imports are not what is measured
        spent, loads, here_s = Spent(plane, lambda: process_s(reconciler.pid)), load(), time.process_time()
        begun = time.time()
        async with asyncio.TaskGroup() as group:
            group.create_task(_want(world, wanted, begun, every_s))
            following = group.create_task(_follow(world, begun, len(wanted), limit_s, spent))
        (up, refused), late = following.result(), every_s > 0
        ended, here_s = time.time() - begun, time.process_time() - here_s
        sent, now = await asyncio.to_thread(_counted, reconciler.pid, counts) - before, load()
        events = _events(log)
        notes = (
            await _lag(plane, world, begun, up),
            await lists(world, calls),
            await _delete(plane, world, reconciler.pid, limit_s),
            f"{events}; {_events(log)} when all were deleted",
            f"beside them, and counted nowhere, who follows the rows and speaks for the agents here: {here_s:.1f} CPU-s",
        )
    except BaseException:
        print(log.read_text()[-3000:])
        raise
    finally:
        with suppress(ProcessLookupError):
            reconciler.send_signal(signal.SIGTERM)
        await reconciler.wait()
    waited = tuple(seen - since * late for seen, since in up.values())
    cpu, own = spent.by_service, spent.client_s
    return Storm("beamdesk", len(wanted), waited, refused, spent.seconds, ended, cpu, own, sent, (loads, now), notes)


def _coordinates(plane: ControlPlane, world: World) -> dict[str, object]:
    return {
        "url": world.url,
        "deployment": world.deployment,
        "clouds": str(world.config.clouds_yaml),
        "network": world.network,
        "services": {str(port): name for name, port in plane.layout.ports.items()},
    }


def _events(log: Path) -> str:
    """Say what the reconciler wrote down, and how often."""
    counted = Counter(re.findall(r"^\S+ \S+ \[\w+ *\] (\S+)", log.read_text(), re.MULTILINE))
    return "log: " + ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))


async def _want(world: World, wanted: list[str], begun: float, every_s: float) -> None:
    if not every_s:
        await world.add_sizes(wanted)
        return
    for number, size in enumerate(wanted):
        await asyncio.sleep(max(0.0, begun + number * every_s - time.time()))
        await world.add(flavor=size)


async def _follow(
    world: World, begun: float, count: int, limit_s: float, spent: Spent
) -> tuple[dict[DesktopId, tuple[float, float]], Counter[str]]:
    """Return when each was up and when it was wanted, in seconds from the beginning, and why others were refused."""
    up: dict[DesktopId, tuple[float, float]] = {}
    phases: dict[DesktopId, Phase] = {}
    while sum(phase in (Phase.READY, Phase.FAILED) for phase in phases.values()) < count:
        if time.time() - begun > limit_s:
            raise TimeoutError(f"desktops did not come to an end: {Counter(map(str, phases.values()))}")
        async with world.store.begin() as tx:
            phases = await tx.desktops.phases()
            rows = [await tx.desktops.get(one) for one, phase in phases.items() if phase is Phase.BOOTING and one not in up]
        booting = [row for row in rows if row is not None]
        up |= {row.id: (row.phase_since.timestamp() - begun, row.created_at.timestamp() - begun) for row in booting}
        if booting:
            spent.note()
            await _report(world, booting)
        await asyncio.sleep(_LOOK_S)
    failed = [await world.now(one) for one, phase in phases.items() if phase is Phase.FAILED]
    return up, Counter(f"{row.reason}: {row.detail}" for row in failed)


async def _report(world: World, booting: list[Desktop]) -> None:
    """Speak for the agents of servers that run: enrolled, every step done."""
    now = world.clock.now()
    async with world.store.begin(write=True) as tx:
        for row in booting:
            guest = await tx.guests.get(row.id)
            if guest is not None and guest.nonce_hash is not None:
                await tx.guests.spend_nonce(guest.nonce_hash, os.urandom(32), now)
                await tx.guests.report(row.id, now=now, steps=_STEPS, failure="", input_idle_s=0, cpu=0, gpu=0)
                await tx.desktops.wake(row.id, now)


async def _lag(plane: ControlPlane, world: World, begun: float, up: dict[DesktopId, tuple[float, float]]) -> str:
    """Say how long after Nova's own date of a server's launch Beamdesk told of it."""
    with plane.connect(BEAMDESK) as cloud:
        records = cloud.compute.get(f"/servers/detail?limit=1000&tags={world.names.tag}", microversion="2.79").json()["servers"]
    lags = []
    for record in records:
        seen, at = up.get(DesktopId(record["metadata"]["beamdesk_desktop"])), launched_at(record)
        if seen is not None and at is not None:
            lags.append(begun + seen[0] - at)
    return told_after_launch(lags)


async def lists(world: World, calls: Calls) -> str:
    """Say how many API calls it takes to list everything."""
    cloud = OpenStackCloud(configure(Path(str(world.config.clouds_yaml)), world.network), world.deployment)
    try:
        await cloud.list_servers()  # signs in and learns the versions
        before = Counter(calls.count)
        servers = await cloud.list_servers()
        asked = calls.count - before
    finally:
        await cloud.close()
    return f"a list of {len(servers.servers)} servers: {asked.total()} API calls ({', '.join(asked)})"


async def _delete(plane: ControlPlane, world: World, pid: int, limit_s: float) -> str:
    cpu, own, begun = by_service(plane), process_s(pid), time.time()
    await world.delete_all(limit_s)
    spent = sum((by_service(plane) - cpu).values())
    return f"all deleted after {time.time() - begun:.1f} s: OpenStack {spent:.1f} CPU-s, Beamdesk {process_s(pid) - own:.1f} CPU-s"
