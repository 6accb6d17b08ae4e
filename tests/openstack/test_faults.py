"""What goes wrong in a real cloud: nothing leaks, nothing is there twice, strangers are left alone, and the desktop's state says why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from controlplane.content import IMAGE
from controlplane.plane import ControlPlane
from controlplane.proxy import FaultProxy
from controlplane.world import World, open_world, patience

pytestmark = [pytest.mark.openstack, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def proxy(openstack: ControlPlane) -> Iterator[FaultProxy]:
    with FaultProxy(openstack) as proxy:
        yield proxy


@pytest.fixture
async def world(openstack: ControlPlane, proxy: FaultProxy, tmp_path: Path, anyio_backend: object) -> AsyncIterator[World]:
    async with open_world(openstack, proxy.write_clouds(tmp_path / "clouds.yaml"), tmp_path) as world:
        yield world


@pytest.fixture(scope="module", autouse=True)
def foreign(openstack: ControlPlane) -> Iterator[None]:
    """A stranger's server in the same project, which looks as much like ours as a stranger's can; it stays as it is."""
    with openstack.connect("stranger") as cloud:
        network = cloud.network.create_network(name="foreign")
        cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.63.0.0/16", is_dhcp_enabled=False)
        server = cloud.compute.create_server(
            name="beamdesk-foreign",
            flavor_id=cloud.compute.find_flavor("desk-small").id,
            image_id=cloud.image.find_image(IMAGE).id,
            networks=[{"uuid": network.id}],
            metadata={"beamdesk_deployment": "another", "beamdesk_desktop": "foreign"},
        )
        cloud.compute.wait_for_server(server, interval=0.3, wait=120)
        before = looks(cloud, server.id)
        yield
        assert looks(cloud, server.id) == before, "a foreign server was touched"
        cloud.compute.delete_server(server)
        cloud.compute.wait_for_delete(server, interval=0.3, wait=120)
        cloud.network.delete_network(network)


def looks(cloud: Any, server_id: str) -> tuple[object, ...]:
    server = cloud.compute.get_server(server_id)
    ports = sorted((port.id, port.status, port.device_id) for port in cloud.network.ports(device_id=server_id))
    return server.status, server.updated_at, server.metadata, ports, len(list(cloud.compute.server_actions(server_id)))


async def test_desktops_come_up_and_go(world: World) -> None:
    world.start()
    desktops = await world.add(3)
    await world.ready(*desktops)
    await world.one_of_each(*desktops)
    await world.nothing_left()


@pytest.mark.parametrize(
    ("service", "path"),
    [("compute", r"/servers$"), ("network", r"/ports"), ("block-storage", r"/volumes$")],
    ids=["server", "port", "volume"],
)
async def test_a_lost_answer_to_a_create_makes_one_of_it(world: World, proxy: FaultProxy, service: str, path: str) -> None:
    lost = proxy.lose(service, "POST", path)
    world.start()
    desktops = await world.add()
    await world.ready(*desktops)
    assert lost.times == 0, "nothing was lost"
    await world.one_of_each(*desktops)
    await world.nothing_left()


async def test_lost_answers_to_stop_start_and_delete_do_no_harm(world: World, proxy: FaultProxy) -> None:
    world.start()
    (desktop,) = await world.add()
    await world.ready(desktop)
    faults = [proxy.lose("compute", "POST", "/action$")]
    await world.want(desktop, Desired.STOPPED)
    await world.reach(desktop, Phase.STOPPED)
    faults.append(proxy.lose("compute", "POST", "/action$"))
    await world.want(desktop, Desired.RUNNING)
    await world.ready(desktop)
    await world.one_of_each(desktop)
    faults += [
        proxy.lose("compute", "DELETE", "/servers/"),
        proxy.lose("network", "DELETE", "/ports/"),
        proxy.lose("block-storage", "DELETE", ""),
    ]
    await world.nothing_left()
    assert [fault.times for fault in faults] == [0] * len(faults)


async def test_an_api_that_is_down_is_named_and_waited_for(world: World, openstack: ControlPlane) -> None:
    world.start()
    (healthy,) = await world.add()
    await world.ready(healthy)
    with openstack.stopped("nova-api"):
        since = time.time()
        (new,) = await world.add()
        await world.told(new, Reason.CLOUD_UNAVAILABLE, since)
        row = await world.get(new)
        assert row is not None
        assert "Nova" in row.detail
    await world.ready(healthy, new)
    await world.one_of_each(healthy, new)
    await world.nothing_left()


@pytest.mark.parametrize(("service", "status"), [("compute", 500), ("network", 503), ("block-storage", 500), ("identity", 503)])
async def test_an_api_that_only_answers_errors_is_waited_for(world: World, proxy: FaultProxy, service: str, status: int) -> None:
    proxy.answer(status, service)
    world.start()
    since = time.time()
    (desktop,) = await world.add()
    await world.told(desktop, Reason.CLOUD_UNAVAILABLE, since)
    proxy.heal()
    await world.ready(desktop)
    await world.one_of_each(desktop)
    await world.nothing_left()


async def test_errors_now_and_then_only_delay(world: World, proxy: FaultProxy) -> None:
    for _ in range(3):
        proxy.answer(500, "compute", "POST", times=1)
        proxy.answer(503, "network", "POST", times=1)
        proxy.answer(502, "block-storage", times=1)
        proxy.refuse("compute", "GET", times=2)
    world.start()
    desktops = await world.add(2)
    await world.ready(*desktops)
    await world.one_of_each(*desktops)
    await world.nothing_left()


async def test_answers_that_come_too_late_make_no_second_server(world: World, proxy: FaultProxy) -> None:
    late = proxy.delay(world.config.timeout_s + 4, "compute", "POST", r"/servers$", times=1)
    world.start()
    since = time.time()
    desktops = await world.add()
    await world.told(desktops[0], Reason.CLOUD_UNAVAILABLE, since)
    assert late.times == 0
    await world.ready(*desktops)
    await world.one_of_each(*desktops)
    await world.nothing_left()


async def test_a_slow_cloud_works_slowly(world: World, proxy: FaultProxy) -> None:
    proxy.delay(0.7)
    world.start()
    desktops = await world.add(2)
    await world.ready(*desktops)
    proxy.heal()
    await world.nothing_left()


async def test_a_restarted_broker_loses_no_desktop(world: World, openstack: ControlPlane) -> None:
    world.start()
    (before,) = await world.add()
    await world.ready(before)
    with openstack.stopped("rabbit"):
        (during,) = await world.add()
        await asyncio.sleep(0)
        await world.reach(during, lambda row: row.phase is not Phase.QUEUED or row.reason != "")
    await world.reach(during, settled)
    row = await world.get(during)
    assert row is not None
    if row.phase is Phase.FAILED:  # Nova gave it up: its cause is told, and starting again works
        assert row.detail
        await world.want(during, Desired.RUNNING)
    await world.ready(before, during)
    await world.one_of_each(before, during)
    await world.nothing_left()


def settled(row: Desktop) -> bool:
    return row.phase in (Phase.READY, Phase.FAILED)


async def test_a_host_that_is_gone_takes_only_its_desktops(world: World, openstack: ControlPlane) -> None:
    """Nova says ACTIVE of a server whose host is gone; the guest's silence is the truth."""
    world.start()
    (desktop,) = await world.add(flavor="gpu")  # the A100 are on one host
    await world.ready(desktop)
    process = openstack.process_of("host-001")
    with openstack.stopped(process):
        since = time.time()
        world.guests.silent.add(desktop)
        await world.told(desktop, Reason.GUEST_SILENT, since)
    world.guests.silent.clear()
    await world.reach(desktop, settled)
    await world.want(desktop, Desired.RUNNING)
    await world.ready(desktop)
    await world.one_of_each(desktop)
    await world.nothing_left()


async def test_a_server_deleted_behind_our_back_is_told_and_made_again(world: World) -> None:
    world.start()
    (desktop,) = await world.add()
    (row,) = await world.ready(desktop)
    since = time.time()
    await asyncio.to_thread(world.admin.compute.delete_server, nova_id(row))
    await world.told(desktop, Reason.SERVER_LOST, since)
    again = await world.reach(desktop, lambda now: now.phase is Phase.READY and now.server_id != row.server_id)
    assert again.server_id != row.server_id
    await world.one_of_each(desktop)
    await world.nothing_left()


async def test_a_server_stopped_behind_our_back_is_told_and_started(world: World) -> None:
    world.start()
    (desktop,) = await world.add()
    (row,) = await world.ready(desktop)
    since = time.time()
    await asyncio.to_thread(world.admin.compute.stop_server, nova_id(row))
    await world.told(desktop, Reason.SERVER_ERROR, since)
    again = await world.reach(desktop, Phase.READY)
    assert again.server_id == row.server_id
    await world.nothing_left()


async def test_a_build_that_fails_ends_with_its_cause(world: World, openstack: ControlPlane) -> None:
    world.start()
    with openstack.fault("fail-builds"):
        (desktop,) = await world.add()
        row = await world.reach(desktop, settled)
    assert (row.phase, row.reason) == (Phase.FAILED, Reason.SERVER_ERROR)
    assert row.detail
    await world.want(desktop, Desired.RUNNING)
    await world.ready(desktop)
    await world.one_of_each(desktop)
    await world.nothing_left()


async def test_a_size_that_no_host_has_is_refused_in_words(world: World) -> None:
    world.start()
    since = time.time()
    (desktop,) = await world.add(flavor="too-big")
    await world.told(desktop, Reason.SERVER_ERROR, since)
    row = await world.get(desktop)
    assert row is not None
    assert row.phase is Phase.FAILED
    assert "host" in row.detail
    await world.nothing_left()


async def test_an_image_that_is_gone_is_refused_in_words(world: World) -> None:
    world.start()
    since = time.time()
    (desktop,) = await world.add(image="12345678-1234-4234-8234-123456789abc")
    await world.told(desktop, Reason.CLOUD_REFUSED, since)
    row = await world.get(desktop)
    assert row is not None
    assert "image" in row.detail
    await world.nothing_left()


async def test_a_port_deleted_behind_our_back_leaves_nothing(world: World) -> None:
    """The server has no address any more; the agent falls silent, and the desktop gets a new port with its new start."""
    world.start()
    (desktop,) = await world.add()
    await world.ready(desktop)
    ports = (await asyncio.to_thread(world.left)).ports[str(desktop)]
    await asyncio.to_thread(world.admin.network.delete_port, ports[0])
    await world.nothing_left()


async def test_a_quota_reached_half_way_makes_the_rest_wait(world: World, openstack: ControlPlane) -> None:
    world.start()
    allowed = 2
    with quota(openstack, allowed):
        desktops = await world.add(4)
        async for _ in patience():
            rows = [row for one in desktops if (row := await world.get(one))]
            ready = [row for row in rows if row.phase is Phase.READY]
            waiting = [row for row in rows if "quota" in row.detail]
            if len(ready) == allowed and len(waiting) == len(desktops) - allowed:
                break
        else:
            raise AssertionError(f"{[(row.phase, row.detail) for row in rows]}")
        for row in ready:
            await world.want(row.id, Desired.DELETED)
        async for _ in patience():
            if not [one for one in ready if await world.get(one.id)]:
                break
        for row in waiting:  # Nova may have accepted it and given it up later: then its owner starts it again
            await world.want(row.id, Desired.RUNNING)
        await world.ready(*(row.id for row in waiting))
    await world.nothing_left()


class quota:  # noqa: N801
    """A limit on the project's instances: so many more than there are."""

    def __init__(self, plane: ControlPlane, more: int) -> None:
        self._plane = plane
        self._more = more

    def _set(self, limit: int) -> None:
        with self._plane.connect("beamdesk") as own, self._plane.connect("admin") as admin:
            used = len(list(own.compute.servers(details=False)))
            value = used + limit if limit >= 0 else -1
            admin.compute.put(f"/os-quota-sets/{own.current_project_id}", json={"quota_set": {"instances": value, "force": True}})

    def __enter__(self) -> None:
        self._set(self._more)

    def __exit__(self, *_: object) -> None:
        self._set(-1)


async def test_a_token_that_expires_half_way_is_renewed(world: World, proxy: FaultProxy) -> None:
    world.start()
    (first,) = await world.add()
    await world.ready(first)
    assert await asyncio.to_thread(proxy.expire_tokens)
    (second,) = await world.add()
    row = await world.reach(second, Phase.READY)
    assert row.attempts == 0, "the expired token was not simply renewed"
    await world.one_of_each(first, second)
    await world.nothing_left()


async def test_two_reconcilers_make_one_of_each(world: World, proxy: FaultProxy) -> None:
    for _ in range(3):
        proxy.lose("compute", "POST", r"/servers$")
        proxy.answer(503, "network", "POST", times=1)
    world.start(reconcilers=2)
    desktops = await world.add(6)
    await world.ready(*desktops)
    await world.one_of_each(*desktops)
    await world.nothing_left()


def nova_id(row: Desktop) -> str:
    assert row.server_id is not None
    return row.server_id.rpartition(":")[2]
