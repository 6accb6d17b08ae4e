"""The driver over several places, on clouds of a few scripted answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from beamdesk.adapters.openstack.config import Firewall, Homes, Place
from beamdesk.adapters.openstack.driver import UNLIMITED, OpenStackCloud
from beamdesk.adapters.openstack.errors import NOT_SENT, Service, unreachable
from beamdesk.adapters.openstack.names import Names, server_id
from beamdesk.domain.errors import CloudError, CloudRefused, CloudUnavailable, NotSupported
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.server import ServerStatus
from beamdesk.ports.cloud import Capacity, ServerAccount, ServerSpec
from unit.openstack.tiny_cloud import Answer, TinyCloud, config_for, tiny_cloud

pytestmark = pytest.mark.anyio
DEPLOYMENT, DESKTOP = "d" * 32, DesktopId("0123456789abcdef")
UUID, OTHER = "7ac8a3d2-8c2d-4a4f-9f6e-2f7cf0d15f2c", "7ac8a3d2-8c2d-4a4f-9f6e-2f7cf0d15f2d"
NAMES = Names(DEPLOYMENT)
SERVERS, PORTS = "/compute/v2.1/servers/detail", "/network/v2.0/ports"
SPEC = ServerSpec(DESKTOP, "image", 1, 2048, 10, 0, ServerAccount("ada", 20001, 20001, (), "Ada"), (), "nonce", experiment="b7-1")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def cloud() -> Iterator[TinyCloud]:
    with tiny_cloud() as serving:
        serving.on("GET", SERVERS, Answer(200, {"servers": []}))
        serving.on("GET", PORTS, Answer(200, {"ports": []}))
        yield serving


def record(uuid: str = UUID, *, status: str = "ACTIVE", ours: bool = True) -> dict[str, object]:
    tags = [NAMES.tag, NAMES.desktop_tag(DESKTOP)] if ours else ["somebody"]
    return {"id": uuid, "status": status, "created": "2026-11-20T22:05:08Z", "tags": tags, "metadata": {}}


def port(device: str = UUID, address: str = "10.0.0.7") -> dict[str, object]:
    return {"id": "p", "name": NAMES.resource(DESKTOP), "device_id": device, "fixed_ips": [{"ip_address": address}]}


def driver(cloud: TinyCloud, folder: Path, *places: Place) -> OpenStackCloud:
    config = config_for(cloud, folder, **({"places": places} if places else {}))
    if len(places) > 1:
        clouds = json.loads((folder / "clouds.yaml").read_text())
        clouds["clouds"]["down"] = {
            "auth": {**clouds["clouds"]["beamdesk"]["auth"], "auth_url": "http://127.0.0.1:9/v3"},
            "region_name": "One",
        }
        (folder / "clouds.yaml").write_text(json.dumps(clouds))
        (folder / "secure.yaml").write_text(
            json.dumps({"clouds": {name: {"auth": {"password": "x"}} for name in ("beamdesk", "down")}})
        )
    return OpenStackCloud(config, DEPLOYMENT)


async def test_a_server_has_its_ports_address_and_its_places_name(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", SERVERS, Answer(200, {"servers": [record()]}))
    cloud.on("GET", PORTS, Answer(200, {"ports": [port()]}))
    opened = driver(cloud, tmp_path)
    observed = await opened.find_servers(DESKTOP)
    (server,) = observed.servers
    assert (server.id, server.address, observed.complete) == (f"main:{UUID}", "tcp:10.0.0.7:8082", True)
    await opened.close()


async def test_an_address_of_version_6_is_in_brackets(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", SERVERS, Answer(200, {"servers": [record()]}))
    cloud.on("GET", PORTS, Answer(200, {"ports": [port(address="fd00::7")]}))
    opened = driver(cloud, tmp_path)
    assert (await opened.find_servers(DESKTOP)).servers[0].address == "tcp:[fd00::7]:8082"
    await opened.close()


async def test_a_server_that_nova_leaves_out_is_found_by_its_port(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", PORTS, Answer(200, {"ports": [port()]}))
    partial = {"id": UUID, "status": "UNKNOWN", "created": "2026-11-20T22:05:08Z", "tenant_id": "p"}
    cloud.on("GET", f"/compute/v2.1/servers/{UUID}", Answer(200, {"server": partial}))
    opened = driver(cloud, tmp_path)
    (server,) = (await opened.find_servers(DESKTOP)).servers
    assert (server.id, server.status) == (f"main:{UUID}", ServerStatus.UNKNOWN)
    await opened.close()


async def test_a_port_that_still_names_a_deleted_server_proves_nothing(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", PORTS, Answer(200, {"ports": [port()]}))
    opened = driver(cloud, tmp_path)
    observed = await opened.find_servers(DESKTOP)
    assert (observed.servers, observed.complete) == ((), True)
    await opened.close()


async def test_many_ports_without_server_make_the_list_incomplete_instead_of_many_requests(
    cloud: TinyCloud, tmp_path: Path
) -> None:
    cloud.on("GET", PORTS, Answer(200, {"ports": [port(f"{UUID[:-2]}{number:02d}") for number in range(40)]}))
    opened = driver(cloud, tmp_path)
    assert not (await opened.list_servers()).complete
    assert sum(count for (_, path), count in cloud.asked.items() if path.startswith("/compute/v2.1/servers/")) <= 6
    await opened.close()


async def test_a_list_of_five_hundred_costs_two_requests(cloud: TinyCloud, tmp_path: Path) -> None:
    servers = [record(f"7ac8a3d2-8c2d-4a4f-9f6e-{number:012x}") for number in range(499)]
    cloud.on("GET", SERVERS, Answer(200, {"servers": servers}))
    opened = driver(cloud, tmp_path)
    assert len((await opened.list_servers()).servers) == 499
    assert (cloud.asked["GET", SERVERS], cloud.asked["GET", PORTS]) == (1, 1)
    await opened.close()


async def test_what_nova_lists_without_our_tag_is_not_ours(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", SERVERS, Answer(200, {"servers": [record(ours=False)]}))
    opened = driver(cloud, tmp_path)
    assert (await opened.list_servers()).servers == ()
    await opened.close()


async def test_one_place_that_is_down_makes_the_observation_incomplete(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", SERVERS, Answer(200, {"servers": [record()]}))
    opened = driver(cloud, tmp_path, Place("main", "beamdesk", "desktops"), Place("far", "down", "desktops"))
    observed = await opened.find_servers(DESKTOP)
    assert (len(observed.servers), observed.complete) == (1, False)
    with pytest.raises(CloudUnavailable):
        await opened.list_homes()
    await opened.close()


async def test_nothing_is_made_while_a_place_cannot_tell_whether_it_is_there_already(cloud: TinyCloud, tmp_path: Path) -> None:
    opened = driver(cloud, tmp_path, Place("main", "beamdesk", "desktops"), Place("far", "down", "desktops"))
    with pytest.raises(CloudUnavailable, match="whether the desktop has a server there"):
        await opened.create_server(SPEC)
    assert not [path for method, path in cloud.asked if method == "POST" and "identity" not in path]
    await opened.close()


async def test_an_experiment_that_no_place_takes_is_refused(cloud: TinyCloud, tmp_path: Path) -> None:
    opened = driver(cloud, tmp_path, Place("b8", "beamdesk", "desktops", experiments=("b8-*",)))
    with pytest.raises(CloudRefused, match=r"openstack\.places"):
        await opened.create_server(SPEC)
    await opened.close()


async def test_a_server_of_a_place_that_the_settings_lost_is_not_taken_for_deleted(cloud: TinyCloud, tmp_path: Path) -> None:
    opened = driver(cloud, tmp_path)
    with pytest.raises(CloudRefused, match=r"openstack\.places"):
        await opened.delete_server(server_id("elsewhere", UUID))
    await opened.close()


def ready_to_order(cloud: TinyCloud, folder: Path) -> OpenStackCloud:
    cloud.on("GET", "/compute/v2.1/flavors/detail", Answer(200, {"flavors": [{"id": "f1", "name": "small"}]}))
    cloud.on("GET", "/network/v2.0/networks", Answer(200, {"networks": [{"id": "desktops"}]}))
    cloud.on("POST", PORTS, Answer(201, {"port": port(device="")}))
    cloud.on("POST", "/compute/v2.1/servers", Answer(202, {"server": {"id": UUID}}))
    return OpenStackCloud(config_for(cloud, folder, firewall=Firewall(managed=False), homes=Homes()), DEPLOYMENT)


@pytest.mark.parametrize("first", [True, False])
async def test_a_first_server_is_ordered_without_looking_for_another(cloud: TinyCloud, tmp_path: Path, first: bool) -> None:
    opened = ready_to_order(cloud, tmp_path)
    await opened.create_server(replace(SPEC, flavor_ref="small", first=first))
    looks = cloud.asked["GET", "/compute/v2.1/servers/detail"], cloud.asked["GET", PORTS]
    assert all(looks) is not first
    assert any(looks) is not first
    await opened.close()


async def test_a_first_server_is_not_ordered_while_somebody_holds_the_port(cloud: TinyCloud, tmp_path: Path) -> None:
    """A store from a backup may not know of a server; the port does."""
    opened = ready_to_order(cloud, tmp_path)
    taken = {"NeutronError": {"type": "MacAddressInUse", "message": "The mac address is in use.", "detail": ""}}
    cloud.on("POST", PORTS, Answer(409, taken))
    with pytest.raises(CloudError, match="earlier attempt") as refused:
        await opened.create_server(replace(SPEC, flavor_ref="small", first=True))
    assert refused.value.retryable
    assert not cloud.asked["POST", "/compute/v2.1/servers"]
    await opened.close()


@pytest.mark.parametrize(("kind", "gone"), [(NOT_SENT, 1), ("", 0)], ids=["never sent", "perhaps carried out"])
async def test_only_an_order_that_was_never_sent_gives_its_port_back(
    cloud: TinyCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, gone: int
) -> None:
    opened = ready_to_order(cloud, tmp_path)

    async def order(*_args: object) -> None:
        raise unreachable(Service.COMPUTE, "make the server", "no connection", kind)

    monkeypatch.setattr(opened.places["main"].servers, "create", order)
    cloud.on("DELETE", f"{PORTS}/{port(device='')['id']}", Answer(204))
    with pytest.raises(CloudUnavailable):
        await opened.create_server(replace(SPEC, flavor_ref="small", first=True))
    assert cloud.asked["DELETE", f"{PORTS}/{port(device='')['id']}"] == gone
    assert (SPEC.desktop_id in opened.places["main"].ports._idle) is not bool(gone)
    await opened.close()


@pytest.mark.parametrize("hints", [{}, {"beamdesk_until": "1795942800", "beamdesk_booking": "b1|b3"}])
async def test_the_order_for_a_server_carries_the_hints_and_nothing_where_there_are_none(
    cloud: TinyCloud, tmp_path: Path, hints: dict[str, str]
) -> None:
    opened = ready_to_order(cloud, tmp_path)
    cloud.on("GET", f"/compute/v2.1/servers/{UUID}", Answer(200, {"server": record(status="BUILD")}))
    made = await opened.create_server(replace(SPEC, flavor_ref="small", hints=hints))
    (order,) = [body for body in cloud.bodies if "server" in body]
    assert made.id == server_id("main", UUID)
    assert order.get("os:scheduler_hints", {}) == hints
    assert "os:scheduler_hints" not in order["server"]
    await opened.close()


async def test_a_foreign_server_is_neither_stopped_nor_deleted(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", f"/compute/v2.1/servers/{OTHER}", Answer(200, {"server": record(OTHER, ours=False)}))
    opened = driver(cloud, tmp_path)
    for attempt in (opened.stop_server(server_id("main", OTHER)), opened.delete_server(server_id("main", OTHER))):
        with pytest.raises(CloudRefused, match="does not belong"):
            await attempt
    assert not [path for method, path in cloud.asked if method in ("POST", "DELETE") and "compute" in path]
    await opened.close()


@pytest.mark.parametrize(
    ("absolute", "capacity"),
    [
        ({"maxTotalCores": 40, "maxTotalRAMSize": 81920}, Capacity(40, 81920, UNLIMITED, UNLIMITED)),
        ({"maxTotalCores": -1, "maxTotalRAMSize": 81920}, Capacity(UNLIMITED, 81920, UNLIMITED, UNLIMITED)),
        ({"maxTotalCores": -1, "maxTotalRAMSize": -1}, None),
        ({}, None),
    ],
)
async def test_the_capacity_is_what_quotas_allow(
    cloud: TinyCloud, tmp_path: Path, absolute: dict[str, int], capacity: Capacity | None
) -> None:
    cloud.on("GET", "/compute/v2.1/limits", Answer(200, {"limits": {"rate": [], "absolute": absolute}}))
    opened = driver(cloud, tmp_path)
    assert await opened.capacity() == capacity
    await opened.close()


async def test_the_address_of_a_console_is_given_where_there_is_one(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", f"/compute/v2.1/servers/{UUID}", Answer(200, {"server": record()}))
    consoles = f"/compute/v2.1/servers/{UUID}/remote-consoles"
    url = "https://console.example/vnc?token=1"
    gone = Answer(400, {"badRequest": {"message": "Unavailable console type novnc."}})
    cloud.on("POST", consoles, Answer(200, {"remote_console": {"url": url}}), gone)
    opened = driver(cloud, tmp_path)
    assert await opened.console_url(ServerId(f"main:{UUID}")) == url
    with pytest.raises(NotSupported, match="Unavailable console type"):
        await opened.console_url(ServerId(f"main:{UUID}"))
    await opened.close()


NOBODY = {"message": "No valid host was found. There are not enough hosts available.", "code": 500}
HYPERVISORS, FORBIDDEN = "/compute/v2.1/os-hypervisors/detail", Answer(403, {"forbidden": {"message": "Policy doesn't allow it"}})
CANDIDATES = "/placement/allocation_candidates"


async def fault_of(cloud: TinyCloud, folder: Path) -> str:
    failed = {**record(status="ERROR"), "fault": NOBODY, "flavor": {"vcpus": 64, "ram": 2048, "disk": 10}}
    cloud.on("GET", SERVERS, Answer(200, {"servers": [failed]}))
    opened = driver(cloud, folder)
    first, again = [(await opened.find_servers(DESKTOP)).servers[0].fault for _ in range(2)]
    assert first == again
    await opened.close()
    return first


async def test_which_resource_no_host_has_is_told_where_only_placement_may_be_asked(cloud: TinyCloud, tmp_path: Path) -> None:
    some = {
        "allocation_requests": [{"allocations": {"h1": {"resources": {"VCPU": 64}}}}],
        "provider_summaries": {"h1": {"root_provider_uuid": "h1"}},
    }
    cloud.on("GET", HYPERVISORS, FORBIDDEN)
    cloud.on("GET", CANDIDATES, Answer(200, some), Answer(200, {"allocation_requests": []}))
    told = await fault_of(cloud, tmp_path)
    assert "No host has room: each has less than 2 GiB of memory free. (Nova: No valid host" in told
    assert cloud.asked["GET", HYPERVISORS] == 1, "who may not ask is not asked again"


async def test_room_that_the_scheduler_refused_is_told_as_such(cloud: TinyCloud, tmp_path: Path) -> None:
    some = {"allocation_requests": [{"allocations": {"h1": {}}}], "provider_summaries": {"h1": {"root_provider_uuid": "h1"}}}
    cloud.on("GET", HYPERVISORS, FORBIDDEN)
    cloud.on("GET", CANDIDATES, Answer(200, some))
    assert "refused them for another reason" in await fault_of(cloud, tmp_path)


async def test_who_may_list_hosts_tells_how_many_lack_what_and_names_none(cloud: TinyCloud, tmp_path: Path) -> None:
    hosts = [
        {"id": f"h{number}", "hypervisor_hostname": f"node-{number}", "state": state, "status": status, "hypervisor_type": "QEMU",
         "vcpus": 128, "memory_mb": 1 << 20, "local_gb": 1000, "service": {"host": f"node-{number}"}}
        for number, (state, status) in enumerate([("up", "enabled"), ("up", "disabled"), ("down", "enabled"), ("up", "enabled")])
    ]  # fmt: skip
    full = {
        "allocation_requests": [{"allocations": {"h0": {}}}],
        "provider_summaries": {"h0": {"root_provider_uuid": "h0"}},
    }
    cloud.on("GET", HYPERVISORS, Answer(200, {"hypervisors": hosts}))
    cloud.on("GET", "/compute/v2.1/os-aggregates", Answer(200, {"aggregates": []}))
    cloud.on("GET", CANDIDATES, Answer(200, full), Answer(200, {"allocation_requests": []}))
    told = await fault_of(cloud, tmp_path)
    assert (
        "Of 4 hosts 1 does not answer, 1 is disabled, 1 has fewer than 64 vCPUs free and 1 has less than 2 GiB of memory free."
        in told
    )
    assert "node-" not in told


async def test_without_the_right_to_ask_placement_the_fault_stands_alone(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", CANDIDATES, Answer(403, {"errors": [{"detail": "Access was denied"}]}))
    assert (await fault_of(cloud, tmp_path)).startswith("No host of the cloud can take this desktop now. (Nova:")
    assert cloud.asked["GET", CANDIDATES] == 1


async def test_a_port_that_nova_binds_while_its_server_is_deleted_is_released(cloud: TinyCloud, tmp_path: Path) -> None:
    cloud.on("GET", f"/compute/v2.1/servers/{UUID}", Answer(200, {"server": record(status="BUILD")}))
    cloud.on("DELETE", f"/compute/v2.1/servers/{UUID}", Answer(204))
    cloud.on("GET", PORTS, Answer(200, {"ports": [port(device="")]}))
    cloud.on("DELETE", f"{PORTS}/p", Answer(403, {"NeutronError": {"message": "rule:delete_port is disallowed by policy"}}))
    cloud.on("PUT", f"{PORTS}/p", Answer(200, {"port": port()}))
    opened = driver(cloud, tmp_path)
    await opened.delete_server(ServerId(f"main:{UUID}"))
    assert cloud.bodies == [{"port": {"name": NAMES.released(DESKTOP)}}]
    await opened.close()
