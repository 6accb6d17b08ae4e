"""Parts of a real cloud that go and come back: hosts, broker, conductor, database, builds. Desktops come to what is wanted by themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from beamdesk.adapters.openstack.refused_sizes import PROVEN
from beamdesk.domain.decision import REMAKES
from beamdesk.domain.desktop import Desired, Phase, Reason
from beamdesk.domain.ids import DesktopId
from controlplane.plane import ControlPlane
from controlplane.proxy import FaultProxy
from controlplane.world import PATIENCE_S, World
from openstack_ops.site import cards_taken

pytestmark = [pytest.mark.openstack, pytest.mark.anyio, pytest.mark.usefixtures("foreign")]

SHOWS_HOSTS = {"os_compute_api:servers:show:host_status": "rule:project_member_or_admin"}
LISTS_HOSTS = {"os_compute_api:os-hypervisors:list-detail": "", "os_compute_api:os-aggregates:index": ""}
ASKS_PLACEMENT = {"placement:allocation_candidates:list": "", "placement:resource_providers:list": ""}


async def never_failed(world: World, *desktops: DesktopId) -> None:
    for one in desktops:
        phases = [event.data.get("phase") for event in await world.events(one)]
        assert Phase.FAILED not in phases, "somebody would have had to click"


async def test_a_restarted_broker_loses_no_desktop_and_nobody_has_to_click(world: World) -> None:
    """What a broker loses is chance: an order of a server, of a volume before or after a backend was chosen for it, or nothing."""
    world.start()
    (before,) = await world.add()
    await world.ready(before)
    async with world.without("rabbit"):
        since = time.time()
        (during,) = await world.add()
        await world.told(during, since, Reason.CLOUD_BUSY, Reason.CLOUD_UNAVAILABLE)
        assert (await world.now(before)).phase is Phase.READY
    await world.ready(before, during, within_s=2 * PATIENCE_S)
    await never_failed(world, before, during)
    await world.one_of_each(before, during)
    await world.nothing_left()


async def test_a_conductor_that_is_away_delays_desktops_and_loses_none(world: World) -> None:
    world.start()
    async with world.without("conductor"):
        desktops = await world.add(2)
        for one in desktops:
            await world.reach(one, Phase.BUILDING)
    await world.ready(*desktops)
    await never_failed(world, *desktops)
    await world.one_of_each(*desktops)
    await world.nothing_left()


async def test_a_database_that_is_away_is_told_and_survived(world: World) -> None:
    world.start()
    (before,) = await world.add()
    await world.ready(before)
    async with world.without("mysql"):
        since = time.time()
        (during,) = await world.add()
        await world.told(during, since, Reason.CLOUD_BUSY, Reason.CLOUD_UNAVAILABLE)
        assert (await world.now(before)).phase is Phase.READY
    await world.ready(before, during)
    await never_failed(world, before, during)
    await world.one_of_each(before, during)
    await world.nothing_left()


async def test_a_build_that_fails_in_passing_is_made_anew(world: World, openstack: ControlPlane) -> None:
    world.start()
    with openstack.fault("fail-builds"):
        (desktop,) = await world.add()
        await world.reach(desktop, lambda row: row.reason == Reason.SERVER_ERROR)
    row = await world.now(desktop)
    assert (row.phase is not Phase.FAILED, bool(row.detail)) == (True, True)
    await world.ready(desktop)
    await never_failed(world, desktop)
    await world.one_of_each(desktop)
    await world.nothing_left()


async def test_a_build_that_always_fails_ends_with_its_cause(world: World, openstack: ControlPlane, proxy: FaultProxy) -> None:
    world.start()
    with openstack.fault("fail-builds"):
        (desktop,) = await world.add()
        row = await world.reach(desktop, Phase.FAILED)
    assert row.reason is Reason.SERVER_ERROR
    assert "host" in row.detail
    assert proxy.count("compute", "POST", r"/servers$") == 1 + REMAKES
    await world.want(desktop, Desired.RUNNING)
    await world.ready(desktop)
    await world.one_of_each(desktop)
    await world.nothing_left()


async def test_a_size_that_no_host_has_is_refused_in_words(world: World) -> None:
    world.start()
    since = time.time()
    (desktop,) = await world.add(flavor="too-big")
    await world.told(desktop, since, Reason.SERVER_ERROR)
    row = await world.reach(desktop, Phase.FAILED)  # tried again first: nobody here may ask whether it ever fits
    assert (row.reason, "host" in row.detail) == (Reason.SERVER_ERROR, True)
    await world.nothing_left()


async def test_a_size_that_was_refused_while_others_were_taken_is_not_tried_again(world: World) -> None:
    world.start()
    (first,) = await world.add(flavor="too-big")
    await world.reach(first, lambda row: row.reason == Reason.SERVER_ERROR)
    await asyncio.sleep(1)  # Nova's dates are whole seconds
    (other,) = await world.add()
    await world.ready(other)
    await world.reach(first, Phase.FAILED)  # after all tries: half a minute was not over at the second
    await asyncio.sleep(PROVEN.total_seconds())
    (second,) = await world.add(flavor="too-big")
    await world.reach(second, Phase.FAILED)
    tried = [[event.data.get("phase") for event in await world.events(one)].count(Phase.BUILDING) for one in (first, second)]
    assert tried == [3, 1]
    await world.nothing_left()


async def test_a_card_that_others_have_is_waited_for_with_the_cause_and_taken_when_it_is_free(
    world: World, openstack: ControlPlane
) -> None:
    world.start()
    with openstack.policy("nova", LISTS_HOSTS), openstack.policy("placement", ASKS_PLACEMENT):
        with cards_taken(world.admin, 4):
            since = time.time()
            (desktop,) = await world.add(flavor="gpu")
            await world.told(desktop, since, Reason.WAITING_FOR_CAPACITY)
            row = await world.now(desktop)
            assert (row.phase, "All 5 hosts have no free a100." in row.detail) == (Phase.QUEUED, True)
        await world.ready(desktop)
    await never_failed(world, desktop)
    await world.one_of_each(desktop)
    await world.nothing_left()


@asynccontextmanager
async def dead(world: World, host: str) -> AsyncIterator[tuple[str, ...]]:
    """Have a host, and those that share its process, gone; yield all of them. Desktops on them fall silent."""
    process = world.plane.process_of(host)
    async with world.without(process):
        try:
            yield world.plane.hosts(process)
        finally:
            await asyncio.to_thread(force_down, world.admin, world.plane.hosts(process), False)


def force_down(admin: Any, hosts: tuple[str, ...], down: bool) -> None:
    """Say as an operator that hosts are off, or on again."""
    for service in admin.compute.get("/os-services?binary=nova-compute", microversion="2.53").json()["services"]:
        if service["host"] in hosts:
            admin.compute.put(f"/os-services/{service['id']}", json={"forced_down": down}, microversion="2.53")


async def test_a_host_that_comes_back_brings_its_desktop_back(world: World) -> None:
    """Nova says ACTIVE of a server whose host is gone; the guest's silence is the truth."""
    world.start()
    (desktop,) = await world.add(flavor="gpu")  # the A100 are on one host
    (row,) = await world.ready(desktop)
    async with dead(world, await world.host_of(desktop)):
        since = time.time()
        world.guests.silent.add(desktop)
        await world.told(desktop, since, Reason.GUEST_SILENT)
        await world.reach(desktop, lambda now: "order to stop" in now.detail)
    world.guests.silent.clear()
    again = await world.reach(desktop, Phase.READY)
    assert again.server_id == row.server_id
    await never_failed(world, desktop)
    await world.one_of_each(desktop)
    await world.nothing_left()


async def test_a_host_that_does_not_come_back_is_told_and_left_once_an_operator_says_that_it_is_off(
    world: World, openstack: ControlPlane
) -> None:
    world.start()
    (desktop,) = await world.add()
    (row,) = await world.ready(desktop)
    with openstack.policy("nova", SHOWS_HOSTS):
        async with dead(world, await world.host_of(desktop)) as hosts:
            await asyncio.to_thread(openstack.unseen, *hosts)
            since = time.time()
            world.guests.silent.add(desktop)
            await world.told(desktop, since, Reason.GUEST_SILENT)
            waits = await world.reach(desktop, lambda now: now.reason is Reason.HOST_LOST)
            assert (waits.phase, "may still run" in waits.detail) == (Phase.READY, True)
            waits = await world.reach(desktop, Phase.REPAIRING)
            waits = await world.reach(desktop, lambda now: now.reason is Reason.HOST_LOST)
            assert (waits.phase, "operator" in waits.detail) == (Phase.REPAIRING, True)
            assert waits.server_id == row.server_id, "its home hangs on a host that may still write to it"
            await asyncio.to_thread(force_down, world.admin, hosts, True)
            await world.reach(desktop, lambda now: now.server_id != row.server_id)
            world.guests.silent.clear()
            await world.ready(desktop)
            assert await world.host_of(desktop) not in hosts
        await never_failed(world, desktop)
    await world.one_of_each(desktop)
    await world.nothing_left()


async def test_a_desktop_on_a_dead_host_can_be_deleted(world: World, openstack: ControlPlane) -> None:
    world.start()
    (desktop,) = await world.add(flavor="gpu")
    await world.ready(desktop)
    async with dead(world, await world.host_of(desktop)) as hosts:
        await world.want(desktop, Desired.DELETED)
        await world.reach(desktop, lambda now: now.phase is Phase.DELETING)
        await asyncio.sleep(0)
        await asyncio.to_thread(openstack.unseen, *hosts)
        await world.nothing_left()
