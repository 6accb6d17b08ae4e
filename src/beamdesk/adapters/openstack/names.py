"""Names and marks by which this deployment knows its own resources in a cloud. Deterministic: two processes find the same ones.

Everything carries the deployment's UUID: servers in a tag and metadata, ports in their description (Neutron filters by it and it is
written with the port, tags come later), volumes in metadata. Nothing without it is ever listed, changed or deleted.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from beamdesk.domain.ids import DesktopId, ServerId

DEPLOYMENT_KEY = "beamdesk_deployment"
DESKTOP_KEY = "beamdesk_desktop"
NONCE_KEY = "beamdesk_nonce"
CLONE_KEY = "beamdesk_clone_of"
GIVEN_UP_KEY = "beamdesk_given_up"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LOCAL_UNICAST = 0xDA
_RELEASED = "-released"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one deployment."""

    deployment: str

    @property
    def tag(self) -> str:
        """The tag on every server of the deployment."""
        return f"beamdesk-{self.deployment}"

    @property
    def description(self) -> str:
        """The description of every port and security group of the deployment."""
        return f"Beamdesk {self.deployment}"

    @staticmethod
    def desktop_tag(desktop_id: DesktopId) -> str:
        """Return the second tag on a desktop's server."""
        return f"desktop-{desktop_id}"

    @staticmethod
    def desktop_of(tags: tuple[str, ...]) -> DesktopId | None:
        """Return whose server has these tags."""
        return next((DesktopId(tag.removeprefix("desktop-")) for tag in tags if tag.startswith("desktop-")), None)

    @staticmethod
    def resource(desktop_id: DesktopId) -> str:
        """Return the name of a desktop's server, port and volume."""
        return f"beamdesk-{desktop_id}"

    @classmethod
    def released(cls, desktop_id: DesktopId) -> str:
        """Return the name of a port whose server is being deleted."""
        return cls.resource(desktop_id) + _RELEASED

    @staticmethod
    def desktop_named(name: str) -> DesktopId | None:
        """Return the desktop in a resource's name."""
        return DesktopId(name.removeprefix("beamdesk-").removesuffix(_RELEASED)) if name.startswith("beamdesk-") else None

    def metadata(self, desktop_id: DesktopId) -> dict[str, str]:
        """Return the marks of a server or volume."""
        return {DEPLOYMENT_KEY: self.deployment, DESKTOP_KEY: desktop_id}

    def mac(self, desktop_id: DesktopId) -> str:
        """Return the desktop's MAC address: locally administered, the same for everybody who computes it.

        Neutron allows an address once in a network, so that of two ports made at the same time for a desktop one is refused.
        """
        digest = hashlib.sha256(f"{self.deployment}/{desktop_id}".encode()).digest()
        return ":".join(f"{byte:02x}" for byte in (_LOCAL_UNICAST, *digest[:5]))


def server_id(place: str, uuid: str) -> ServerId:
    """Return the id that the driver gives out: place and Nova's id, so that every later call knows where to go."""
    return ServerId(f"{place}:{uuid}")


def split_server_id(given: ServerId) -> tuple[str, str] | None:
    """Return place and Nova's id; None for what no driver of ours gave out."""
    place, _, uuid = given.partition(":")
    return (place, uuid) if _UUID.fullmatch(uuid) else None
