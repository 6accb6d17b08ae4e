"""The bare script: a port and a server for each desktop with openstacksdk, and one poll a second for what changed.

Its servers are the same as Beamdesk's: a security group, an address of their own, tags, metadata, user-data. *Lean*: without any
of that, for what it costs.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench._api_calls import Calls
from bench._cloud_cpu import load
from bench._storm import Spent, Storm, launched_at, told_after_launch
from controlplane.clouds import BEAMDESK
from controlplane.plane import ControlPlane
from controlplane.world import FLAVORS, World

_BACK_S = 5
"""So much further back each poll asks for changes than the last one was: as Beamdesk does."""


_GROUP = "bare-desktops"
_TAGS_SINCE = "2.52"
_Seen = tuple[dict[str, tuple[str, float, str]], str]
"""By server its state, when it was seen so and its fault; and how long after their launch the poll told of them."""


def bare(
    plane: ControlPlane, world: World, wanted: list[str], calls: Calls, limit_s: float, every_s: float, *, lean: bool = False
) -> Storm:
    """Make ports and servers, as many at a time as Beamdesk does, each ``every_s`` after the one before."""
    before, loads = Counter(calls.count), load()
    with plane.connect(BEAMDESK) as cloud, ThreadPoolExecutor(world.config.concurrency) as pool:
        spent, begun = Spent(plane, time.process_time), time.time()
        flavors = {size: cloud.compute.find_flavor(FLAVORS[size]).id for size in set(wanted)}
        group = "" if lean else _group(cloud)

        def make(number: int) -> str:
            time.sleep(max(0.0, begun + number * every_s - time.time()))
            port = cloud.network.create_port(
                network_id=world.network, name=f"bare-{number}", **({} if lean else _port(group, number))
            )
            order = {
                "name": f"bare-{number}", "flavorRef": flavors[wanted[number]], "imageRef": world.image,
                "networks": [{"port": port.id}], **({} if lean else _marks()),
            }  # fmt: skip
            version = None if lean else _TAGS_SINCE
            answer = cloud.compute.post("/servers", json={"server": order}, microversion=version)
            answer.raise_for_status()
            return str(answer.json()["server"]["id"])

        made = [pool.submit(make, number) for number in range(len(wanted))]
        seen, lag = _poll(cloud, begun, len(wanted), limit_s, every_s, spent)
        assert {future.result() for future in made} == set(seen)
    ended = time.time() - begun
    up = tuple(at for status, at, _ in seen.values() if status == "ACTIVE")
    refused = Counter(fault for status, _, fault in seen.values() if status != "ACTIVE")
    name, sent = "lean" if lean else "bare", calls.count - before
    return Storm(
        name, len(wanted), up, refused, spent.seconds, ended, spent.by_service, spent.client_s, sent, (loads, load()), (lag,)
    )  # fmt: skip


def _group(cloud: Any) -> str:
    """Make the security group of the desktops, with one rule."""
    group = str(cloud.network.create_security_group(name=_GROUP).id)
    cloud.network.create_security_group_rule(
        security_group_id=group, direction="ingress", ether_type="IPv4", protocol="tcp", port_range_min=6901, port_range_max=6901,
        remote_ip_prefix="10.9.0.1/32",
    )  # fmt: skip
    return group


def _port(group: str, number: int) -> dict[str, Any]:
    mac = f"da:ba:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    return {"description": "a desktop", "security_groups": [group], "mac_address": mac}


def _marks() -> dict[str, Any]:
    one, data = uuid.uuid4().hex, base64.b64encode(b"#cloud-config\n" + b"#" * 600).decode()
    marks = {"bare_deployment": "bare", "bare_desktop": one, "bare_experiment": "p1"}
    return {"tags": ["bare", f"bare-{one}"], "metadata": marks, "user_data": data, "config_drive": True}


def _poll(cloud: Any, begun: float, count: int, limit_s: float, every_s: float, spent: Spent) -> _Seen:
    seen: dict[str, tuple[str, float, str]] = {}
    lags: list[float] = []
    since = begun - _BACK_S
    while len(seen) < count:
        if time.time() - begun > limit_s:
            raise TimeoutError(f"only {len(seen)} of {count} servers came to an end")
        asked, up = time.time(), len(seen)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
        for record in cloud.compute.get(f"/servers/detail?limit=1000&changes-since={stamp}").json()["servers"]:
            if record["status"] in ("ACTIVE", "ERROR") and record["name"].startswith("bare-"):
                after = time.time() - begun - every_s * int(record["name"].removeprefix("bare-"))
                if record["id"] not in seen and (launched := launched_at(record)):
                    lags.append(time.time() - launched)
                seen.setdefault(record["id"], (record["status"], after, record.get("fault", {}).get("message", "")))
        if any(status == "ACTIVE" for status, _, _ in list(seen.values())[up:]):
            spent.note()
        since = asked - _BACK_S
        time.sleep(1)
    return seen, told_after_launch(lags)


def clear(plane: ControlPlane, world: World) -> None:
    """Delete what the bare script made."""
    with plane.connect("admin") as cloud, ThreadPoolExecutor(4) as pool:
        ports = [port.id for port in cloud.network.ports(network_id=world.network)]
        records = [record for record in cloud.compute.servers(details=False, all_projects=True) if record.name.startswith("bare-")]
        list(pool.map(lambda record: cloud.compute.delete_server(record.id, ignore_missing=True), records))
        while any(one.name.startswith("bare-") for one in cloud.compute.servers(details=False, all_projects=True)):
            time.sleep(2)
        list(pool.map(lambda port: cloud.network.delete_port(port, ignore_missing=True), ports))
        for group in list(cloud.network.security_groups(name=_GROUP)):
            cloud.network.delete_security_group(group)
