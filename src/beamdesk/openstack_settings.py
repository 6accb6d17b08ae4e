"""The settings section ``[openstack]``. Checked here, handed to the driver as plain values; secrets are never in it."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from beamdesk.adapters.openstack.config import Boot, Firewall, GuestApi, Homes, OpenStackConfig, PciAlias, Place, WhenStopped
from beamdesk.domain.errors import ConfigurationError

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
_MAX_CA_BYTES = 16 * 1024


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(ip_network(value)) for value in values)


class PlaceSettings(_Section):
    """One project in one region: the first whose ``experiments`` match takes a desktop. Empty values follow ``[openstack]``."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    cloud: str = Field(default="", pattern=r"^$|" + _NAME)
    region: str = ""
    network: str = ""
    experiments: tuple[str, ...] = Field(default=("*",), min_length=1)
    availability_zone: str = ""


class HomeSettings(_Section):
    """Home volumes on Cinder (``volume``), or homes on the site's storage (``none``)."""

    kind: Literal["volume", "none"] = "none"
    gib: int = Field(default=50, ge=1, le=16384)
    volume_type: str = ""


class PciAliasSettings(_Section):
    """What an alias of ``[pci]alias`` in nova.conf stands for in Placement."""

    resource_class: str = Field(pattern=r"^[A-Z][A-Z0-9_]{0,254}$")
    traits: tuple[str, ...] = ()


class OpenStackSettings(_Section):
    """How desktops run on OpenStack. What it means: docs/reference/settings.md."""

    cloud: str = Field(default="beamdesk", pattern=_NAME)
    region: str = ""
    clouds_yaml: Path | None = None
    network: str = "desktops"
    availability_zone: str = ""
    places: tuple[PlaceSettings, ...] = ()
    flavors: dict[str, str] = Field(default_factory=dict)
    gateway_addresses: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    manage_security_groups: bool = True
    egress: tuple[str, ...] = ()
    beamline_networks: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    boot: Boot = Boot.IMAGE
    boot_volume_type: str = ""
    when_stopped: WhenStopped = WhenStopped.SHELVE_CARDS
    home: HomeSettings = HomeSettings()
    config_drive: bool = True
    stream_port: int = Field(default=8082, ge=1, le=65535)
    pci_aliases: dict[str, PciAliasSettings] = Field(default_factory=dict)
    guest_url: str = Field(default="", pattern=r"^$|^https://[A-Za-z0-9.:\[\]-]+$")
    guest_ca: Path | None = None
    call_timeout_s: float = Field(default=10, gt=0, le=300)
    concurrency: int = Field(default=10, ge=1, le=64)

    @field_validator("gateway_addresses", "egress")
    @classmethod
    def _addresses(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return _networks(values)

    @field_validator("beamline_networks")
    @classmethod
    def _beamlines(cls, values: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {name: _networks(networks) for name, networks in values.items()}

    @model_validator(mode="after")
    def _consistent(self) -> OpenStackSettings:
        if len({place.name for place in self.places}) != len(self.places):
            raise ValueError("two places have the same name")
        if self.beamline_networks and not self.egress:
            raise ValueError("egress must say what every desktop may reach where beamline_networks are set")
        open_to_all = [ip_network(network) for network in self.egress]
        for beamline, networks in self.beamline_networks.items():
            for network in map(ip_network, networks):
                if any(network.version == other.version and network.overlaps(other) for other in open_to_all):
                    raise ValueError(f"egress opens {network} of beamline {beamline} to every desktop")
        return self

    def config(self) -> OpenStackConfig:
        """Return what the driver needs.

        Raises:
            ConfigurationError: a setting without which desktops cannot work is missing; the text names it.
        """
        if not self.guest_url:
            raise ConfigurationError("Set openstack.guest_url: the https address at which desktops reach Beamdesk's guest API.")
        if self.manage_security_groups and not self.gateway_addresses:
            raise ConfigurationError("Set openstack.gateway_addresses: the addresses from which the gateway reaches desktops.")
        return OpenStackConfig(
            places=tuple(self._place(place) for place in self.places) or (self._place(PlaceSettings(name="main")),),
            guest=GuestApi(self.guest_url, self._ca()),
            clouds_yaml=self.clouds_yaml,
            flavors=self.flavors,
            firewall=Firewall(
                self.gateway_addresses, self.egress, self.beamline_networks, self.security_groups, self.manage_security_groups
            ),
            homes=Homes(self.home.kind == "volume", self.home.gib, self.home.volume_type),
            boot=self.boot,
            boot_volume_type=self.boot_volume_type,
            when_stopped=self.when_stopped,
            config_drive=self.config_drive,
            stream_port=self.stream_port,
            timeout_s=self.call_timeout_s,
            concurrency=self.concurrency,
            pci_aliases={name: PciAlias(one.resource_class, one.traits) for name, one in self.pci_aliases.items()},
        )

    def _place(self, place: PlaceSettings) -> Place:
        return Place(
            name=place.name,
            cloud=place.cloud or self.cloud,
            network=place.network or self.network,
            region=place.region or self.region,
            experiments=place.experiments,
            availability_zone=place.availability_zone or self.availability_zone,
        )

    def _ca(self) -> str:
        if self.guest_ca is None:
            return ""
        try:
            text = self.guest_ca.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"Cannot read openstack.guest_ca {self.guest_ca} as PEM text.") from error
        if "PRIVATE KEY" in text or "BEGIN CERTIFICATE" not in text or len(text) > _MAX_CA_BYTES:
            raise ConfigurationError(f"openstack.guest_ca {self.guest_ca} must hold certificates in PEM form, and nothing else.")
        return text
