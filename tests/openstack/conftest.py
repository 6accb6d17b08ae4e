"""What the fault tests share: a proxy before the real APIs, a deployment behind it, and a stranger's things that nobody may touch.

At the end it says how long the truth took; `World.told` holds each of them to the promise of 10 s.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.ports.cloud import ServerSpec
from contract.cloud_cases import clear
from contract.cloud_openstack import OpenStackCase, open_case
from controlplane.content import IMAGE
from controlplane.plane import ControlPlane
from controlplane.proxy import FaultProxy
from controlplane.world import World, open_world


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStackCase]:
    with open_case(tmp_path_factory.mktemp("cloud")) as opened:
        yield opened


@pytest.fixture
def deployment() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def spec(case: OpenStackCase) -> ServerSpec:
    return case.spec(uuid.uuid4().hex[:16])


@pytest.fixture
async def cloud(case: OpenStackCase, deployment: str) -> AsyncIterator[OpenStackCloud]:
    made = case.cloud(deployment)
    yield made
    await clear(case, made)


@pytest.fixture
def proxy(openstack: ControlPlane) -> Iterator[FaultProxy]:
    with FaultProxy(openstack) as proxy:
        yield proxy


@pytest.fixture
async def world(openstack: ControlPlane, proxy: FaultProxy, tmp_path: Path, anyio_backend: object) -> AsyncIterator[World]:
    async with open_world(openstack, proxy.write_clouds(tmp_path / "clouds.yaml"), tmp_path) as world:
        yield world


@pytest.fixture(scope="module")
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
        before = _looks(cloud, server.id)
        yield
        assert _looks(cloud, server.id) == before, "a foreign server was touched"
        cloud.compute.delete_server(server)
        cloud.compute.wait_for_delete(server, interval=0.3, wait=120)
        cloud.network.delete_network(network)


def _looks(cloud: Any, server_id: str) -> tuple[object, ...]:
    server = cloud.compute.get_server(server_id)
    ports = sorted((port.id, port.status, port.device_id) for port in cloud.network.ports(device_id=server_id))
    return server.status, server.updated_at, server.metadata, ports, len(list(cloud.compute.server_actions(server_id)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the slowest truth of each kind."""
    world = sys.modules.get("controlplane.world")
    slowest: dict[str, float] = {}
    for reason, seconds in world.truths if world else ():
        slowest[reason] = max(seconds, slowest.get(reason, 0))
    if slowest:
        words = ", ".join(f"{reason} {seconds:.1f} s" for reason, seconds in sorted(slowest.items()))
        terminalreporter.write_line(f"told to the user at the latest after: {words}")
