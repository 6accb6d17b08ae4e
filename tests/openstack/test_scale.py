"""What desktops cost a real cloud's APIs: lists a constant number of calls, a way up two calls of its own and a part of what all share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from beamdesk.adapters.openstack.config import Homes
from beamdesk.adapters.openstack.driver import OpenStackCloud
from controlplane.plane import ControlPlane
from controlplane.proxy import FaultProxy
from controlplane.world import PATIENCE_S, RULES, World, open_world, patience

pytestmark = [pytest.mark.openstack, pytest.mark.anyio]
MANY = 16
_LONG = timedelta(minutes=5)
PATIENT = replace(RULES, timings=replace(RULES.timings, build_timeout=_LONG), call_timeout=_LONG, sweep=timedelta(hours=1))
"""A busy machine makes nothing twice here, and the sweeper's lists are not counted."""
OWN = {"POST compute /servers", "POST network /ports"}
LOOKS_MOST = 12
"""Looks of sixteen desktops on their way up, the sweeper's included; each is two calls. Measured: 3; more where the machine is so busy
that news takes longer than people should wait for a word."""
ONCE_MOST = 24
"""What a process asks once: signing in, versions, flavors, network, security groups and their rules, quota."""


@pytest.fixture
async def lean(openstack: ControlPlane, proxy: FaultProxy, tmp_path: Path, anyio_backend: object) -> AsyncIterator[World]:
    """A deployment without home volumes: the ways of servers and ports are counted."""
    clouds = proxy.write_clouds(tmp_path / "clouds.yaml")
    async with open_world(openstack, clouds, tmp_path, homes=Homes(), timeout_s=PATIENCE_S) as world:
        yield world


def counted(proxy: FaultProxy) -> Counter[str]:
    """Return how many requests of each kind passed; news by a name of its own."""
    kinds: Counter[str] = Counter()
    for one in proxy.requests:
        path, _, query = one.path.partition("?")
        news = " news" if "changes-since" in query else ""
        kinds[f"{one.method} {one.service} /{path.split('/', 2)[-1]}{news}"] += 1
    return kinds


async def test_a_way_up_costs_two_calls_of_its_own_and_lists_do_not_grow(lean: World, proxy: FaultProxy, tmp_path: Path) -> None:
    begun = time.monotonic()
    desktops = await lean.add(MANY)
    lean.start(rules=PATIENT)
    await lean.ready(*desktops)
    took_s = time.monotonic() - begun
    calls = counted(proxy)
    assert {kind: calls[kind] for kind in OWN} == dict.fromkeys(OWN, MANY)
    looks = calls["GET compute /servers/detail"] + calls["GET network /ports"]
    assert looks <= 2 * LOOKS_MOST, calls
    assert calls["GET compute /servers/detail news"] <= took_s + 2, calls
    news = calls["GET compute /servers/detail news"]
    assert calls.total() - sum(calls[kind] for kind in OWN) - looks - news <= ONCE_MOST, calls

    await listed_by_two_calls(lean, tmp_path)
    await lean.nothing_left()
    await listed_by_two_calls(lean, tmp_path)  # a list of none costs what a list of many does


async def listed_by_two_calls(world: World, folder: Path) -> None:
    """List everything some times, with a process of its own, and count."""
    times = 3
    with FaultProxy(world.plane) as own:
        cloud = OpenStackCloud(replace(world.config, clouds_yaml=own.write_clouds(folder / "own.yaml")), world.deployment)
        try:
            for _ in range(times):
                await cloud.list_servers()
        finally:
            await cloud.close()
        wanted = {"GET compute /servers/detail": times, "GET network /ports": times}
        async for _ in patience():  # the proxy writes a request down when it has answered it
            calls = counted(own)
            if all(calls[kind] >= number for kind, number in wanted.items()):
                break
        listing = {kind: number for kind, number in calls.items() if "/servers" in kind or "/ports" in kind}
        assert listing == wanted
