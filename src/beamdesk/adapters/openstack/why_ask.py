"""What Nova, Placement and Glance tell of hosts and of a server's request: the questions behind `why`, and how answers are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from beamdesk.adapters.openstack.config import PciAlias
from beamdesk.adapters.openstack.connection import Connection, Json
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack.records import mapping, number, sequence, text
from beamdesk.adapters.openstack.refusals import ComputeHost, Device, Lack, Wanted, fewer, less

_VERSION = "1.29"
"""Placement's first microversion that tells the root of each provider: a card's host."""
_CARD = "9999"
"""The number of the group that asks for a card: none that a flavor uses. Words as numbers are newer than `_VERSION`."""
_ALIAS = "pci_passthrough:alias"
_PLAIN = ("VCPU", "PCPU", "MEMORY_MB", "DISK_GB")
_DEFAULT_ZONE = "nova"


async def read_hosts(connection: Connection) -> tuple[ComputeHost, ...]:
    """Return all hypervisors, with their aggregates.

    Raises:
        CloudRefused: the account may not ask.
    """
    records: list[Json] = []
    query = {"with_servers": "false"}
    async for page in connection.pages(Service.COMPUTE, "/os-hypervisors/detail", "hypervisors", "list the hosts", query):
        records += sequence(page.data, "hypervisors")
    aggregates = await connection.call(Service.COMPUTE, "GET", "/os-aggregates", "list the host aggregates")
    return tuple(_host(record, sequence(aggregates.data, "aggregates")) for record in records)


def _host(record: Json, aggregates: Sequence[Json]) -> ComputeHost:
    service = text(mapping(record, "service"), "host")
    mine = [one for one in aggregates if service in _names(one.get("hosts"))]
    properties: dict[str, frozenset[str]] = {}
    for one in mine:
        for key, value in mapping(one, "metadata").items():
            values = frozenset(part.strip() for part in str(value).split(","))
            properties[key] = properties.get(key, frozenset()) | values
    return ComputeHost(
        uuid=text(record, "id"),
        name=service or text(record, "hypervisor_hostname"),
        up=text(record, "state") == "up",
        enabled=text(record, "status") == "enabled",
        hypervisor=text(record, "hypervisor_type"),
        arch=_arch(record.get("cpu_info")),
        vcpus=number(record, "vcpus"),
        memory_mib=number(record, "memory_mb"),
        disk_gib=number(record, "local_gb"),
        zone=next((text(one, "availability_zone") for one in mine if text(one, "availability_zone")), _DEFAULT_ZONE),
        groups=frozenset(text(one, "name") for one in mine),
        properties=properties,
    )


def _names(value: object) -> frozenset[str]:
    return frozenset(str(one) for one in value) if isinstance(value, list) else frozenset()


def _arch(value: object) -> str:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return ""
    return str(value.get("arch") or "") if isinstance(value, Mapping) else ""


def read_wanted(
    size: tuple[int, int, int],
    specs: Mapping[str, str],
    image: Json,
    aliases: Mapping[str, PciAlias],
    zone: str,
    *,
    local_disk: bool,
) -> Wanted:
    """Return what a flavor and an image ask of a host. ``size``: vCPUs, MiB, GiB; ``local_disk``: its disk is the host's."""
    others: dict[str, int] = {}
    grouped: dict[str, list[str]] = {}
    traits: list[str] = []
    for key, value in sorted(specs.items()):
        kind, _, name = key.partition(":")
        if kind == "resources" and name not in _PLAIN and value.isdigit():
            others[name] = int(value)
        elif kind == "trait":
            traits.append(_trait(name, value))
        elif kind.startswith("resources") and name and kind != "resources":
            grouped.setdefault(kind, []).append(f"{name}:{value}")
        elif kind.startswith("trait") and name:
            grouped.setdefault(f"required{kind.removeprefix('trait')}", []).append(_trait(name, value))
    plain = {name: int(specs[f"resources:{name}"]) for name in _PLAIN if specs.get(f"resources:{name}", "").isdigit()}
    pinned = specs.get("hw:cpu_policy") == "dedicated" or "PCPU" in plain
    return Wanted(
        vcpus=plain.get("PCPU" if pinned else "VCPU", size[0]),
        memory_mib=plain.get("MEMORY_MB", size[1]),
        disk_gib=plain.get("DISK_GB", size[2] if local_disk else 0),
        pinned=pinned,
        others=tuple((name, amount) for name, amount in others.items() if amount),
        traits=tuple(traits),
        grouped=tuple((key, ",".join(parts)) for key, parts in grouped.items()),
        devices=_devices(specs.get(_ALIAS, ""), aliases),
        specs=dict(specs),
        zone=zone,
        arch=text(image, "hw_architecture") or text(image, "architecture"),
        hypervisor=text(image, "img_hv_type") or text(image, "hypervisor_type"),
    )


def _trait(name: str, value: str) -> str:
    return f"!{name}" if value == "forbidden" else name


def _devices(value: str, aliases: Mapping[str, PciAlias]) -> tuple[Device, ...]:
    found = []
    for part in filter(None, (one.strip() for one in value.split(","))):
        name, _, count = part.partition(":")
        known = aliases.get(name)
        amount = int(count) if count.isdigit() else 1
        found.append(Device(name, amount, known.resource_class if known else "", known.traits if known else ()))
    return tuple(found)


class Rooms:
    """Asks Placement which hosts have what free. What is asked grows from question to question: each host fails at one of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self, wanted: Wanted) -> list[tuple[Lack, frozenset[str]]]:
        """Return in turn what must be free, and which hosts have it with all before."""
        asked: dict[str, str] = {}
        rooms: list[tuple[Lack, frozenset[str]]] = []

        async def ask(lack: Lack, **more: str) -> None:
            asked.update(more)
            rooms.append((lack, frozenset(await self._candidates(asked))))

        resources: list[str] = []
        for name, amount, lack in _amounts(wanted):
            resources.append(f"{name}:{amount}")
            await ask(lack, resources=",".join(resources))
        if wanted.traits:
            await ask(_lacks(", ".join(wanted.traits)), required=",".join(wanted.traits))
        if wanted.grouped:
            names = ", ".join(value for key, value in wanted.grouped if key.startswith("resources"))
            await ask(_lacks(f"{names} together"), group_policy=wanted.specs.get("group_policy", "none"), **dict(wanted.grouped))
        rooms += [await self._card(device, asked) for device in wanted.devices if device.resource]
        return rooms

    async def _card(self, device: Device, asked: Mapping[str, str]) -> tuple[Lack, frozenset[str]]:
        query = {"group_policy": "none", **asked, f"resources{_CARD}": f"{device.resource}:1"}
        if device.traits:
            query[f"required{_CARD}"] = ",".join(device.traits)
        free = await self._candidates(query, device.resource)
        return fewer(device.count, device.alias), frozenset(root for root, cards in free.items() if len(cards) >= device.count)

    async def cards(self, wanted: Wanted) -> dict[str, dict[str, int]]:
        """Return how many cards of each kind that traits tell apart the hosts have at all: alias -> root -> number."""
        known: dict[str, dict[str, int]] = {}
        for device in wanted.devices:
            if device.traits:
                query = {"required": ",".join(device.traits)}
                path, doing = "/resource_providers", "list the cards"
                reply = await self._connection.call(Service.PLACEMENT, "GET", path, doing, query=query, version=_VERSION)
                counts: dict[str, int] = {}
                for one in sequence(reply.data, "resource_providers"):
                    root = text(one, "root_provider_uuid")
                    counts[root] = counts.get(root, 0) + 1
                known[device.alias] = counts
        return known

    async def _candidates(self, query: Mapping[str, str], resource: str = "") -> dict[str, set[str]]:
        """Return the roots that could take it, each with the providers that would give ``resource``."""
        path, doing = "/allocation_candidates", "tell which hosts have room"
        reply = await self._connection.call(Service.PLACEMENT, "GET", path, doing, query=dict(query), version=_VERSION)
        summaries = mapping(reply.data, "provider_summaries")
        found: dict[str, set[str]] = {}
        for request in sequence(reply.data, "allocation_requests"):
            for provider, given in mapping(request, "allocations").items():
                root = text(mapping(summaries, provider), "root_provider_uuid")
                cards = found.setdefault(root, set())
                if isinstance(given, Mapping) and resource and resource in mapping(given, "resources"):
                    cards.add(provider)
        return found


def _amounts(wanted: Wanted) -> list[tuple[str, int, Lack]]:
    cpu = "PCPU" if wanted.pinned else "VCPU"
    amounts = [
        (cpu, wanted.vcpus, fewer(wanted.vcpus, "vCPUs")),
        ("MEMORY_MB", wanted.memory_mib, less(f"{wanted.memory_mib / 1024:g} GiB of memory")),
        ("DISK_GB", wanted.disk_gib, less(f"{wanted.disk_gib} GiB of disk")),
        *((name, amount, fewer(amount, _plain(name))) for name, amount in wanted.others),
    ]
    return [one for one in amounts if one[1]]


def _plain(resource: str) -> str:
    return {"VGPU": "vGPU"}.get(resource, resource.removeprefix("CUSTOM_"))


def _lacks(what: str) -> Lack:
    return Lack(f"lacks {what}", f"lack {what}")
