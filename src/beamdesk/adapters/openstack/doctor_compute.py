"""Checks of Nova: services, what the scheduler shows, flavors on offer, room in quotas, room on hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beamdesk.adapters.openstack.catalog_entries import LeftOut, aliases_of, read_flavors, specs_of
from beamdesk.adapters.openstack.doctor import Check, CloudCheck, Outcome, missing, ok, unknown, warning, wrong
from beamdesk.adapters.openstack.doctor_probe import Denied, Probe, Raw
from beamdesk.adapters.openstack.errors import Service
from beamdesk.domain.catalog import Flavor
from beamdesk.domain.errors import CloudRefused

TITLE_REMEDY = (
    "openstack flavor set FLAVOR --property beamdesk:title_en=Medium --property beamdesk:title_zh=中型    (an administrator; "
    "docs/howto/openstack.md)"
)
_NEEDED = ("nova-conductor", "nova-scheduler", "nova-compute")


async def nova_services(probe: Probe) -> Outcome:
    """Examine whether conductor, scheduler and at least one compute service are up and enabled."""
    listed: Sequence[Raw] = (await probe.get(Service.COMPUTE, "/os-services", admin=True)).get("services") or []
    remedy = "Start it on its host, and look at its log there: `openstack compute service list`, journalctl -u nova-*."
    facts, bad = [], []
    for name in _NEEDED:
        of_kind = [one for one in listed if one.get("binary") == name]
        up = [one for one in of_kind if one.get("state") == "up" and one.get("status") == "enabled"]
        facts.append(f"{name}: {len(up)} of {len(of_kind)} up and enabled")
        if not up:
            bad.append(name)
    down = [f"{one.get('binary')} on {one.get('host')} is down" for one in listed if one.get("state") != "up"]
    if bad:
        return wrong(remedy, *facts, *down[:20])
    return warning(remedy, *facts, *down[:20]) if down else ok(*facts)


async def scheduler(probe: Probe) -> Outcome:
    """Say what no API tells: the filters. Flavors that need one are named."""
    flavors = await probe.listing(Service.COMPUTE, "/flavors/detail", "flavors")
    aliased = [str(one.get("name")) for one in flavors if specs_of(one).get("pci_passthrough:alias")]
    if not aliased:
        return ok("no flavor asks for a PCI device; the default filters do")
    return unknown(
        "Run `beamdesk openstack doctor --host` on a machine with nova-scheduler: enabled_filters must have PciPassthroughFilter.",
        f"flavors with a PCI alias: {', '.join(aliased[:20])}",
        "no API tells the enabled filters",
    )


async def on_offer(probe: Probe) -> tuple[tuple[Flavor, ...], tuple[LeftOut, ...], Mapping[str, Raw]]:
    """Return the flavors on offer, those that are left out, and the records of the former by id."""
    listed = await probe.listing(Service.COMPUTE, "/flavors/detail", "flavors")
    offered, left = read_flavors(listed, probe.config.flavors)
    by_name: dict[str, Raw] = {}
    for one in listed:
        for flavor in read_flavors([one], probe.config.flavors)[0]:
            by_name.setdefault(flavor.id, one)
    return offered, left, by_name


async def flavors_offered(probe: Probe) -> Outcome:
    """Examine whether there are flavors for the catalogue."""
    offered, _, _ = await on_offer(probe)
    if not offered:
        return missing(TITLE_REMEDY, "no flavor with the extra spec beamdesk:title_en is on offer")
    return ok(*(_said(one) for one in offered))


async def flavors_left_out(probe: Probe) -> Outcome:
    """Examine whether a flavor that wants to be on offer is left out for a mistake."""
    _, left, _ = await on_offer(probe)
    if left:
        return wrong(
            "Correct the extra specs that the reasons name, or take beamdesk:title_en away.",
            *(f"{one.name} ({one.ref}): {one.reason}" for one in left),
        )
    return ok()


def _said(flavor: Flavor) -> str:
    amount = flavor.resources
    gpus = f", {amount.gpus} GPU" if amount.gpus else ""
    return f"{flavor.id}: {amount.vcpus} vCPU, {amount.memory_mib} MiB, {amount.disk_gib} GiB{gpus}"


async def quota(probe: Probe) -> Outcome:
    """Examine whether the project's quota has room for the smallest desktop on offer."""
    limits = (await probe.get(Service.COMPUTE, "/limits")).get("limits", {}).get("absolute", {})
    smallest = next(iter((await on_offer(probe))[0]), None)
    wants = smallest.resources if smallest else None
    rooms = [
        ("servers", room_in(limits, "maxTotalInstances", "totalInstancesUsed"), 1),
        ("vCPUs", room_in(limits, "maxTotalCores", "totalCoresUsed"), wants.vcpus if wants else 1),
        ("MiB of memory", room_in(limits, "maxTotalRAMSize", "totalRAMUsed"), wants.memory_mib if wants else 1),
    ]
    facts = [f"room for {'any number of' if room is None else room} {name}" for name, room, _ in rooms]
    project = (await probe.access()).project_id
    remedy = f"openstack quota set --instances N --cores N --ram MiB {project}    (an administrator)"
    if any(room is not None and room < need for _, room, need in rooms):
        return wrong(remedy, *facts)
    if any(room is not None and room < 10 * need for _, room, need in rooms):
        return warning(remedy, *facts, "fewer than ten of the smallest desktop")
    return ok(*facts)


def room_in(limits: Mapping[str, Any], most: str, used: str) -> int | None:
    """Return what is left of a limit; None = there is none."""
    limit = limits.get(most)
    if not isinstance(limit, int) or limit < 0:
        return None
    return max(0, limit - int(limits.get(used) or 0))


async def room(probe: Probe) -> Outcome:
    """Examine whether some host could take each flavor now, by Placement."""
    offered, _, listed = await on_offer(probe)
    facts, full = [], []
    for flavor in offered:
        query = wanted(listed[flavor.id])
        if query is None:
            continue
        count = await places(probe, query)
        facts.append(f"{flavor.id}: {'no host' if not count else f'{count} places' if count < 100 else '100 places or more'}")
        full += [] if count else [flavor.id]
    if full and len(full) == len(offered):
        return wrong(
            "No host can take any desktop: are hosts up, enabled, and not full? `openstack hypervisor list --long`", *facts
        )
    if full:
        return warning("Too big for every host, or all hosts are full now; wanted GPUs are told by gpu.flavors.", *facts)
    return ok(*(facts or ["no flavor is on offer"]))


async def places(probe: Probe, query: Mapping[str, str]) -> int:
    """Return in how many places, 100 at most, Placement finds what a query asks for; none where it does not know class or trait."""
    try:
        found = await probe.get(Service.PLACEMENT, "/allocation_candidates", query={**query, "limit": "100"}, admin=True)
    except Denied:
        raise
    except CloudRefused:
        return 0
    return len(found.get("allocation_requests") or [])


def wanted(flavor: Raw) -> dict[str, str] | None:
    """Return the query to Placement for a flavor's plain resources and traits; None for one whose groups only Nova can form."""
    specs = specs_of(flavor)
    if any(key.startswith("resources") and not key.startswith("resources:") for key in specs):
        return None
    amounts = {"VCPU": int(flavor.get("vcpus") or 0), "MEMORY_MB": int(flavor.get("ram") or 0)}
    # Disk is left out: servers that boot from a volume need none of the host.
    for key, value in specs.items():
        if key.startswith("resources:") and value.isdigit():
            amounts[key.removeprefix("resources:")] = int(value)
    query = {"resources": ",".join(f"{name}:{amount}" for name, amount in amounts.items() if amount)}
    if traits := sorted(_trait(key, value) for key, value in specs.items() if key.startswith("trait:")):
        query["required"] = ",".join(traits)
    return query


def _trait(key: str, value: str) -> str:
    name = key.removeprefix("trait:")
    return f"!{name}" if value == "forbidden" else name


async def aliases(probe: Probe) -> tuple[str, ...]:
    """Return the PCI aliases that flavors on offer ask for."""
    _, _, listed = await on_offer(probe)
    return tuple(sorted({name for one in listed.values() for name in aliases_of(specs_of(one))}))


_TELLS: tuple[tuple[Service, str, Mapping[str, str], str], ...] = (
    (Service.PLACEMENT, "/allocation_candidates", {"resources": "VCPU:1", "limit": "1"}, "which resource is short"),
    (Service.COMPUTE, "/os-hypervisors/detail", {"limit": "1"}, "how many hosts lack what"),
    (Service.COMPUTE, "/os-aggregates", {}, "hosts that are set aside"),
)


async def causes(probe: Probe) -> Outcome:
    """Say what Beamdesk's own account may read to tell why no host takes a desktop; without it the cause is told in general."""
    facts = []
    for service, path, query, what in _TELLS:
        try:
            await probe.get(service, path, query=query)
        except Denied:
            facts.append(f"not told, because the account may not read {path}: {what}")
        else:
            facts.append(f"told: {what}")
    return ok(*facts)


CHECKS: tuple[CloudCheck, ...] = (
    Check("compute.services", "Nova's services are up", nova_services, blocks=True),
    Check("compute.scheduler", "The scheduler has the filters that the flavors need", scheduler),
    Check("compute.causes", "What can be told when no host takes a desktop", causes),
    Check("flavors.offered", "Flavors are on offer", flavors_offered, blocks=True),
    Check("flavors.left-out", "No flavor is left out for a mistake", flavors_left_out),
    Check("compute.quota", "The project's quota has room", quota),
    Check("compute.room", "Hosts have room for the flavors", room),
)
