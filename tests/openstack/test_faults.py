"""What goes wrong in a real cloud: nothing leaks, nothing is there twice, strangers are left alone, and the desktop's state says why."""

from __future__ import annotations

import asyncio
import time

import pytest

from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.domain.desktop import Desired, Phase, Reason
from controlplane.plane import ControlPlane
from controlplane.proxy import FaultProxy
from controlplane.world import World, patience
from driverkit import nova_id

A_MINUTE_S = 60

pytestmark = [pytest.mark.openstack, pytest.mark.anyio, pytest.mark.usefixtures("foreign")]


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


@pytest.mark.parametrize(("service", "status"), [("compute", 500), ("network", 503), ("block-storage", 500), ("identity", 503)])
async def test_an_api_that_only_answers_errors_is_waited_for(world: World, proxy: FaultProxy, service: str, status: int) -> None:
    proxy.answer(status, service)
    world.start()
    since = time.time()
    (desktop,) = await world.add()
    await world.told(desktop, since, Reason.CLOUD_UNAVAILABLE)
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
    await world.told(desktops[0], since, Reason.CLOUD_UNAVAILABLE)
    assert late.times == 0
    await world.ready(*desktops)
    await world.one_of_each(*desktops)
    await world.nothing_left()


async def test_an_api_that_is_down_for_a_minute_is_named_and_everything_goes_on_after_it(world: World) -> None:
    world.start()
    healthy, leaving, going = await world.add(3)
    await world.ready(healthy, leaving, going)
    async with world.without("nova-api"):
        since = time.time()
        (new,) = await world.add()
        await world.want(leaving, Desired.STOPPED)
        await world.want(going, Desired.DELETED)
        for one in (new, leaving, going):
            await world.told(one, since, Reason.CLOUD_UNAVAILABLE)
            assert "Nova" in (await world.now(one)).detail
        async for waited in patience(1):
            assert (await world.now(healthy)).phase is Phase.READY, "a healthy desktop does not suffer"
            if waited > A_MINUTE_S:
                break
    back = time.time()
    await world.ready(healthy, new)
    await world.reach(leaving, Phase.STOPPED)
    await world.told(new, back, "")
    await world.nothing_left()


async def test_a_slow_cloud_works_slowly_and_says_so(world: World, proxy: FaultProxy) -> None:
    proxy.delay(0.7)
    world.start()
    desktops = await world.add(2)
    await world.ready(*desktops)
    proxy.heal()
    proxy.delay(world.config.timeout_s - 0.5, "compute", "GET")
    since = time.time()
    await world.want(desktops[0], Desired.STOPPED)
    await world.told(desktops[0], since, Reason.CLOUD_BUSY)
    proxy.heal()
    await world.reach(desktops[0], Phase.STOPPED)
    assert (await world.now(desktops[1])).phase is Phase.READY
    await world.nothing_left()


async def test_an_api_that_takes_requests_and_never_answers_is_told_too(world: World, proxy: FaultProxy) -> None:
    for service in ("compute", "network"):
        proxy.delay(30, service)
    world.start()
    since = time.time()
    desktops = await world.add(6)
    for one in desktops:
        await world.told(one, since, Reason.CLOUD_BUSY, Reason.CLOUD_UNAVAILABLE)
    proxy.heal()
    await world.ready(*desktops)
    await world.one_of_each(*desktops)
    await world.nothing_left()


async def test_a_server_deleted_behind_our_back_is_told_and_made_again(world: World) -> None:
    world.start()
    (desktop,) = await world.add()
    (row,) = await world.ready(desktop)
    since = time.time()
    await asyncio.to_thread(world.admin.compute.delete_server, nova_id(row.server_id))
    await world.told(desktop, since, Reason.SERVER_LOST)
    again = await world.reach(desktop, lambda now: now.phase is Phase.READY and now.server_id != row.server_id)
    assert again.server_id != row.server_id
    await world.one_of_each(desktop)
    await world.nothing_left()


async def test_a_server_stopped_behind_our_back_is_told_and_started(world: World) -> None:
    world.start()
    (desktop,) = await world.add()
    (row,) = await world.ready(desktop)
    since = time.time()
    await asyncio.to_thread(world.admin.compute.stop_server, nova_id(row.server_id))
    await world.told(desktop, since, Reason.SERVER_ERROR)
    again = await world.reach(desktop, Phase.READY)
    assert again.server_id == row.server_id
    await world.nothing_left()


async def test_an_image_that_nobody_knows_is_refused_in_words(world: World) -> None:
    world.start()
    since = time.time()
    (desktop,) = await world.add(image="12345678-1234-4234-8234-123456789abc")
    await world.told(desktop, since, Reason.CLOUD_REFUSED)
    assert "image" in (await world.now(desktop)).detail
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


@pytest.mark.parametrize("ahead", [None, 900.0, -900.0], ids=["no clock", "ahead", "behind"])
async def test_clocks_that_differ_make_no_second_port_and_strand_none(world: World, proxy: FaultProxy, ahead: float | None) -> None:
    proxy.clocks = dict.fromkeys(("compute", "network", "block-storage"), ahead)
    cloud = OpenStackCloud(world.config, world.deployment)
    place, (stranded,) = cloud.places["main"], await world.add()
    await place.ports.take(stranded, await place.lookups.network(), None)  # and its maker dies
    await cloud.close()
    slow = proxy.delay(2, "compute", "POST", r"/servers$")  # long enough for rivals to meet the port of who makes the server
    world.start(reconcilers=2)
    since = time.time()
    desktops = [stranded, *await world.add(3)]
    await world.told(stranded, since, Reason.CLOUD_BUSY)
    await world.ready(*desktops)
    slow.times = 0
    assert proxy.count("compute", "POST", r"/servers$") == len(desktops), "nobody lost a port under their hands"
    await world.one_of_each(*desktops)
    await world.nothing_left()
