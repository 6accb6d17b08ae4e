"""The test control plane is a real cloud: what Beamdesk's tests rely on holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controlplane.content import FLAVORS, IMAGE, NETWORK
from controlplane.plane import ControlPlane

pytestmark = pytest.mark.openstack


@pytest.fixture(scope="module")
def stranger(openstack: ControlPlane) -> Iterator[Any]:
    with openstack.connect("stranger") as cloud:
        yield cloud
        for server in list(cloud.compute.servers()):
            if server.name.startswith("plane-"):
                cloud.compute.delete_server(server)


def build(cloud: Any, flavor: str) -> Any:
    server = cloud.compute.create_server(
        name=f"plane-{flavor}",
        flavor_id=cloud.compute.find_flavor(flavor).id,
        image_id=cloud.image.find_image(IMAGE).id,
        networks=[{"uuid": cloud.network.find_network(NETWORK).id}],
    )
    return reach(lambda: cloud.compute.get_server(server.id), lambda seen: seen.status != "BUILD")


def reach(look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    """Look until it is enough; two minutes are a hang."""
    for _ in range(600):
        seen = look()
        if enough(seen):
            return seen
        time.sleep(0.2)
    pytest.fail(f"still {seen}")


def test_a_gpu_flavor_takes_a_card_of_its_model_in_placement(openstack: ControlPlane, stranger: Any) -> None:
    server = build(stranger, "desk-a100")
    assert server.status == "ACTIVE"
    with openstack.connect("admin") as admin:
        assert admin.compute.get_server(server.id).hypervisor_hostname == "host-001"
        allocations = admin.placement.get(f"/allocations/{server.id}").json()["allocations"]
    assert [entry["resources"]["CUSTOM_GPU"] for entry in allocations.values() if "CUSTOM_GPU" in entry["resources"]] == [1]


def test_a_flavor_that_fits_nowhere_ends_in_error(stranger: Any) -> None:
    server = build(stranger, "desk-too-big")
    assert server.status == "ERROR"
    assert "No valid host" in server.fault["message"]


def test_a_build_that_fails_on_the_host_ends_in_error(openstack: ControlPlane, stranger: Any) -> None:
    with openstack.fault("fail-builds"):
        assert build(stranger, "desk-small").status == "ERROR"


def test_servers_outlive_their_compute_process(openstack: ControlPlane, stranger: Any) -> None:
    server = build(stranger, "desk-t4")
    openstack.restart(openstack.process_of("host-002"))
    stranger.compute.stop_server(server)
    assert reach(lambda: stranger.compute.get_server(server.id), lambda seen: seen.status != "ACTIVE").status == "SHUTOFF"


def test_hosts_do_periodically_what_the_configuration_says(openstack: ControlPlane) -> None:
    """With Nova's own pauses, hundreds of hosts at rest keep a machine busy: these two are off in the configuration."""
    log = (openstack.layout.logs / f"{openstack.process_of('host-000')}.log").read_text()
    tasks = next(line for line in log.splitlines() if line.startswith("periodic tasks:"))
    assert "update_available_resource" in tasks
    assert "_sync_power_states" not in tasks
    assert "_heal_instance_info_cache" not in tasks


def test_each_account_sees_its_project(openstack: ControlPlane) -> None:
    projects = {}
    for name in ("beamdesk", "beamdesk-app", "stranger", "beamdesk-other"):
        with openstack.connect(name) as cloud:
            projects[name] = cloud.current_project_id
            assert {flavor.name for flavor in cloud.compute.flavors()} == set(FLAVORS)
    assert projects["beamdesk"] == projects["beamdesk-app"] == projects["stranger"] != projects["beamdesk-other"]
