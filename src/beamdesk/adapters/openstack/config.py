"""What the driver is told about the clouds it uses. Plain values; secrets stay in clouds.yaml and secure.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path


class Boot(StrEnum):
    """What a server's root disk is: the host's own disk, a volume made from the image, or a clone of a prepared volume."""

    IMAGE = "image"
    VOLUME = "volume"
    CLONE = "clone"


class WhenStopped(StrEnum):
    """What happens to the server of a stopped desktop: stopped it keeps its share of the host, cards too, shelved not."""

    STOP = "stop"
    SHELVE = "shelve"
    SHELVE_CARDS = "shelve-cards"


@dataclass(frozen=True, slots=True)
class Place:
    """A project in a region of a cloud, and the experiments (patterns of ids) whose desktops live there.

    ``name`` is part of every server's id that the driver gives out. ``cloud`` is an entry of clouds.yaml; ``region`` empty = the
    entry's own.
    """

    name: str
    cloud: str
    network: str
    region: str = ""
    experiments: tuple[str, ...] = ("*",)
    availability_zone: str = ""

    def takes(self, experiment: str) -> bool:
        """Tell whether desktops of this experiment live here."""
        return any(fnmatchcase(experiment, pattern) for pattern in self.experiments)


@dataclass(frozen=True, slots=True)
class Firewall:
    """Who may reach a desktop, and what a desktop may reach; addresses in CIDR notation.

    ``gateways`` alone may reach the stream's port. ``egress``: always reachable; empty = everything. ``beamlines``: what servers of
    a beamline's experiments may reach besides, in their slot. ``groups``: the site's own security groups in addition, by name.
    ``managed`` false: the site cares for all of this itself.
    """

    gateways: tuple[str, ...] = ()
    egress: tuple[str, ...] = ()
    beamlines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    managed: bool = True


@dataclass(frozen=True, slots=True)
class Homes:
    """Home volumes on Cinder, in GiB; ``enabled`` false: homes are on the site's storage and no volume is made."""

    enabled: bool = False
    gib: int = 50
    volume_type: str = ""


@dataclass(frozen=True, slots=True)
class GuestApi:
    """Where a desktop's agent enrols, and the CA (PEM) that it shall trust there; empty = the system's."""

    url: str
    ca: str = ""


@dataclass(frozen=True, slots=True)
class PciAlias:
    """What a PCI alias of nova.conf stands for in Placement: no API tells it."""

    resource_class: str
    traits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenStackConfig:
    """All of it. ``timeout_s``: the longest one API call may take; ``concurrency``: calls at once for each place.

    ``pci_aliases``: by name, so that the cause can be told when no card is free.
    """

    places: tuple[Place, ...]
    guest: GuestApi
    clouds_yaml: Path | None = None
    flavors: Mapping[str, str] = field(default_factory=dict)
    firewall: Firewall = field(default_factory=Firewall)
    homes: Homes = field(default_factory=Homes)
    boot: Boot = Boot.IMAGE
    boot_volume_type: str = ""
    config_drive: bool = True
    stream_port: int = 8082
    timeout_s: float = 10.0
    concurrency: int = 10
    pci_aliases: Mapping[str, PciAlias] = field(default_factory=dict)
    when_stopped: WhenStopped = WhenStopped.SHELVE_CARDS

    @property
    def roots_are_volumes(self) -> bool:
        """Tell whether servers boot from volumes."""
        return self.boot is not Boot.IMAGE

    @property
    def needs_cinder(self) -> bool:
        """Tell whether any volume is made."""
        return self.homes.enabled or self.roots_are_volumes
