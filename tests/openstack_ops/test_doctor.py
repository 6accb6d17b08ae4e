"""The doctor on a real cloud: a cloud that is ready is fine, and each thing that is really broken is found by its check."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beamdesk.adapters.openstack.config import Boot, Firewall, Homes, OpenStackConfig
from beamdesk.adapters.openstack.doctor import Finding, Verdict
from beamdesk.adapters.openstack.doctor_run import examine_config
from controlplane.plane import ControlPlane
from controlplane.proxy import FaultProxy
from openstack_ops.site import IMAGE, TITLES, SetClock, config, finding, flavor, image, network, offers

pytestmark = pytest.mark.openstack


@pytest.fixture(scope="module")
def admin(openstack: ControlPlane) -> Iterator[Any]:
    with offers(openstack) as connection:
        yield connection


@pytest.fixture
def site(openstack: ControlPlane, admin: Any) -> OpenStackConfig:
    return config(openstack.clouds_yaml)


@pytest.fixture
def entry(openstack: ControlPlane, tmp_path: Path) -> Any:
    """Write a clouds.yaml whose entry ``odd`` is Beamdesk's with changes."""

    def write(auth: dict[str, str] | None = None, **changes: str) -> OpenStackConfig:
        clouds = json.loads(openstack.clouds_yaml.read_text())["clouds"]
        odd = clouds["beamdesk"]
        odd.update(changes)
        odd["auth"].update(auth or {})
        path = tmp_path / "clouds.yaml"
        path.write_text(json.dumps({"clouds": {"odd": odd}}))
        return config(path, cloud="odd")

    return write


def test_a_cloud_that_is_ready_is_fine(site: OpenStackConfig) -> None:
    found = asyncio.run(examine_config(site, SetClock(), admin_cloud="admin"))
    assert {one.id: one.facts for one in found if one.failed} == {}
    assert [one.id for one in found if one.verdict is Verdict.UNKNOWN] == ["compute.scheduler", "network.metadata"]


def test_without_an_administrator_what_it_cannot_see_is_unknown_not_wrong(site: OpenStackConfig) -> None:
    found = asyncio.run(examine_config(site, SetClock()))
    assert {one.id: one.facts for one in found if one.failed} == {}
    hidden = {one.id for one in found if one.verdict is Verdict.UNKNOWN and "--admin-cloud" in one.remedy}
    assert {"compute.services", "compute.room", "gpu.inventories"} <= hidden


def broken(found: Finding, id_: str, *words: str) -> None:
    assert (found.id, found.failed) == (id_, True), found
    assert found.remedy
    text = " ".join(found.facts)
    assert [word for word in words if word not in text] == []


def test_a_wrong_password_ends_the_examination(entry: Any) -> None:
    broken(finding(entry({"password": "other"}), "images.offered"), "identity.sign-in", "credentials")


def test_a_password_is_never_shown(entry: Any) -> None:
    found = finding(entry({"password": "hunter2-secret"}), "images.offered")
    assert "hunter2" not in " ".join((*found.facts, found.remedy))


def test_an_address_where_nobody_answers(entry: Any) -> None:
    broken(finding(entry({"auth_url": "http://127.0.0.1:9/v3"}), "images.offered"), "identity.sign-in")


def test_an_unknown_project(entry: Any) -> None:
    broken(finding(entry({"project_name": "nowhere"}), "images.offered"), "identity.sign-in")


def test_a_region_that_the_catalogue_does_not_have(entry: Any) -> None:
    found = finding(entry(region_name="Elsewhere"), "images.offered")
    assert found.id in {"identity.sign-in", "identity.services"}
    assert found.failed


def test_an_administrator_as_service_account_is_warned_of(openstack: ControlPlane) -> None:
    found = finding(config(openstack.clouds_yaml, cloud="admin"), "identity.rights")
    assert found.verdict is Verdict.WARNING


def test_an_account_that_may_only_read_is_wrong(admin: Any, entry: Any) -> None:
    project = admin.identity.find_project("beamdesk")
    user = admin.identity.create_user(name="ops-reader", password="reader", domain_id="default")
    try:
        admin.identity.assign_project_role_to_user(project, user, admin.identity.find_role("reader"))
        broken(finding(entry({"username": "ops-reader", "password": "reader"}), "identity.rights"), "identity.rights", "reader")
    finally:
        admin.identity.delete_user(user)


def test_an_application_credential_is_fine(openstack: ControlPlane) -> None:
    found = finding(config(openstack.clouds_yaml, cloud="beamdesk-app"), "identity.rights")
    assert found.verdict is Verdict.OK
    assert not any("password" in fact for fact in found.facts)


def test_clocks_that_differ(site: OpenStackConfig) -> None:
    assert finding(site, "clock.difference").verdict is Verdict.OK
    assert finding(site, "clock.difference", off_s=-20).verdict is Verdict.WARNING
    broken(finding(site, "clock.difference", off_s=300), "clock.difference", "behind")


def test_what_can_be_told_of_hosts_depends_on_rights(openstack: ControlPlane, site: OpenStackConfig) -> None:
    told = finding(config(openstack.clouds_yaml, cloud="admin"), "compute.causes")
    assert (told.verdict, [fact.split(":")[0] for fact in told.facts]) == (Verdict.OK, ["told"] * 3)
    member = finding(site, "compute.causes")
    assert (member.verdict, len([fact for fact in member.facts if "may not read" in fact])) == (Verdict.OK, 3)


def test_services_whose_clocks_differ_or_are_not_told(openstack: ControlPlane, tmp_path: Path) -> None:
    with FaultProxy(openstack) as proxy:
        seen = config(proxy.write_clouds(tmp_path / "clouds.yaml"))
        proxy.clocks = {"compute": 900.0, "network": None}
        found = finding(seen, "clock.difference")
    broken(found, "clock.difference", "ahead")
    assert any(fact.startswith(("Nova is 900 s ahead", "Nova is 899 s ahead")) for fact in found.facts)
    assert "Neutron does not tell its time" in found.facts


def test_a_service_that_does_not_answer(entry: Any) -> None:
    broken(finding(entry(image_endpoint_override="http://127.0.0.1:9"), "images.offered"), "images.offered", "Glance")


def test_compute_services_that_are_switched_off(openstack: ControlPlane, site: OpenStackConfig, admin: Any) -> None:
    services = [one for one in admin.compute.services() if one.binary == "nova-compute"]
    try:
        for one in services:
            admin.compute.disable_service(one)
        broken(finding(site, "compute.services", admin=True), "compute.services", "nova-compute: 0 of")
    finally:
        for one in services:
            admin.compute.enable_service(one)


def test_one_compute_service_that_is_down_is_a_warning(site: OpenStackConfig, admin: Any) -> None:
    one = next(one for one in admin.compute.services() if one.binary == "nova-compute")
    try:
        admin.compute.update_service_forced_down(one, forced=True)
        found = finding(site, "compute.services", admin=True)
        assert found.verdict is Verdict.WARNING
        assert f"nova-compute on {one.host} is down" in found.facts
    finally:
        admin.compute.update_service_forced_down(one, forced=False)


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ({"beamdesk:gpus": "2"}, ("beamdesk:gpus says 2",)),
        ({"pci_passthrough:alias": "gpu:some"}, ("must be a number",)),
    ],
)
def test_a_malformed_flavor(site: OpenStackConfig, admin: Any, specs: dict[str, str], words: tuple[str, ...]) -> None:
    with flavor(admin, "ops-odd", {**TITLES, **specs}):
        broken(finding(site, "flavors.left-out"), "flavors.left-out", "ops-odd", *words)
        assert finding(site, "flavors.offered").verdict is Verdict.OK


def test_a_flavor_that_fits_nowhere(site: OpenStackConfig, admin: Any) -> None:
    with flavor(admin, "ops-huge", TITLES, vcpus=4000):
        found = finding(site, "compute.room", admin=True)
    assert found.verdict is Verdict.WARNING
    assert "ops-huge: no host" in found.facts


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ({"resources:VGPU": "1"}, ("no host has VGPU",)),
        ({"resources:CUSTOM_GPU_NOWHERE": "1"}, ("there is no resource class CUSTOM_GPU_NOWHERE",)),
        ({"resources:CUSTOM_GPU": "1", "trait:HW_GPU_API_DXR": "required"}, ("no free card has HW_GPU_API_DXR",)),
    ],
)
def test_a_flavor_with_a_gpu_that_no_host_has(
    site: OpenStackConfig, admin: Any, specs: dict[str, str], words: tuple[str, ...]
) -> None:
    with flavor(admin, "ops-odd-gpu", {**TITLES, **specs}):
        broken(finding(site, "gpu.flavors", admin=True), "gpu.flavors", *words)


def test_a_flavor_with_a_class_that_hosts_have_is_fine(site: OpenStackConfig, admin: Any) -> None:
    with flavor(admin, "ops-class", {**TITLES, "resources:CUSTOM_GPU": "1"}):
        assert finding(site, "gpu.flavors", admin=True).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"beamdesk_image": "two words"}, "beamdesk_image must be"),
        ({"beamdesk_software": "[{"}, "not valid JSON"),
        ({"beamdesk_title_en": " "}, "beamdesk_title_en is missing"),
    ],
)
def test_a_malformed_image(site: OpenStackConfig, admin: Any, properties: dict[str, str], words: str) -> None:
    with image(admin, "ops-odd", {**IMAGE, "beamdesk_image": "ops-odd", **properties}):
        broken(finding(site, "images.left-out"), "images.left-out", "ops-odd", words)
        assert "ops-imaging: Imaging beamline" in " ".join(finding(site, "images.offered").facts)


def test_a_replaced_image_is_no_mistake(site: OpenStackConfig, admin: Any) -> None:
    with image(admin, "ops-imaging-2", IMAGE):
        found = finding(site, "images.left-out")
    assert found.verdict is Verdict.OK
    assert any("a newer image of the name ops-imaging is on offer" in fact for fact in found.facts)


@pytest.mark.parametrize(
    ("form", "words"),
    [({"disk_format": "ploop"}, "disk format ploop"), ({"min_disk": 500}, "it needs a disk of 500 GiB")],
)
def test_an_image_that_no_desktop_can_start_from(site: OpenStackConfig, admin: Any, form: dict[str, Any], words: str) -> None:
    with image(admin, "ops-form", {**IMAGE, "beamdesk_image": "ops-form"}, **form):
        broken(finding(site, "images.form"), "images.form", words)


def test_an_image_whose_kernel_would_not_see_its_config_drive(site: OpenStackConfig, admin: Any) -> None:
    plain = {key: value for key, value in IMAGE.items() if not key.startswith("hw_")}
    with image(admin, "ops-debian", {**plain, "beamdesk_image": "ops-debian", "os_distro": "debian"}):
        found = finding(site, "images.form")
    assert found.verdict is Verdict.WARNING
    assert any("hw_cdrom_bus" in fact for fact in found.facts)


def on(site: OpenStackConfig, name: str) -> OpenStackConfig:
    return replace(site, places=(replace(site.places[0], network=name),))


def test_no_such_network(site: OpenStackConfig) -> None:
    broken(finding(on(site, "nowhere"), "network.network"), "network.network", "no network nowhere", "desktops")


def test_two_networks_of_one_name(site: OpenStackConfig, admin: Any) -> None:
    with network(admin, "ops-twice", "10.70.0.0/24"), network(admin, "ops-twice", "10.71.0.0/24"):
        broken(finding(on(site, "ops-twice"), "network.network"), "network.network", "2 networks")


def test_a_network_may_be_named_by_its_id(site: OpenStackConfig, admin: Any) -> None:
    assert finding(on(site, admin.network.find_network("desktops").id), "network.network").verdict is Verdict.OK


def test_a_network_without_a_subnet(site: OpenStackConfig, admin: Any) -> None:
    with network(admin, "ops-bare", None):
        broken(finding(on(site, "ops-bare"), "network.network"), "network.network", "no subnet")


def test_a_network_that_is_switched_off(site: OpenStackConfig, admin: Any) -> None:
    with network(admin, "ops-off", "10.72.0.0/24", is_admin_state_up=False):
        broken(finding(on(site, "ops-off"), "network.network"), "network.network", "down")


def test_a_network_whose_addresses_are_used_up(site: OpenStackConfig, admin: Any) -> None:
    with network(admin, "ops-full", "10.73.0.0/30") as full:
        admin.network.create_port(network_id=full.id)
        broken(finding(on(site, "ops-full"), "network.addresses", admin=True), "network.addresses", "0 addresses left")


def test_a_port_quota_that_is_used_up(site: OpenStackConfig, admin: Any) -> None:
    project = admin.identity.find_project("beamdesk")
    admin.network.put(f"/quotas/{project.id}", json={"quota": {"port": 0}})
    try:
        broken(finding(site, "network.ports"), "network.ports", "all 0 ports are used")
    finally:
        admin.network.delete(f"/quotas/{project.id}")


def test_a_network_where_security_groups_do_nothing(site: OpenStackConfig, admin: Any) -> None:
    with network(admin, "ops-open", "10.74.0.0/24", is_port_security_enabled=False):
        broken(finding(on(site, "ops-open"), "network.firewall"), "network.firewall")


def test_a_security_group_of_the_site_that_is_not_there(site: OpenStackConfig) -> None:
    odd = replace(site, firewall=Firewall(("10.9.0.5/32",), groups=("ops-nowhere",)))
    broken(finding(odd, "network.firewall"), "network.firewall", "ops-nowhere")


def test_a_gateway_that_is_everybody(site: OpenStackConfig) -> None:
    broken(finding(replace(site, firewall=Firewall(("0.0.0.0/0",))), "network.firewall"), "network.firewall", "everybody")


def test_neither_config_drive_nor_dhcp(site: OpenStackConfig) -> None:
    broken(finding(replace(site, config_drive=False), "network.user-data"), "network.user-data")


def test_volumes_need_cinder(site: OpenStackConfig) -> None:
    assert finding(replace(site, boot=Boot.VOLUME), "identity.services").verdict is Verdict.OK


def homes(site: OpenStackConfig, **more: Any) -> OpenStackConfig:
    return replace(site, homes=Homes(enabled=True, gib=1, **more))


def test_a_volume_type_that_is_not_there(site: OpenStackConfig) -> None:
    broken(finding(homes(site, volume_type="ops-nowhere"), "volumes.types"), "volumes.types", "ops-nowhere", "the account sees")
    assert finding(homes(site), "volumes.types").verdict is Verdict.OK


def test_a_volume_quota_that_is_used_up(site: OpenStackConfig, admin: Any) -> None:
    project = admin.identity.find_project("beamdesk")
    assert finding(homes(site), "volumes.quota").verdict is Verdict.OK
    admin.block_storage.put(f"/os-quota-sets/{project.id}", json={"quota_set": {"volumes": 0}})
    try:
        broken(finding(homes(site), "volumes.quota"), "volumes.quota", "room for 0 volumes")
    finally:
        admin.block_storage.delete(f"/os-quota-sets/{project.id}")


def test_a_volume_that_cinder_never_finishes(openstack: ControlPlane, site: OpenStackConfig, admin: Any) -> None:
    with openstack.connect("beamdesk") as own:
        made = own.block_storage.create_volume(size=1, name="ops-stuck", metadata={"beamdesk_deployment": "ops"})
        own.block_storage.wait_for_status(made, "available", interval=0.2, wait=60)
    admin.block_storage.reset_volume_status(made, "creating")
    try:
        assert finding(homes(site), "volumes.stuck").verdict is Verdict.OK
        found = finding(homes(site), "volumes.stuck", off_s=3600)
        assert (found.verdict, [made.id in fact and "is creating since" in fact for fact in found.facts]) == (
            Verdict.WARNING,
            [True],
        )
    finally:
        admin.block_storage.reset_volume_status(made, "error")
        admin.block_storage.delete_volume(made)
