"""A desktop's life on a real cloud with the reconciler: up, stopped, up again, gone; and what the sweeper finds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.domain.desktop import Desired, Phase, Reason
from beamdesk.domain.errors import CloudError
from beamdesk.domain.ids import DesktopId
from beamdesk.ports.cloud import ServerAccount, ServerSpec
from beamdesk.reconcile.sweeper import Sweeper
from controlplane.plane import ControlPlane
from controlplane.world import RULES, World, open_world, patience
from openstack_ops.site import cards_taken

pytestmark = [pytest.mark.openstack, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(openstack: ControlPlane, tmp_path: Path, anyio_backend: object) -> AsyncIterator[World]:
    async with open_world(openstack, openstack.clouds_yaml, tmp_path, timeout_s=30.0) as opened:
        yield opened


async def test_a_desktop_comes_up_stops_starts_with_a_new_nonce_and_goes_without_a_trace(world: World) -> None:
    world.start()
    (desktop,) = await world.add()
    (row,) = await world.ready(desktop)
    assert row.address is not None
    assert row.address.startswith("tcp:10.62.")
    await world.one_of_each(desktop)
    await world.want(desktop, Desired.STOPPED)
    await world.reach(desktop, Phase.STOPPED)
    await world.want(desktop, Desired.RUNNING)
    (again,) = await world.ready(desktop)
    assert again.server_id == row.server_id
    await world.nothing_left()


async def test_a_resized_and_a_rebuilt_desktop_have_a_new_server_and_the_old_home(world: World) -> None:
    world.start()
    (desktop,) = await world.add()
    (row,) = await world.ready(desktop)
    homes = (await asyncio.to_thread(world.left)).volumes
    assert homes, "this world keeps homes on Cinder"
    server_ids = [row.server_id]
    for flavor, named in (("gpu", "desk-a100"), ("small", "desk-small")):
        await world.want(desktop, Desired.STOPPED)
        await world.reach(desktop, Phase.STOPPED)
        await world.remake(desktop, flavor)
        assert (await world.now(desktop)).server_id == server_ids[-1], "nothing is lost before the next start"
        await world.want(desktop, Desired.RUNNING)
        (row,) = await world.ready(desktop)
        server_ids.append(row.server_id)
        await world.one_of_each(desktop)
        (record,) = await asyncio.to_thread(world.nova_records)
        assert (record["id"], record["flavor"]["original_name"]) == (row.server_id.rpartition(":")[2], named)
        assert (await asyncio.to_thread(world.left)).volumes == homes
    assert len(set(server_ids)) == 3
    await world.nothing_left()


async def test_a_stopped_desktop_gives_its_card_to_others_and_gets_one_back_when_one_is_free(world: World) -> None:
    world.start()
    with cards_taken(world.admin, 3):  # one is left
        (first,) = await world.add(flavor="gpu")
        (row,) = await world.ready(first)
        await world.want(first, Desired.STOPPED)
        await world.reach(first, Phase.STOPPED)
        (second,) = await world.add(flavor="gpu")
        await world.ready(second)
        await world.want(first, Desired.RUNNING)
        waiting = await world.reach(first, lambda now: now.reason is Reason.WAITING_FOR_CAPACITY)
        assert (waiting.phase, "room" in waiting.detail) == (Phase.QUEUED, True)
        await world.want(second, Desired.DELETED)
        again = await world.reach(first, Phase.READY)
        assert again.server_id == row.server_id
    await world.one_of_each(first)
    await world.nothing_left()
    assert not [one.name for one in world.admin.image.images() if str(first) in one.name], "what shelving kept is gone, too"


async def test_the_sweeper_removes_what_a_dead_process_made_for_a_desktop_that_is_gone(world: World) -> None:
    world.start(rules=replace(RULES, sweep=timedelta(hours=1)))
    (desktop,) = await world.add()
    await world.ready(desktop)
    await world.nothing_left()
    cloud = OpenStackCloud(world.config, world.deployment)
    account = ServerAccount("ada", 20001, 20001, (), "Ada Lin")
    zombie = ServerSpec(desktop, world.image, 1, 2048, 10, 0, account, (), "n", flavor_ref="small")
    await cloud.create_server(zombie)
    unknown = replace(zombie, desktop_id=DesktopId("neverheardof"))
    await cloud.create_server(unknown)
    sweeper = Sweeper(world.store, cloud, world.clock, replace(RULES, sweep_min_age=timedelta(0)))
    async for _ in patience():
        await sweeper.sweep()
        found = await asyncio.to_thread(world.left)
        if not any(str(desktop) in kind for kind in (found.servers, found.ports, found.volumes)):
            break
    else:
        pytest.fail(f"the sweeper leaves {found}")
    assert [list(kind) for kind in (found.servers, found.ports, found.volumes)] == [["neverheardof"]] * 3, "what nobody knows stays"
    (server,) = (await cloud.find_servers(unknown.desktop_id)).servers
    await cloud.delete_server(server.id)
    async for _ in patience():
        if not (await cloud.find_servers(unknown.desktop_id)).servers:
            break
    async for _ in patience():
        with contextlib.suppress(CloudError):  # Cinder may not have let go of the volume yet
            await cloud.delete_home(unknown.desktop_id)
            break
    else:
        pytest.fail("its home stays")
    await cloud.close()
