"""What an operator puts into an empty cloud, made and taken away again; and the doctor run on it, one check at a time."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from beamdesk.adapters.openstack.config import Firewall, GuestApi, OpenStackConfig, Place
from beamdesk.adapters.openstack.connection import Connection
from beamdesk.adapters.openstack.doctor import Finding, examine
from beamdesk.adapters.openstack.doctor_cloud import CloudProbe
from beamdesk.adapters.openstack.doctor_run import CLOUD_CHECKS
from controlplane.plane import ControlPlane

TITLES = {"beamdesk:title_en": "Size", "beamdesk:title_zh": "规格"}
IMAGE = {
    "beamdesk_image": "ops-imaging",
    "beamdesk_title_en": "Imaging beamline",
    "beamdesk_title_zh": "成像线站",
    "beamdesk_software": '[{"name": "silx view", "description": {"en": "Looks", "zh": "看"}}]',
    "beamdesk_beamlines": "B7,B8",
    "hw_cdrom_bus": "scsi",
    "hw_scsi_model": "virtio-scsi",
}


class SetClock:
    """A clock that is off by so many seconds."""

    def __init__(self, off_s: float = 0.0) -> None:
        self.off = timedelta(seconds=off_s)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.off


def config(clouds_yaml: Path, *, cloud: str = "beamdesk", **place: str) -> OpenStackConfig:
    """Return the settings of a site with one place."""
    return OpenStackConfig(
        places=(Place("main", cloud, **{"network": "desktops", **place}),),
        guest=GuestApi("https://guest.example"),
        clouds_yaml=clouds_yaml,
        firewall=Firewall(gateways=("10.9.0.5/32",)),
        timeout_s=60,
    )


def finding(of: OpenStackConfig, id_: str, *, admin: bool = False, off_s: float = 0.0) -> Finding:
    """Run one check, and what must be fine before it; return the last finding."""
    checks = [check for check in CLOUD_CHECKS if check.first or check.id == id_]

    async def run() -> Finding:
        place = of.places[0]
        connection = Connection(place, of)
        administrator = Connection(replace(place, cloud="admin"), of) if admin else None
        try:
            found = [one async for one in examine(checks, CloudProbe(place, of, connection, SetClock(off_s), administrator))]
        finally:
            connection.close()
            if administrator:
                administrator.close()
        return next((one for one in found if one.id == id_), found[-1])

    return asyncio.run(run())


@contextmanager
def flavor(cloud: Any, name: str, specs: dict[str, str], **size: int) -> Iterator[Any]:
    """Have a flavor for a while."""
    made = cloud.compute.create_flavor(name=name, **{"vcpus": 1, "ram": 1024, "disk": 5, **size})
    try:
        if specs:
            cloud.compute.create_flavor_extra_specs(made, specs)
        yield made
    finally:
        cloud.compute.delete_flavor(made)


@contextmanager
def image(cloud: Any, name: str, properties: dict[str, Any], **more: Any) -> Iterator[Any]:
    """Have an image for a while."""
    form = {"disk_format": "raw", "container_format": "bare", "visibility": "public", **more}
    made = cloud.image.create_image(name=name, data=io.BytesIO(bytes(1 << 20)), wait=True, **form, **properties)
    try:
        yield made
    finally:
        cloud.image.delete_image(made)


@contextmanager
def network(cloud: Any, name: str, cidr: str | None, **more: Any) -> Iterator[Any]:
    """Have a network, with a subnet unless ``cidr`` is None, for a while."""
    made = cloud.network.create_network(name=name, is_shared=True, **more)
    try:
        if cidr:
            cloud.network.create_subnet(name=f"{name}-v4", network_id=made.id, ip_version=4, cidr=cidr, is_dhcp_enabled=False)
        yield made
    finally:
        for port in list(cloud.network.ports(network_id=made.id)):
            cloud.network.delete_port(port)
        cloud.network.delete_network(made)


@contextmanager
def offers(plane: ControlPlane) -> Iterator[Any]:
    """Have one image and two flavors on offer, one with a GPU; yield an administrator's connection."""
    with (
        plane.connect("admin") as admin,
        flavor(admin, "ops-small", TITLES),
        flavor(admin, "ops-gpu", {**TITLES, "pci_passthrough:alias": "gpu:1"}, vcpus=2),
        image(admin, "ops-imaging-1", IMAGE),
    ):
        yield admin


@contextmanager
def cards_taken(admin: Any, number: int) -> Iterator[None]:
    """Have A100 in use, as Placement sees it."""
    cards = admin.placement.get("/resource_providers?required=CUSTOM_GPU_MODEL_A100", microversion="1.29").json()[
        "resource_providers"
    ]
    consumers = [str(uuid.uuid4()) for _ in range(number)]
    project = admin.current_project_id
    for consumer, card in zip(consumers, cards, strict=False):
        body = {
            "allocations": {card["uuid"]: {"resources": {"CUSTOM_GPU": 1}}},
            "consumer_generation": None, "project_id": project, "user_id": admin.current_user_id,
        }  # fmt: skip
        assert admin.placement.put(f"/allocations/{consumer}", json=body, microversion="1.29").status_code == 204
    try:
        yield
    finally:
        for consumer in consumers:
            admin.placement.delete(f"/allocations/{consumer}", microversion="1.29")
