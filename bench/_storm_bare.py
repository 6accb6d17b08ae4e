"""The bare script: a port and a server for each desktop with openstacksdk, and one poll a second for what changed."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench._api_calls import Calls
from bench._cloud_cpu import by_service, load
from bench._storm import Storm
from controlplane.clouds import BEAMDESK
from controlplane.plane import ControlPlane
from controlplane.world import FLAVORS, World

_BACK_S = 5
"""So much further back each poll asks for changes than the last one was: as Beamdesk does."""


def bare(plane: ControlPlane, world: World, wanted: list[str], calls: Calls, limit_s: float, every_s: float) -> Storm:
    """Make ports and servers, as many at a time as Beamdesk does, each ``every_s`` after the one before."""
    cpu, own, before, loads = by_service(plane), time.process_time(), Counter(calls.count), load()
    with plane.connect(BEAMDESK) as cloud, ThreadPoolExecutor(world.config.concurrency) as pool:
        begun = time.time()
        flavors = {size: cloud.compute.find_flavor(FLAVORS[size]).id for size in set(wanted)}

        def make(number: int) -> str:
            time.sleep(max(0.0, begun + number * every_s - time.time()))
            port = cloud.network.create_port(network_id=world.network, name=f"bare-{number}")
            server = cloud.compute.create_server(
                name=f"bare-{number}", flavor_id=flavors[wanted[number]], image_id=world.image, networks=[{"port": port.id}]
            )
            return str(server.id)

        made = [pool.submit(make, number) for number in range(len(wanted))]
        seen = _poll(cloud, begun, len(wanted), limit_s, every_s)
        assert {future.result() for future in made} == set(seen)
    took, spent, own_spent = time.time() - begun, by_service(plane) - cpu, time.process_time() - own
    up = tuple(at for status, at, _ in seen.values() if status == "ACTIVE")
    refused = Counter(fault for status, _, fault in seen.values() if status != "ACTIVE")
    return Storm("bare", len(wanted), up, refused, took, spent, own_spent, calls.count - before, (loads, load()))


def _poll(cloud: Any, begun: float, count: int, limit_s: float, every_s: float) -> dict[str, tuple[str, float, str]]:
    seen: dict[str, tuple[str, float, str]] = {}
    since = begun - _BACK_S
    while len(seen) < count:
        if time.time() - begun > limit_s:
            raise TimeoutError(f"only {len(seen)} of {count} servers came to an end")
        asked = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
        for record in cloud.compute.get(f"/servers/detail?limit=1000&changes-since={stamp}").json()["servers"]:
            if record["status"] in ("ACTIVE", "ERROR") and record["name"].startswith("bare-"):
                after = time.time() - begun - every_s * int(record["name"].removeprefix("bare-"))
                seen.setdefault(record["id"], (record["status"], after, record.get("fault", {}).get("message", "")))
        since = asked - _BACK_S
        time.sleep(1)
    return seen


def clear(plane: ControlPlane, world: World) -> None:
    """Delete what the bare script made."""
    with plane.connect("admin") as cloud, ThreadPoolExecutor(4) as pool:
        ports = [port.id for port in cloud.network.ports(network_id=world.network)]
        records = [record for record in cloud.compute.servers(details=False, all_projects=True) if record.name.startswith("bare-")]
        list(pool.map(lambda record: cloud.compute.delete_server(record.id, ignore_missing=True), records))
        while any(one.name.startswith("bare-") for one in cloud.compute.servers(details=False, all_projects=True)):
            time.sleep(2)
        list(pool.map(lambda port: cloud.network.delete_port(port, ignore_missing=True), ports))
