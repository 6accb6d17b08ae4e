"""Why no host takes a desktop, on a real Placement and Nova: each cause made for a while, told with counts, hosts named to operators."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from beamdesk.adapters.openstack.config import OpenStackConfig, PciAlias
from beamdesk.adapters.openstack.refusals import Refusals
from beamdesk.adapters.openstack.why_run import examine_size
from beamdesk.cli.main import build
from beamdesk.domain.errors import CloudError
from beamdesk.domain.server import Remedy
from controlplane.plane import ControlPlane
from openstack_ops.site import cards_taken, config, flavor, image

pytestmark = pytest.mark.openstack

A100 = PciAlias("CUSTOM_GPU", ("CUSTOM_GPU_MODEL_A100",))
CARDED = "host-001"  # the only one with A100, four of them


@pytest.fixture
def admin(openstack: ControlPlane) -> Iterator[Any]:
    with openstack.connect("admin") as cloud:
        yield cloud


def site(openstack: ControlPlane, **place: str) -> OpenStackConfig:
    return replace(config(openstack.clouds_yaml, cloud="admin", **place), pci_aliases={"a100": A100})


def why(of: OpenStackConfig, size: str, image_id: str = "") -> Refusals:
    return asyncio.run(examine_size(of, of.places[0], size, image_id))


def services(admin: Any) -> dict[str, str]:
    listed = admin.compute.get("/os-services?binary=nova-compute", microversion="2.53").json()["services"]
    return {one["host"]: one["id"] for one in listed}


@contextmanager
def service(admin: Any, host: str, **state: Any) -> Iterator[None]:
    """Have a host's service in another state."""
    path, back = f"/os-services/{services(admin)[host]}", {"status": "enabled"} if "status" in state else {"forced_down": False}
    assert admin.compute.put(path, json=state, microversion="2.53").status_code == 200
    try:
        yield
    finally:
        admin.compute.put(path, json=back, microversion="2.53")


@contextmanager
def aggregate(admin: Any, hosts: tuple[str, ...], **metadata: str) -> Iterator[None]:
    """Have hosts in an aggregate."""
    made = admin.compute.create_aggregate(name=f"of-a-test-{uuid.uuid4().hex[:6]}")
    try:
        admin.compute.set_aggregate_metadata(made, metadata)
        for host in hosts:
            admin.compute.add_host_to_aggregate(made, host)
        yield
    finally:
        for host in hosts:
            admin.compute.remove_host_from_aggregate(made, host)
        admin.compute.delete_aggregate(made)


def test_a_size_that_fits_everywhere_lacks_nothing(openstack: ControlPlane) -> None:
    found = why(site(openstack), "desk-small")
    assert (found.total, len(found.left), found.counted()) == (5, 5, "")


def test_a_size_that_is_larger_than_every_host_is_told_so(openstack: ControlPlane) -> None:
    found = why(site(openstack), "desk-too-big")
    assert found.words() == "All 5 hosts have fewer than 1000 vCPUs free. None is large enough, even when it is empty."
    assert found.remedy is Remedy.PERSON


def test_cards_are_counted_and_waited_for(openstack: ControlPlane, admin: Any) -> None:
    assert why(site(openstack), "desk-a100").left == (CARDED,)
    with cards_taken(admin, 4):
        found = why(site(openstack), "desk-a100")
        assert (found.words(), found.remedy) == ("All 5 hosts have no free a100.", Remedy.WAIT)
    with flavor(admin, "of-a-test", {"pci_passthrough:alias": "a100:5"}):
        found = why(site(openstack), "of-a-test")
        assert found.words() == "All 5 hosts have fewer than 5 a100 free. None is large enough, even when it is empty."


def test_each_host_counts_for_the_first_thing_that_it_lacks(openstack: ControlPlane, admin: Any) -> None:
    with (
        service(admin, "host-000", status="disabled"),
        service(admin, "host-002", forced_down=True),
        service(admin, CARDED, status="disabled"),
        flavor(admin, "of-a-test", {"pci_passthrough:alias": "a100:1"}, ram=600 * 1024),
    ):
        found = why(site(openstack), "of-a-test")
    assert found.words() == (
        "Of 5 hosts 1 does not answer, 2 are disabled and 2 have less than 600 GiB of memory free. "
        "None is large enough, even when it is empty."
    )
    assert found.why["host-002"] == "does not answer"


def test_zones_aggregates_and_kinds_of_machine_keep_hosts_out(openstack: ControlPlane, admin: Any) -> None:
    with aggregate(admin, ("host-003",), availability_zone="beamline"):
        found = why(site(openstack, availability_zone="beamline"), "desk-small")
        assert (found.left, found.counted()) == (("host-003",), "Of 5 hosts 4 are in another availability zone.")
    with (
        aggregate(admin, ("host-004",), ssd="true"),
        flavor(admin, "of-a-test", {"aggregate_instance_extra_specs:ssd": "true"}),
    ):
        found = why(site(openstack), "of-a-test")
        assert (found.left, found.counted()) == (("host-004",), "Of 5 hosts 4 are not set aside for this size.")
    with image(admin, "of-a-test", {"img_hv_type": "kvm"}) as other:
        assert why(site(openstack), "desk-small", other.id).counted() == "All 5 hosts cannot run the image's kind of machine."


def test_a_trait_that_no_host_has_is_named(openstack: ControlPlane, admin: Any) -> None:
    with flavor(admin, "of-a-test", {"trait:HW_CPU_X86_AVX512F": "required"}):
        assert why(site(openstack), "of-a-test").counted() == "All 5 hosts lack HW_CPU_X86_AVX512F."


def test_an_account_without_rights_is_told_so(openstack: ControlPlane) -> None:
    member = config(openstack.clouds_yaml)
    with pytest.raises(CloudError, match="may not list the hosts"):
        why(member, "desk-small")


def test_the_command_names_hosts(openstack: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "CLOUD": "openstack", "OPENSTACK__CLOUD": "admin", "OPENSTACK__CLOUDS_YAML": str(openstack.clouds_yaml),
        "OPENSTACK__GUEST_URL": "https://guest.example", "OPENSTACK__GATEWAY_ADDRESSES": '["10.9.0.5/32"]',
        "OPENSTACK__CALL_TIMEOUT_S": "60",
        "OPENSTACK__PCI_ALIASES": '{"a100": {"resource_class": "CUSTOM_GPU", "traits": ["CUSTOM_GPU_MODEL_A100"]}}',
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(f"BEAMDESK_{name}", value)
    result = CliRunner().invoke(build(with_services=True), ["openstack", "why", "desk-a100"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:3] == [
        "Of 5 hosts 4 have no free a100.",
        "  host-000: has no free a100",
        "  host-001: has room",
    ]
    result = CliRunner().invoke(build(with_services=True), ["openstack", "why", "desk-too-big"])
    assert result.exit_code == 1
