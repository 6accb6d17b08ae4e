"""Images, ports and homes that go, break or get stuck while a desktop needs them: told in words, made again, or waited for."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from beamdesk.adapters.openstack import homes
from beamdesk.domain.desktop import Desired, Phase, Reason
from controlplane.clouds import BEAMDESK
from controlplane.plane import ControlPlane
from controlplane.proxy import Fault, FaultProxy
from controlplane.world import World, patience
from driverkit import nova_id

pytestmark = [pytest.mark.openstack, pytest.mark.anyio, pytest.mark.usefixtures("foreign")]


@contextmanager
def before_the_server_is_made(proxy: FaultProxy) -> Iterator[Fault]:
    """Have something happen between the last look and Nova's taking of the order."""
    fault = proxy.hold("compute", "POST", r"/servers$")
    try:
        yield fault
    finally:
        fault.go.set()


async def held(fault: Fault) -> None:
    assert await asyncio.to_thread(fault.held.wait, 30), "no order for a server came"


async def test_an_image_deleted_in_the_last_moment_is_refused_in_words(
    world: World, proxy: FaultProxy, openstack: ControlPlane
) -> None:
    with openstack.connect(BEAMDESK) as own, before_the_server_is_made(proxy) as order:
        image = own.image.create_image(
            name="short-lived", data=io.BytesIO(bytes(1 << 20)), disk_format="raw", container_format="bare", wait=True
        )
        world.start()
        (desktop,) = await world.add(image=image.id)
        await held(order)
        await asyncio.to_thread(own.image.delete_image, image.id)
        since = time.time()
        order.go.set()
        await world.told(desktop, since, Reason.CLOUD_REFUSED)
    row = await world.now(desktop)
    assert (row.phase, "image is gone" in row.detail) == (Phase.FAILED, True)
    await world.nothing_left()


@pytest.mark.parametrize("what", ["port", "volume"])
async def test_a_port_or_home_deleted_in_the_last_moment_is_made_again(world: World, proxy: FaultProxy, what: str) -> None:
    with before_the_server_is_made(proxy) as order:
        world.start()
        (desktop,) = await world.add()
        await held(order)
        left = await asyncio.to_thread(world.left)
        if what == "port":
            await asyncio.to_thread(world.admin.network.delete_port, left.ports[str(desktop)][0])
        else:
            await asyncio.to_thread(world.admin.block_storage.delete_volume, left.volumes[str(desktop)][0], force=True)
    await world.ready(desktop)
    await world.one_of_each(desktop)
    await world.nothing_left()


async def test_a_home_that_no_backend_finishes_is_given_up_and_made_again(
    world: World, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a broker's restart that lost the scheduler's order to the backend."""
    monkeypatch.setattr(homes, "_GIVEN_UP_AFTER", timedelta(seconds=0))
    monkeypatch.setattr(homes, "_LOST_AFTER", timedelta(seconds=0))
    with before_the_server_is_made(proxy) as order:
        world.start()
        (desktop,) = await world.add()
        await held(order)
        (lost,) = (await asyncio.to_thread(world.left)).volumes[str(desktop)]
        await asyncio.to_thread(world.admin.block_storage.reset_volume_status, lost, "creating")
    await world.ready(desktop)
    await world.one_of_each(desktop)
    found = await asyncio.to_thread(world.left)
    assert found.given_up == {str(desktop): [lost]}
    assert found.volumes[str(desktop)] != [lost]
    await world.nothing_left()


async def test_a_port_deleted_behind_our_back_is_told_and_the_server_gets_a_new_one(world: World) -> None:
    """A server without a port cannot be heard of any more, which is all that anybody notices."""
    world.start()
    (desktop,) = await world.add()
    (row,) = await world.ready(desktop)
    (port,) = (await asyncio.to_thread(world.left)).ports[str(desktop)]
    since = time.time()
    await asyncio.to_thread(world.admin.network.delete_port, port)
    world.guests.silent.add(desktop)
    await world.told(desktop, since, Reason.GUEST_SILENT)
    async for _ in patience():
        ports = (await asyncio.to_thread(world.left)).ports.get(str(desktop), [])
        if ports and ports != [port]:
            break
    world.guests.silent.clear()
    again = await world.reach(desktop, Phase.READY)
    assert again.server_id == row.server_id
    await world.one_of_each(desktop)
    await world.nothing_left()


@pytest.mark.parametrize(
    ("action", "back", "phase", "reason"),
    [
        ({"os-reserve": {}}, {"os-unreserve": {}}, Phase.QUEUED, Reason.CLOUD_BUSY),  # somebody attaches it elsewhere
        (
            {"os-reset_status": {"status": "error"}},
            {"os-reset_status": {"status": "available"}},
            Phase.FAILED,
            Reason.CLOUD_REFUSED,
        ),
    ],
    ids=["in use", "broken"],
)
async def test_a_home_that_is_in_use_or_broken_is_told_and_used_when_it_is_well(
    world: World, action: dict[str, Any], back: dict[str, Any], phase: Phase, reason: Reason
) -> None:
    world.start()
    (desktop,) = await world.add()
    (row,) = await world.ready(desktop)
    (volume,) = (await asyncio.to_thread(world.left)).volumes[str(desktop)]

    def act(body: dict[str, Any]) -> None:
        answer = world.admin.block_storage.post(f"/volumes/{volume}/action", json=body)
        assert answer.status_code == 202, answer.text

    await world.want(desktop, Desired.STOPPED)
    await world.reach(desktop, Phase.STOPPED)
    await asyncio.to_thread(world.admin.compute.delete_server, nova_id(row.server_id))
    async for _ in patience():
        shown = await asyncio.to_thread(world.admin.block_storage.get_volume, volume)
        if not (await asyncio.to_thread(world.left)).servers and shown.status == "available":
            break
    await asyncio.to_thread(act, action)
    since = time.time()
    await world.want(desktop, Desired.RUNNING)
    await world.told(desktop, since, reason)
    row = await world.now(desktop)
    assert (row.phase, "volume" in row.detail) == (phase, True)
    await asyncio.to_thread(act, back)
    if phase is Phase.FAILED:
        await world.want(desktop, Desired.RUNNING)
    await world.ready(desktop)
    assert (await asyncio.to_thread(world.left)).volumes[str(desktop)] == [volume], "the home with the person's work"
    await world.nothing_left()
