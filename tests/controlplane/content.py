"""What the cloud contains when a test meets it: accounts, projects, flavors, a network, an image. Made once, then part of the cache."""

from __future__ import annotations

import io
from typing import Any

from .clouds import ADMIN, APP_CREDENTIAL, BEAMDESK, PROJECTS, connect
from .layout import PASSWORD, REGION, Layout

NETWORK, SUBNET, IMAGE = "desktops", "desktops-v4", "beamdesk-imaging"
FLAVORS: dict[str, tuple[int, int, int, dict[str, str]]] = {
    # name: vCPUs, MiB, GiB, extra specs
    "desk-small": (1, 2048, 10, {}),
    "desk-medium": (4, 8192, 20, {}),
    "desk-gpu": (8, 32768, 40, {"pci_passthrough:alias": "gpu:1"}),
    "desk-a100": (8, 32768, 40, {"pci_passthrough:alias": "a100:1"}),
    "desk-v100": (8, 32768, 40, {"pci_passthrough:alias": "v100:1"}),
    "desk-t4": (8, 32768, 40, {"pci_passthrough:alias": "t4:1"}),
    "desk-too-big": (1000, 4_000_000, 10, {}),  # fits nowhere
}
IMAGE_PROPERTIES = {"os_distro": "debian", "os_version": "12", "hw_cdrom_bus": "scsi", "hw_scsi_model": "virtio-scsi"}
_SERVICES = (
    ("image", "glance", "glance", ""),
    ("placement", "placement", "placement", ""),
    ("compute", "nova", "nova", "/v2.1"),
    ("network", "neutron", "neutron", ""),
    ("block-storage", "cinder", "cinder", "/v3"),
)  # type, name, port, path


def make_catalogue(layout: Layout) -> None:
    """Make the services' account and the catalogue: Keystone alone must run."""
    with connect(layout.clouds, ADMIN) as cloud:
        _person(cloud, "services", {"service": ("admin", "service")})
        for kind, name, port, path in _SERVICES:
            service = cloud.identity.create_service(name=name, type=kind)
            for interface in ("public", "internal", "admin"):
                cloud.identity.create_endpoint(
                    service_id=service.id, interface=interface, url=f"{layout.url(port)}{path}", region_id=REGION
                )


def _person(cloud: Any, name: str, roles: dict[str, tuple[str, ...]]) -> None:
    user = cloud.identity.create_user(name=name, password=PASSWORD, domain_id="default")
    for project_name, role_names in roles.items():
        project = cloud.identity.find_project(project_name) or cloud.identity.create_project(name=project_name, domain_id="default")
        for role in role_names:
            found = cloud.identity.find_role(role) or cloud.identity.create_role(name=role)
            cloud.identity.assign_project_role_to_user(project, user, found)


def make_content(layout: Layout) -> None:
    """Make the rest: every API must run, no compute need."""
    with connect(layout.clouds, ADMIN) as cloud:
        _person(cloud, "beamdesk", dict.fromkeys(PROJECTS, ("member",)))
        _person(cloud, "stranger", {"beamdesk": ("member",)})
        for name, (vcpus, ram, disk, specs) in FLAVORS.items():
            flavor = cloud.compute.create_flavor(name=name, vcpus=vcpus, ram=ram, disk=disk)
            if specs:
                cloud.compute.create_flavor_extra_specs(flavor, specs)
        network = cloud.network.create_network(name=NETWORK, is_shared=True)
        cloud.network.create_subnet(name=SUBNET, network_id=network.id, ip_version=4, cidr="10.60.0.0/16", is_dhcp_enabled=False)
        cloud.image.create_image(
            name=IMAGE,
            data=io.BytesIO(bytes(1 << 20)),
            disk_format="raw",
            container_format="bare",
            visibility="public",
            wait=True,
            **IMAGE_PROPERTIES,
        )
    with connect(layout.clouds, BEAMDESK) as own:
        user = own.identity.get(f"/users/{own.current_user_id}").json()["user"]["id"]
        name, secret = APP_CREDENTIAL
        own.identity.create_application_credential(user, name=name, secret=secret)
