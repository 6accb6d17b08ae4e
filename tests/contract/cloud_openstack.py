"""The OpenStack driver's part in the cloud contract suite: a real control plane, in a network that the project owns."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from beamdesk.adapters.openstack.config import Firewall, GuestApi, Homes, OpenStackConfig, Place
from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.domain.ids import DesktopId
from beamdesk.ports.cloud import ServerAccount, ServerMount, ServerSpec
from controlplane.clouds import BEAMDESK
from controlplane.content import IMAGE
from controlplane.fixture import shared

GATEWAY = "10.9.0.1/32"


@dataclass
class OpenStackCase:
    """One control plane, one network of its own, and the driver's settings for it."""

    config: OpenStackConfig
    image: str
    clouds_yaml: Path
    folder: Path

    def cloud(self, deployment_id: str, **changes: Any) -> OpenStackCloud:
        """Return a driver; ``changes`` to its settings."""
        return OpenStackCloud(replace(self.config, **changes), deployment_id)

    def unreachable(self) -> OpenStackCloud:
        clouds = json.loads(self.clouds_yaml.read_text(encoding="utf-8"))
        clouds["clouds"][BEAMDESK]["auth"]["auth_url"] = "http://127.0.0.1:9/v3"
        nowhere = self.folder / "nowhere.yaml"
        nowhere.write_text(json.dumps(clouds), encoding="utf-8")
        return self.cloud("nobody", clouds_yaml=nowhere)

    def spec(self, desktop_id: str) -> ServerSpec:
        account = ServerAccount("ada", 20001, 20001, (30147,), "Ada Lin")
        mounts = (ServerMount("heps-2026-0147", "raw", writable=False), ServerMount("heps-2026-0147", "processed", writable=True))
        return ServerSpec(
            DesktopId(desktop_id), self.image, 1, 2048, 10, 0, account, mounts, "the-nonce",
            flavor_ref="small", experiment="heps-2026-0147",
        )  # fmt: skip

    async def pause(self) -> None:
        await asyncio.sleep(0.2)


@contextmanager
def open_case(folder: Path) -> Iterator[OpenStackCase]:
    """Make a network of the project's own, and remove it at the end with all that is still in it."""
    plane = shared()
    with plane.connect(BEAMDESK) as cloud:
        network = cloud.network.create_network(name=f"contract-{uuid.uuid4().hex[:8]}")
        cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.61.0.0/16", is_dhcp_enabled=False)
        config = OpenStackConfig(
            places=(Place("main", BEAMDESK, network.id),),
            guest=GuestApi("https://beamdesk.example"),
            clouds_yaml=plane.clouds_yaml,
            flavors={"small": "desk-small"},
            firewall=Firewall(gateways=(GATEWAY,)),
            homes=Homes(enabled=True, gib=1),
            timeout_s=30,
        )
        try:
            yield OpenStackCase(config, cloud.image.find_image(IMAGE, ignore_missing=False).id, plane.clouds_yaml, folder)
        finally:
            for port in cloud.network.ports(network_id=network.id):
                cloud.network.delete_port(port, ignore_missing=True)
            cloud.network.delete_network(network, ignore_missing=True)
