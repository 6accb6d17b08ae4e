"""A storm of desktops on a real OpenStack with simulated hosts: what Beamdesk adds to what a bare script costs, in one run.

``python -m bench.openstack [--hosts 250] [--desktops 500]`` brings the control plane up, lets a bare script of the SDK and then
Beamdesk (store, reconciler in a process of its own, driver) make the same servers, and prints when each server was up, and the CPU
seconds of OpenStack's processes and of the client. True on a quiet machine only; the load is printed beside each figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from beamdesk.adapters.openstack.config import Homes, OpenStackConfig
from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.domain.decision import Timings
from beamdesk.domain.desktop import Desktop, Phase
from beamdesk.domain.ids import DesktopId
from beamdesk.protocol.guest import Step, StepName, StepState
from beamdesk.reconcile.main import run
from beamdesk.reconcile.rules import ReconcileRules
from controlplane.clouds import BEAMDESK
from controlplane.plane import ControlPlane, Options
from controlplane.proxy import FaultProxy
from controlplane.world import FLAVORS, World, open_world, settings

LIMIT_S = 3600
POLL = timedelta(seconds=1)
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_LONG = timedelta(hours=2)
# The product's rules on OpenStack, but: nobody simulates heartbeats here, so nobody misses them; storms may queue in Nova for long.
_RULES = ReconcileRules(
    timings=Timings(poll=POLL, late=_LONG, silent=_LONG, build_timeout=_LONG, boot_timeout=_LONG),
    call_timeout=timedelta(seconds=30),
    claim=timedelta(seconds=75),
)
_STEPS = tuple(Step(name, StepState.DONE) for name in StepName)


@dataclass(frozen=True, slots=True)
class Storm:
    """What one storm gave. ``up_s``: seconds from its start to each server's being up, as its client saw it."""

    name: str
    up_s: tuple[float, ...]
    refused: Counter[str]
    cloud_cpu_s: float
    client_cpu_s: float
    load: float

    def print(self) -> None:
        times = "  ".join(f"p{percent} {percentile(self.up_s, percent):6.1f} s" for percent in (50, 99, 100))
        print(
            f"{self.name:<9} up {len(self.up_s):4}  refused {sum(self.refused.values()):3}  {times}  "
            f"OpenStack {self.cloud_cpu_s:6.1f} CPU-s  client {self.client_cpu_s:5.1f} CPU-s  load {self.load:.1f}"
        )
        for reason, count in self.refused.items():
            print(f"{'':9} refused {count}: {reason}")


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))] if ranked else float("nan")


def orders(desktops: int) -> list[str]:
    """Return the sizes of a storm: every fifth with a GPU, one in forty that fits nowhere."""
    return ["too-big" if number % 40 == 39 else "gpu" if number % 5 == 0 else "small" for number in range(desktops)]


def cloud_cpu_s(plane: ControlPlane) -> float:
    """Return the CPU seconds that all processes of the control plane have used; a session is a service."""
    sessions = {str(pid) for pid in plane.status().values() if pid}
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[3] in sessions:
                total += sum(map(int, fields[11:15]))
    return total * _TICK_S


def bare(plane: ControlPlane, world: World, wanted: list[str], threads: int) -> Storm:
    """Make ports and servers with the SDK, as many at a time as Beamdesk does, and poll what has changed."""
    cpu, own = cloud_cpu_s(plane), time.process_time()
    with plane.connect(BEAMDESK) as cloud, ThreadPoolExecutor(threads) as pool:
        flavors = {size: cloud.compute.find_flavor(FLAVORS[size]).id for size in set(wanted)}
        begun = time.time()

        def make(number: int) -> str:
            port = cloud.network.create_port(network_id=world.network, name=f"bare-{number}")
            server = cloud.compute.create_server(
                name=f"bare-{number}", flavor_id=flavors[wanted[number]], image_id=world.image, networks=[{"port": port.id}]
            )
            return str(server.id)

        made = [pool.submit(make, number) for number in range(len(wanted))]
        seen = _poll(cloud, begun, len(wanted))
        assert {future.result() for future in made} == set(seen)
    spent, own_spent = cloud_cpu_s(plane) - cpu, time.process_time() - own
    up = tuple(at for status, at, _ in seen.values() if status == "ACTIVE")
    refused = Counter(fault for status, _, fault in seen.values() if status != "ACTIVE")
    return Storm("bare", up, refused, spent, own_spent, os.getloadavg()[0])


def _poll(cloud: Any, begun: float, count: int) -> dict[str, tuple[str, float, str]]:
    seen: dict[str, tuple[str, float, str]] = {}
    since = begun - 5
    while len(seen) < count:
        if time.time() - begun > LIMIT_S:
            raise TimeoutError(f"only {len(seen)} of {count} servers came to an end")
        asked = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
        for record in cloud.compute.get(f"/servers/detail?limit=1000&changes-since={stamp}").json()["servers"]:
            if record["status"] in ("ACTIVE", "ERROR") and record["name"].startswith("bare-"):
                seen.setdefault(record["id"], (record["status"], time.time() - begun, record.get("fault", {}).get("message", "")))
        since = asked - 5
        time.sleep(1)
    return seen


def clear(plane: ControlPlane, world: World) -> None:
    """Delete what the bare script made."""
    with plane.connect("admin") as cloud, ThreadPoolExecutor(4) as pool:
        network = {port.device_id: port.id for port in cloud.network.ports(network_id=world.network)}
        records = [record for record in cloud.compute.servers(details=False, all_projects=True) if record.name.startswith("bare-")]
        list(pool.map(lambda record: cloud.compute.delete_server(record.id, ignore_missing=True), records))
        while any(one.name.startswith("bare-") for one in cloud.compute.servers(details=False, all_projects=True)):
            time.sleep(1)
        list(pool.map(lambda port: cloud.network.delete_port(port, ignore_missing=True), network.values()))


async def beamdesk(plane: ControlPlane, world: World, wanted: list[str], folder: Path) -> Storm:
    """Write the intents at once, let one reconciler process work, and note when each row says that its server runs."""
    reconciler = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.openstack", "--reconcile", json.dumps(_coordinates(world)), cwd=Path(__file__).parents[1],
        stdout=(folder / "reconciler.log").open("wb"), stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        await asyncio.sleep(3)  # imports are not what is measured
        cpu, own = cloud_cpu_s(plane), process_cpu_s(reconciler.pid)
        begun = time.time()
        for size in set(wanted):
            await world.add(wanted.count(size), flavor=size)
        up, refused = await _follow(world, begun, len(wanted))
        spent, own_spent = cloud_cpu_s(plane) - cpu, process_cpu_s(reconciler.pid) - own
        storm = Storm("beamdesk", tuple(up.values()), refused, spent, own_spent, os.getloadavg()[0])
        print(await lists(plane, world, folder), flush=True)
        await world.delete_all(LIMIT_S)
    except BaseException:
        print((folder / "reconciler.log").read_text()[-3000:])
        raise
    finally:
        with suppress(ProcessLookupError):
            reconciler.send_signal(signal.SIGTERM)
        await reconciler.wait()
    return storm


def process_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


async def _follow(world: World, begun: float, count: int) -> tuple[dict[DesktopId, float], Counter[str]]:
    up: dict[DesktopId, float] = {}
    ended: dict[DesktopId, Desktop] = {}
    while len(ended) < count:
        if time.time() - begun > LIMIT_S:
            raise TimeoutError(f"only {len(ended)} of {count} desktops came to an end")
        async with world.store.begin() as tx:
            rows = await tx.desktops.page(limit=10_000)
        booting = [row for row in rows if row.phase is Phase.BOOTING and row.id not in up]
        for row in booting:
            up[row.id] = row.phase_since.timestamp() - begun
        await _report(world, booting)
        ended = {row.id: row for row in rows if row.phase in (Phase.READY, Phase.FAILED)}
        await asyncio.sleep(0.5)
    failed = [row for row in ended.values() if row.phase is Phase.FAILED]
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


def _coordinates(world: World) -> dict[str, str]:
    return {
        "url": world.url,
        "deployment": world.deployment,
        "clouds": str(world.config.clouds_yaml),
        "network": world.network,
    }


def configure(clouds_yaml: Path, network: str) -> OpenStackConfig:
    """Return the driver's settings: no volumes, since the bare script makes none."""
    return replace(settings(clouds_yaml, network), homes=Homes(), timeout_s=10)


async def reconcile(url: str, deployment: str, clouds: str, network: str) -> None:
    """Be the reconciler's process until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    store = await SqlStore.open(url)
    cloud = OpenStackCloud(configure(Path(clouds), network), deployment)
    try:
        await run(store, cloud, SystemClock(), SystemSecrets(), _RULES, stop)
    finally:
        await cloud.close()
        await store.close()


async def lists(plane: ControlPlane, world: World, folder: Path) -> str:
    """Return how many API calls it takes to list everything."""
    with FaultProxy(plane) as proxy:
        cloud = OpenStackCloud(configure(proxy.write_clouds(folder / "counted.yaml"), world.network), world.deployment)
        try:
            await cloud.list_servers()  # signs in and learns the versions
            proxy.requests.clear()
            servers = await cloud.list_servers()
            calls = [f"{request.method} {request.service}{request.path.partition('?')[0]}" for request in proxy.requests]
        finally:
            await cloud.close()
    return f"a list of {len(servers.servers)} servers: {len(calls)} API calls ({', '.join(calls)})"


async def measure(arguments: argparse.Namespace, plane: ControlPlane, folder: Path) -> None:
    wanted = orders(arguments.desktops)
    async with open_world(plane, plane.clouds_yaml, folder, homes=Homes(), timeout_s=10) as world:
        print(await lists(plane, world, folder), flush=True)
        script = await asyncio.to_thread(bare, plane, world, wanted, world.config.concurrency)
        script.print()
        await asyncio.to_thread(clear, plane, world)
        ours = await beamdesk(plane, world, wanted, folder)
        ours.print()
        print(f"added at p99: {percentile(ours.up_s, 99) - percentile(script.up_s, 99):+.1f} s")
        print(f"Beamdesk's CPU beside OpenStack's on the bare storm: {ours.client_cpu_s / script.cloud_cpu_s:.1%}")
        print(f"OpenStack's CPU under Beamdesk beside the bare storm: {ours.cloud_cpu_s / script.cloud_cpu_s - 1:+.1%}", flush=True)
        await world.nothing_left()
        print("nothing is left in the cloud")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=250)
    parser.add_argument("--desktops", type=int, default=500)
    parser.add_argument("--reconcile", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reconcile:
        asyncio.run(reconcile(**json.loads(arguments.reconcile)))
        return
    with tempfile.TemporaryDirectory(prefix="beamdesk-bench-") as scratch:
        options = Options(hosts=arguments.hosts, hosts_per_process=min(50, max(1, arguments.hosts // 2)), volumes=False)
        folder = Path(scratch)
        with ControlPlane(folder / "cloud", options, say=lambda text: print(text, flush=True)) as plane:
            asyncio.run(measure(arguments, plane, folder))
    print(f"peak memory of this client {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
