"""Two clouds under one deployment: experiments by pattern, one list, and what happens when one of the two does not answer."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from beamdesk.adapters.openstack.config import Homes, OpenStackConfig, Place
from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.domain.desktop import Desired, Phase, Reason
from beamdesk.domain.errors import CloudError
from beamdesk.domain.ids import DesktopId
from beamdesk.ports.cloud import ServerAccount, ServerSpec, ServerStatus
from contract.cloud_openstack import open_case
from controlplane.clouds import BEAMDESK
from controlplane.content import IMAGE, NETWORK
from controlplane.fixture import shared
from controlplane.layout import Options
from controlplane.plane import ControlPlane
from controlplane.world import World, open_world, patience

pytestmark = [pytest.mark.openstack, pytest.mark.anyio]

HERE, THERE = "heps-*", "esrf-*"


@dataclass
class Both:
    """Two clouds; the second is small and without volumes."""

    second: ControlPlane
    clouds_yaml: Path
    config: OpenStackConfig

    def spec(self, experiment: str) -> ServerSpec:
        """Return a small desktop; each cloud has the image under an id of its own."""
        plane = shared() if experiment.startswith("heps") else self.second
        with plane.connect(BEAMDESK) as sdk:
            image = sdk.image.find_image(IMAGE, ignore_missing=False).id
        account = ServerAccount("ada", 20001, 20001, (), "Ada Lin")
        name = DesktopId(uuid.uuid4().hex[:16])
        return ServerSpec(name, image, 1, 2048, 10, 0, account, (), "n", flavor_ref="small", experiment=experiment)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("clouds")
    with (
        ControlPlane(folder / "plane", Options(hosts=1, volumes=False), say=print) as second,
        open_case(folder) as case,
    ):
        clouds = json.loads(shared().clouds_yaml.read_text())
        clouds["clouds"]["second"] = json.loads(second.clouds_yaml.read_text())["clouds"][BEAMDESK]
        path = folder / "clouds.yaml"
        path.write_text(json.dumps(clouds))
        places = (
            replace(case.config.places[0], name="here", experiments=(HERE,)),
            Place("there", "second", NETWORK, experiments=(THERE,)),
        )
        yield Both(second, path, replace(case.config, places=places, clouds_yaml=path, homes=Homes(enabled=False)))


@pytest.fixture
async def cloud(both: Both, anyio_backend: object) -> AsyncIterator[OpenStackCloud]:
    made = OpenStackCloud(both.config, uuid.uuid4().hex)
    yield made
    for server in (await made.list_servers()).servers:
        await made.delete_server(server.id)
    async for _ in patience():
        if not (await made.list_servers()).servers:
            break
    for home in await made.list_homes():
        await made.delete_home(home)
    await made.close()


async def running(cloud: OpenStackCloud, spec: ServerSpec) -> str:
    async for _ in patience():
        servers = (await cloud.find_servers(spec.desktop_id)).servers
        if [one.status for one in servers] == [ServerStatus.ACTIVE]:
            return servers[0].id
    raise AssertionError(f"{servers}")


async def test_each_experiment_has_its_cloud_and_there_is_one_list(both: Both, cloud: OpenStackCloud) -> None:
    here, there = both.spec("heps-2026-0147"), both.spec("esrf-1")
    first, second = await cloud.create_server(here), await cloud.create_server(there)
    assert (first.id.split(":")[0], second.id.split(":")[0]) == ("here", "there")
    assert await running(cloud, here) == first.id
    assert await running(cloud, there) == second.id
    listed = await cloud.list_servers()
    assert ({one.id for one in listed.servers}, listed.complete) == ({first.id, second.id}, True)
    await cloud.stop_server(second.id)
    async for _ in patience():
        if (await cloud.find_servers(there.desktop_id)).servers[0].status is ServerStatus.SHUTOFF:
            break
    assert (await cloud.find_servers(here.desktop_id)).servers[0].status is ServerStatus.ACTIVE


async def test_while_one_cloud_is_away_nothing_is_concluded_and_the_other_works(both: Both, cloud: OpenStackCloud) -> None:
    here, there, new = both.spec("heps-2026-0147"), both.spec("esrf-1"), both.spec("heps-2026-0147")
    first, second = await cloud.create_server(here), await cloud.create_server(there)
    await running(cloud, here)
    await running(cloud, there)
    with both.second.stopped("nova-api"):
        for seen in (await cloud.list_servers(), await cloud.find_servers(here.desktop_id)):
            assert ([one.id for one in seen.servers], seen.complete) == ([first.id], False)
        assert not (await cloud.find_servers(there.desktop_id)).complete
        with pytest.raises(CloudError, match="whether the desktop has a server there") as refused:
            await cloud.create_server(new)
        assert refused.value.retryable
        await cloud.stop_server(first.id)
        with pytest.raises(CloudError):
            await cloud.delete_home(there.desktop_id)
    async for _ in patience():
        if (await cloud.find_servers(here.desktop_id)).servers[0].status is ServerStatus.SHUTOFF:
            break
    assert await running(cloud, there) == second.id, "it lived on"
    await cloud.create_server(new)
    await running(cloud, new)


async def test_strangers_with_our_names_are_left_alone_in_both(both: Both, cloud: OpenStackCloud) -> None:
    other = OpenStackCloud(both.config, uuid.uuid4().hex)
    specs = [both.spec("heps-2026-0147"), both.spec("esrf-1")]
    theirs = [await other.create_server(one) for one in specs]
    for one in specs:
        await running(other, one)
    assert (await cloud.list_servers()).servers == ()
    for server in theirs:
        for attempt in (cloud.stop_server(server.id), cloud.delete_server(server.id)):
            with pytest.raises(CloudError, match="does not belong"):
                await attempt
    for one, server in zip(specs, theirs, strict=True):
        assert await running(other, one) == server.id
        await other.delete_server(server.id)
    async for _ in patience():
        if not (await other.list_servers()).servers:
            break
    for home in await other.list_homes():
        await other.delete_home(home)
    await other.close()


@pytest.fixture
async def world(both: Both, tmp_path: Path, anyio_backend: object) -> AsyncIterator[World]:
    async with open_world(shared(), both.clouds_yaml, tmp_path, homes=Homes(enabled=False)) as opened:
        place = replace(opened.config.places[0], name="here", experiments=(HERE,))
        opened.config = replace(opened.config, places=(place, both.config.places[1]))
        yield opened


async def test_a_cloud_that_is_away_is_told_to_those_whom_it_concerns(both: Both, world: World) -> None:
    world.start()
    (healthy,) = await world.add()
    await world.ready(healthy)
    await asyncio.to_thread(both.second.stop, "nova-api")
    since = time.time()
    (new,) = await world.add()
    await world.told(new, since, Reason.CLOUD_UNAVAILABLE, Reason.CLOUD_BUSY)
    assert re.search("part of the cloud|Nova did not answer", (await world.now(new)).detail)
    assert (await world.now(healthy)).phase is Phase.READY
    both.second.spawn("nova-api")
    await asyncio.to_thread(both.second.wait, "nova-api")
    await world.ready(healthy, new)
    await world.want(new, Desired.DELETED)
    await world.want(healthy, Desired.DELETED)
    await world.delete_all()
