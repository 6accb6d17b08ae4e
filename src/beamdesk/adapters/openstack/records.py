"""What Nova, Neutron and Cinder answer, as typed values. Pure; the only place that knows their field names of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from beamdesk.adapters.openstack.connection import Json
from beamdesk.adapters.openstack.names import DEPLOYMENT_KEY, DESKTOP_KEY, GIVEN_UP_KEY
from beamdesk.domain.errors import CloudError
from beamdesk.domain.server import HostState, ServerStatus

_STATUS = {
    "ACTIVE": ServerStatus.ACTIVE,
    "PASSWORD": ServerStatus.ACTIVE,
    "RESCUE": ServerStatus.ACTIVE,
    "MIGRATING": ServerStatus.ACTIVE,
    "VERIFY_RESIZE": ServerStatus.ACTIVE,
    "BUILD": ServerStatus.BUILD,
    "REBUILD": ServerStatus.BUILD,
    "REBOOT": ServerStatus.BUILD,
    "HARD_REBOOT": ServerStatus.BUILD,
    "RESIZE": ServerStatus.BUILD,
    "REVERT_RESIZE": ServerStatus.BUILD,
    "SHUTOFF": ServerStatus.SHUTOFF,
    "PAUSED": ServerStatus.SHUTOFF,
    "SUSPENDED": ServerStatus.SHUTOFF,
    "SHELVED": ServerStatus.SHUTOFF,
    "SHELVED_OFFLOADED": ServerStatus.SHUTOFF,
    "ERROR": ServerStatus.ERROR,
    "DELETED": ServerStatus.DELETING,
    "SOFT_DELETED": ServerStatus.DELETING,
}
_LAUNCHED = "OS-SRV-USG:launched_at"
_HOST = {"UNKNOWN": HostState.SILENT, "DOWN": HostState.DOWN}
"""UNKNOWN: nova-compute has not reported for `service_down_time`. DOWN: an operator (or the site's fencing) forced it down."""
_COMING_UP = frozenset({"powering-on", "unshelving", "spawning", "resuming", "unpausing", "rebuilding", "rebuild_spawning"})
_LEAVING = frozenset({"shelving", "shelving_image_pending_upload", "shelving_image_uploading", "shelving_offloading"})
"""It still has its share of the host, cards included: nothing is free yet."""
_GOING = frozenset({"deleting", "soft-deleting"})


def text(record: Json, key: str) -> str:
    """Return a field as text; empty where it is missing or null."""
    value = record.get(key)
    return "" if value is None else str(value)


def mapping(record: Json, key: str) -> Json:
    """Return a field that is an object; empty where it is none."""
    value = record.get(key)
    return cast("Json", value) if isinstance(value, Mapping) else {}


def sequence(record: Json, key: str) -> Sequence[Json]:
    """Return a field that is a list of objects; empty where it is none."""
    value = record.get(key)
    return tuple(one for one in value if isinstance(one, Mapping)) if isinstance(value, list) else ()


def number(record: Json, key: str) -> int:
    """Return a field that is a whole number; zero where it is none."""
    value = record.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def date_of(record: Json, key: str) -> datetime | None:
    """Return a field that is a time; None where it is missing, null or nothing that anybody can read."""
    try:
        return when(text(record, key))
    except CloudError:
        return None


def when(stamp: str) -> datetime:
    """Read a service's time: ISO 8601, UTC, with or without saying so."""
    try:
        read = datetime.fromisoformat(stamp)
    except ValueError as error:
        raise CloudError(f"OpenStack told a time that nobody can read: {stamp[:40]}.") from error
    return read if read.tzinfo else read.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class NovaServer:
    """A server. ``task``: what Nova does with it right now, empty = nothing. ``partial``: its cell is down, little is known.

    ``size``, ``specs``: its flavor's vCPUs, MiB of memory, GiB of disk and extra specs, where Nova tells them. ``launched`` false:
    it never ran. ``host``: Nova tells its state only to whom its policy allows it (``show:host_status``); UP where it does not.
    """

    uuid: str
    raw_status: str
    task: str
    created_at: datetime
    tags: tuple[str, ...]
    metadata: Mapping[str, str]
    fault: str
    image: str
    partial: bool
    size: tuple[int, int, int] = (0, 0, 0)
    specs: Mapping[str, str] = field(default_factory=dict)
    launched: bool = True
    host: HostState = HostState.UP
    updated_at: datetime | None = None
    name: str = ""

    @classmethod
    def read(cls, record: Json) -> NovaServer:
        """Read one of Nova's server records."""
        flavor = mapping(record, "flavor")
        tags = record.get("tags")
        return cls(
            uuid=text(record, "id"),
            raw_status=text(record, "status"),
            task=text(record, "OS-EXT-STS:task_state"),
            created_at=when(text(record, "created")),
            tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
            metadata={key: str(value) for key, value in mapping(record, "metadata").items()},
            fault=text(mapping(record, "fault"), "message"),
            image=text(mapping(record, "image"), "id"),
            partial="tags" not in record and "metadata" not in record,
            size=(number(flavor, "vcpus"), number(flavor, "ram"), number(flavor, "disk")),
            specs={key: str(value) for key, value in mapping(flavor, "extra_specs").items()},
            launched=record.get(_LAUNCHED, "unknown") is not None,
            host=_HOST.get(text(record, "host_status"), HostState.UP),
            updated_at=date_of(record, "updated"),
            name=text(record, "name"),
        )

    @property
    def offloaded(self) -> bool:
        """Tell whether it has no host: to come back it needs room somewhere."""
        return self.raw_status == "SHELVED_OFFLOADED" and not self.task

    @property
    def status(self) -> ServerStatus:
        """The part of it that matters here."""
        if self.task in _GOING:
            return ServerStatus.DELETING
        if self.task in _COMING_UP and self.raw_status != "ERROR":
            return ServerStatus.BUILD
        if self.task in _LEAVING:
            return ServerStatus.ACTIVE
        return _STATUS.get(self.raw_status, ServerStatus.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Port:
    """A Neutron port. ``device``: the server that it is bound to, empty = none. ``address``: its first fixed address."""

    id: str
    name: str
    device: str
    address: str
    groups: frozenset[str]
    created_at: str

    @classmethod
    def read(cls, record: Json) -> Port:
        """Read one of Neutron's port records."""
        groups = record.get("security_groups")
        addresses = [text(one, "ip_address") for one in sequence(record, "fixed_ips")]
        return cls(
            id=text(record, "id"),
            name=text(record, "name"),
            device=text(record, "device_id"),
            address=addresses[0] if addresses else "",
            groups=frozenset(str(one) for one in groups) if isinstance(groups, list) else frozenset(),
            created_at=text(record, "created_at"),
        )


@dataclass(frozen=True, slots=True)
class Volume:
    """A Cinder volume of a desktop. ``given_up``: Cinder did not finish it and another one was ordered."""

    id: str
    status: str
    deployment: str
    desktop: str
    name: str
    attached: bool
    created_at: str
    given_up: bool

    @classmethod
    def read(cls, record: Json) -> Volume:
        """Read one of Cinder's volume records."""
        marks = mapping(record, "metadata")
        return cls(
            id=text(record, "id"),
            status=text(record, "status"),
            deployment=text(marks, DEPLOYMENT_KEY),
            desktop=text(marks, DESKTOP_KEY),
            name=text(record, "name"),
            attached=bool(sequence(record, "attachments")),
            created_at=text(record, "created_at"),
            given_up=GIVEN_UP_KEY in marks,
        )

    @property
    def going(self) -> bool:
        """Tell whether it is being deleted."""
        return self.status == "deleting"

    @property
    def stuck(self) -> bool:
        """Tell whether it was given up and an operator has not ended its *creating* yet: Cinder refuses to delete it."""
        return self.given_up and self.status == "creating"
