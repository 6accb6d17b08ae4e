"""Checks of GPUs, as far as the APIs show them: Placement's inventories and traits, and the flavors that ask for them."""

from __future__ import annotations

import re

from beamdesk.adapters.openstack.catalog_entries import read_flavors, specs_of
from beamdesk.adapters.openstack.doctor import Check, CloudCheck, Outcome, missing, ok, wrong
from beamdesk.adapters.openstack.doctor_compute import aliases, places, wanted
from beamdesk.adapters.openstack.doctor_probe import Probe, Raw
from beamdesk.adapters.openstack.errors import Service

GPU_CLASS = re.compile(r"VGPU|PGPU|CUSTOM_[A-Z0-9_]*(GPU|MIG|PCI_10DE|PCI_1002)[A-Z0-9_]*")
_PCI_PROVIDER = re.compile(r"(?P<host>.+)_[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_OURS = "beamdesk-srm_"
"""Providers that Beamdesk's records made: not a report of Nova's."""
_MOST_CLASSES = 20
_REPORT = (
    "On each GPU host: [pci]device_spec with a resource_class, report_in_placement = True in nova.conf, nova-compute started "
    "again: `beamdesk openstack gpu-plan` prints the lines, `beamdesk openstack doctor --host` examines them."
)


async def _cards(probe: Probe) -> dict[str, list[str]]:
    """Return the PCI providers in Placement as host -> provider names."""
    listed = (await probe.get(Service.PLACEMENT, "/resource_providers", admin=True)).get("resource_providers") or []
    hosts: dict[str, list[str]] = {}
    for one in listed:
        name = str(one.get("name"))
        if not name.startswith(_OURS) and (found := _PCI_PROVIDER.fullmatch(name)):
            hosts.setdefault(found["host"], []).append(name)
    return hosts


async def _free(probe: Probe) -> dict[str, int]:
    """Return GPU resource classes -> how many providers have at least one of it free."""
    listed = (await probe.get(Service.PLACEMENT, "/resource_classes", admin=True)).get("resource_classes") or []
    names = [str(one.get("name")) for one in listed if GPU_CLASS.fullmatch(str(one.get("name")))]
    free = {}
    for name in names[:_MOST_CLASSES]:
        query = {"resources": f"{name}:1"}
        found = await probe.get(Service.PLACEMENT, "/resource_providers", query=query, admin=True)
        free[name] = len(found.get("resource_providers") or [])
    return free


async def _asked(probe: Probe) -> bool:
    offered, left = read_flavors(await probe.listing(Service.COMPUTE, "/flavors/detail", "flavors"), probe.config.flavors)
    return any(flavor.resources.gpus for flavor in offered) or any("pci_passthrough" in one.reason for one in left)


async def inventories(probe: Probe) -> Outcome:
    """Examine whether hosts report cards to Placement where flavors ask for some."""
    hosts, free = await _cards(probe), await _free(probe)
    cards = sum(len(names) for names in hosts.values())
    facts = [f"{cards} PCI devices on {len(hosts)} hosts"] + [
        f"{name}: {count} providers with one free" for name, count in free.items()
    ]
    traits = await probe.get(
        Service.PLACEMENT, "/traits", query={"name": "startswith:CUSTOM_GPU_", "associated": "true"}, admin=True
    )
    if models := [str(one) for one in traits.get("traits") or []]:
        facts.append(f"traits: {', '.join(sorted(models)[:30])}")
    if not await _asked(probe):
        return ok(*facts, "no flavor on offer has a GPU")
    if cards or any(count for name, count in free.items() if not name.startswith("PGPU")):
        return ok(*facts)
    return missing(_REPORT, *facts, "flavors ask for GPUs, and no host reports one")


async def flavors(probe: Probe) -> Outcome:
    """Examine whether what the GPU flavors ask for is there at all, by resource class, traits and alias."""
    listed = await probe.listing(Service.COMPUTE, "/flavors/detail", "flavors")
    hosts, free = await _cards(probe), await _free(probe)
    facts: list[str] = []
    bad: list[str] = []
    for one in listed:
        offered = read_flavors([one], probe.config.flavors)[0]
        if not offered or not offered[0].resources.gpus:
            continue
        lacking = await _lacking(probe, one, free)
        (bad if lacking else facts).append(f"{offered[0].id}: {lacking or 'hosts have what it asks for'}")
    if named := await aliases(probe):
        facts.append(f"PCI aliases {', '.join(named)}: their meaning is in nova.conf, which no API tells")
        if not hosts:
            bad.append("no host reports a PCI device, so no alias can be met where pci_in_placement is on")
    if bad:
        return wrong(
            "Let the flavor ask for a class and traits that hosts report (gpu.inventories), or configure the hosts so.",
            *bad,
            *facts,
        )
    return ok(*(facts or ["no flavor on offer has a GPU"]))


async def _lacking(probe: Probe, flavor: Raw, free: dict[str, int]) -> str:
    specs = specs_of(flavor)
    classes = {key.split(":", 1)[1] for key in specs if key.startswith("resources") and GPU_CLASS.fullmatch(key.split(":", 1)[1])}
    if unknown := sorted(classes - set(free)):
        return f"there is no resource class {', '.join(unknown)}"
    if empty := sorted(name for name in classes if not free[name]):
        return f"no host has {', '.join(empty)}, or all of it is in use"
    query = wanted(flavor) if classes else None
    if query and "required" in query:
        only = ",".join(part for part in query["resources"].split(",") if part.split(":")[0] in classes)
        if not await places(probe, {"resources": only, "required": query["required"]}):
            return f"no free card has {query['required']}"
    return ""


CHECKS: tuple[CloudCheck, ...] = (
    Check("gpu.inventories", "Hosts report their GPUs to Placement", inventories),
    Check("gpu.flavors", "Hosts have what the GPU flavors ask for", flavors),
)
