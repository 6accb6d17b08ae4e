"""Volumes on a real Cinder: homes that are let go of, servers that boot from a volume or from a clone of a prepared one."""

from __future__ import annotations

import pytest

from beamdesk.adapters.openstack import homes
from beamdesk.adapters.openstack.config import Boot, Homes
from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.domain.errors import CloudError
from beamdesk.domain.server import Remedy
from beamdesk.ports.cloud import ServerSpec, ServerStatus
from contract.cloud_cases import clear, forget, reach, vanish
from contract.cloud_openstack import OpenStackCase
from controlplane.clouds import BEAMDESK
from controlplane.fixture import shared
from driverkit import eyes, nova_id

pytestmark = [pytest.mark.openstack, pytest.mark.anyio]


async def test_a_home_that_cinder_keeps_for_a_server_that_is_gone_is_released(
    case: OpenStackCase, cloud: OpenStackCloud, deployment: str, spec: ServerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    await cloud.delete_server(server.id)
    await vanish(case, cloud, spec)
    with eyes(BEAMDESK) as sdk:
        home = next(one for one in sdk.block_storage.volumes() if one.metadata.get("beamdesk_desktop") == str(spec.desktop_id))
        sdk.block_storage.wait_for_status(home, "available", interval=0.2, wait=30)
        body = {"attachment": {"volume_uuid": home.id, "instance_uuid": nova_id(server.id)}}
        lost = sdk.block_storage.post("/attachments", json=body, microversion="3.27")
        assert lost.status_code < 300, lost.text
    with pytest.raises(CloudError, match="waits for it"):
        await cloud.delete_home(spec.desktop_id)
    monkeypatch.setattr(homes, "_ORPHAN_S", 0)
    await forget(case, cloud, spec.desktop_id)
    assert await cloud.list_homes() == ()


@pytest.mark.parametrize("with_home", [False, True], ids=["root only", "root and home"])
async def test_a_server_boots_from_a_volume_that_goes_with_it(
    case: OpenStackCase, deployment: str, spec: ServerSpec, with_home: bool
) -> None:
    cloud = case.cloud(deployment, boot=Boot.VOLUME, homes=Homes(with_home, 1))
    server = await cloud.create_server(spec)
    await reach(case, cloud, spec, ServerStatus.ACTIVE)
    with eyes(BEAMDESK) as sdk:
        mine = [one for one in sdk.block_storage.volumes() if nova_id(server.id) in {at["server_id"] for at in one.attachments}]
        roots = [one for one in mine if one.is_bootable]
        assert [(one.size, one.volume_image_metadata["image_id"]) for one in roots] == [(spec.disk_gib, spec.image_ref)]
        assert len(mine) == 1 + with_home
        await cloud.delete_server(server.id)
        await vanish(case, cloud, spec)
        for _ in range(100):
            left = {one.id for one in sdk.block_storage.volumes()} & {one.id for one in mine}
            if len(left) == with_home:
                break
            await case.pause()
    assert left == {one.id for one in mine if one not in roots}, "the root goes, the home stays"
    await clear(case, cloud)


async def test_a_root_volume_that_cannot_be_made_is_told(case: OpenStackCase, deployment: str, spec: ServerSpec) -> None:
    cloud = case.cloud(deployment, boot=Boot.VOLUME, homes=Homes(enabled=False))
    with shared().fault("fail-volumes"):
        await cloud.create_server(spec)
        server = await reach(case, cloud, spec, ServerStatus.ERROR)
    assert server.fault.startswith("The desktop's volume could not be attached")
    assert (server.launched, server.remedy) == (False, Remedy.AGAIN)
    await clear(case, cloud)


async def test_a_server_boots_from_a_clone_of_a_prepared_volume(case: OpenStackCase, deployment: str, spec: ServerSpec) -> None:
    cloud = case.cloud(deployment, boot=Boot.CLONE, homes=Homes(enabled=False))
    with eyes(BEAMDESK) as sdk:
        master = sdk.block_storage.create_volume(size=1, metadata={"beamdesk_clone_of": spec.image_ref})
        sdk.block_storage.wait_for_status(master, "available", interval=0.3, wait=60)
        sdk.block_storage.set_volume_bootable_status(master, True)
        await cloud.create_server(spec)
        await reach(case, cloud, spec, ServerStatus.ACTIVE)
        clones = [one for one in sdk.block_storage.volumes() if one.source_volume_id == master.id]
        assert [one.name for one in clones] == [f"beamdesk-{spec.desktop_id}-root"]
        await clear(case, cloud)
        sdk.block_storage.delete_volume(master)
