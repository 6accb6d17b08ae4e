"""Stopping keeps cards, shelving gives them back: which servers are shelved, and what comes of one that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from beamdesk.adapters.openstack.config import Firewall, WhenStopped
from beamdesk.adapters.openstack.driver import OpenStackCloud
from beamdesk.adapters.openstack.names import NONCE_KEY, Names
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.server import Remedy, ServerStatus
from beamdesk.ports.cloud import ServerAccount, ServerSpec
from unit.openstack.tiny_cloud import Answer, TinyCloud, config_for, tiny_cloud

pytestmark = pytest.mark.anyio
DEPLOYMENT, DESKTOP, UUID = "d" * 32, DesktopId("0123456789abcdef"), "7ac8a3d2-8c2d-4a4f-9f6e-2f7cf0d15f2c"
NAMES = Names(DEPLOYMENT)
SERVER, PORTS = f"/compute/v2.1/servers/{UUID}", "/network/v2.0/ports"
ACTION, METADATA = f"{SERVER}/action", f"{SERVER}/metadata"
SPEC = ServerSpec(DESKTOP, "image", 1, 2048, 10, 0, ServerAccount("ada", 20001, 20001, (), "Ada"), (), "fresh", experiment="b7-1")
CARDS = {"pci_passthrough:alias": "a100:1"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def cloud() -> Iterator[TinyCloud]:
    with tiny_cloud() as serving:
        serving.on("GET", PORTS, Answer(200, {"ports": []}))
        serving.on("POST", ACTION, Answer(202))
        yield serving


def record(status: str = "ACTIVE", task: str | None = None, specs: dict[str, str] | None = None) -> Answer:
    server = {
        "id": UUID, "status": status, "OS-EXT-STS:task_state": task, "created": "2026-11-20T22:05:08Z", "metadata": {},
        "tags": [NAMES.tag, NAMES.desktop_tag(DESKTOP)], "flavor": {"vcpus": 1, "ram": 1, "disk": 1, "extra_specs": specs or {}},
    }  # fmt: skip
    return Answer(200, {"server": server, "servers": [server]})


def driver(cloud: TinyCloud, folder: Path, when_stopped: WhenStopped) -> OpenStackCloud:
    return OpenStackCloud(config_for(cloud, folder, when_stopped=when_stopped, firewall=Firewall(managed=False)), DEPLOYMENT)


@pytest.mark.parametrize(
    ("when_stopped", "specs", "action"),
    [
        (WhenStopped.STOP, CARDS, "os-stop"),
        (WhenStopped.SHELVE, {}, "shelve"),
        (WhenStopped.SHELVE_CARDS, {}, "os-stop"),
        (WhenStopped.SHELVE_CARDS, CARDS, "shelve"),
        (WhenStopped.SHELVE_CARDS, {"resources:VGPU": "1"}, "shelve"),
    ],
)
async def test_which_servers_are_shelved(
    cloud: TinyCloud, tmp_path: Path, when_stopped: WhenStopped, specs: dict[str, str], action: str
) -> None:
    cloud.on("GET", SERVER, record(specs=specs))
    opened = driver(cloud, tmp_path, when_stopped)
    await opened.stop_server(ServerId(f"main:{UUID}"))
    assert [list(body) for body in cloud.bodies] == [[action]]
    await opened.close()


@pytest.mark.parametrize("task", ["shelving", "shelving_image_uploading", "shelving_offloading", "powering-off"])
async def test_one_on_its_way_is_left_to_it(cloud: TinyCloud, tmp_path: Path, task: str) -> None:
    cloud.on("GET", SERVER, record(task=task, specs=CARDS))
    opened = driver(cloud, tmp_path, WhenStopped.SHELVE_CARDS)
    await opened.stop_server(ServerId(f"main:{UUID}"))
    assert cloud.bodies == []
    await opened.close()


async def test_one_that_cannot_be_shelved_is_stopped_at_least(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", SERVER, record(specs=CARDS))
    opened = driver(cloud, tmp_path, WhenStopped.SHELVE_CARDS)
    for _ in range(2):  # Nova accepted it, and then could not keep the disk in Glance
        await opened.stop_server(ServerId(f"main:{UUID}"))
    assert [list(body) for body in cloud.bodies] == [["shelve"], ["os-stop"]]
    await opened.close()


async def test_a_server_without_a_host_may_have_to_wait_for_one(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", "/compute/v2.1/servers/detail", record("SHELVED_OFFLOADED"))
    opened = driver(cloud, tmp_path, WhenStopped.SHELVE)
    (server,) = (await opened.find_servers(DESKTOP)).servers
    assert (server.status, server.remedy, "room" in server.fault) == (ServerStatus.SHUTOFF, Remedy.WAIT, True)
    await opened.close()


async def test_the_nonce_of_a_shelved_server_follows_once_it_takes_one(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", SERVER, record("SHELVED_OFFLOADED"))
    cloud.on("POST", METADATA, Answer(409), Answer(409), Answer(200, {"metadata": {}}))
    opened = driver(cloud, tmp_path, WhenStopped.SHELVE)
    await opened.start_server(ServerId(f"main:{UUID}"), SPEC)
    assert [list(body) for body in cloud.bodies][:2] == [["metadata"], ["unshelve"]]
    (following,) = opened.places["main"].power._marking.values()
    await following
    assert cloud.asked["POST", METADATA] == 3
    assert cloud.bodies[-1] == {"metadata": {NONCE_KEY: "fresh"}}
    await opened.close()


async def test_the_nonce_of_an_earlier_start_does_not_follow_that_of_a_later_one(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", SERVER, record("SHELVED_OFFLOADED"))
    cloud.on("POST", METADATA, Answer(409))
    opened = driver(cloud, tmp_path, WhenStopped.SHELVE)
    await opened.start_server(ServerId(f"main:{UUID}"), replace(SPEC, nonce="first"))
    (first,) = opened.places["main"].power._marking.values()
    await opened.start_server(ServerId(f"main:{UUID}"), replace(SPEC, nonce="second"))
    cloud.on("POST", METADATA, Answer(200, {"metadata": {}}))
    (second,) = opened.places["main"].power._marking.values()
    await second
    assert first.cancelled() or first.done()
    assert [body["metadata"] for body in cloud.bodies if "metadata" in body][-1] == {NONCE_KEY: "second"}
    await opened.close()
