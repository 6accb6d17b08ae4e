"""Steps 4 and 5 of a GPU plan: Nova's PCI devices, scheduler and flavors, and the first desktop with a card.

Cards are reported to Placement ([pci]report_in_placement), each as a provider of its own with one resource class for all GPUs, a
trait for its model and traits for "at least so much memory": docs.openstack.org/nova/latest/admin/pci-passthrough.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from beamdesk.adapters.openstack.gpu_plan_facts import HostFacts
from beamdesk.adapters.openstack.gpu_plan_model import Action, Lent, Step
from beamdesk.adapters.openstack.gpu_plan_steps import is_rhel

RESOURCE_CLASS = "CUSTOM_GPU"
_FILTERS = (
    "ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter,"
    "PciPassthroughFilter"
)
_CONTROLLER = "every machine with nova-api and nova-scheduler"


def _models(lent: Sequence[Lent]) -> list[Lent]:
    """Return one card of each model and device type."""
    return list({(one.model.word, one.card.sriov_total > 0): one for one in lent}.values())


def nova(facts: HostFacts, lent: Sequence[Lent]) -> Step:
    """Plan step 4."""
    unit = "openstack-nova-compute" if is_rhel(facts) else "nova-compute"
    return Step(
        4,
        "Tell Nova of the cards",
        tuple(_nova_found(facts)),
        tuple(_nova_actions(facts, lent, unit)),
        (
            f"openstack resource provider list --os-placement-api-version 1.39 -f value -c name | grep '^{facts.host}_'",
            f"# {len(lent)} lines: one for each card",
            "openstack resource provider inventory list PROVIDER_UUID    # " + RESOURCE_CLASS + ", total 1",
            "beamdesk openstack doctor",
        ),
        (
            "# Delete the desktops with cards first: Nova refuses to start while a card is in use and not configured any more.",
            f"# Take the [pci] lines out of nova.conf again, then: systemctl restart {unit}",
            *(f"openstack flavor delete gpu.{one.model.alias}" for one in _models(lent)),
        ),
    )


def _nova_found(facts: HostFacts) -> Iterable[str]:
    if not facts.nova_files:
        yield "no nova.conf was found: nova-compute is not installed here, or runs in a container with its own"
        return
    pci = facts.nova.get("pci", {})
    for key in ("device_spec", "passthrough_whitelist", "alias", "report_in_placement"):
        for value in pci.get(key, ["not set"] if key != "passthrough_whitelist" else []):
            yield f"[pci]{key}: {value}"


def device_specs(lent: Sequence[Lent]) -> list[str]:
    """Return the lines of [pci]device_spec: by model where all cards of it are lent, which holds for cards that come later."""
    specs = []
    for one in _models(lent):
        vendor, product = one.card.id.split(":")
        spec = {"vendor_id": vendor, "product_id": product, "resource_class": RESOURCE_CLASS, "traits": ",".join(one.model.traits)}
        specs.append(f"device_spec = {json.dumps(spec)}")
    return specs


def _by_address(facts: HostFacts, lent: Sequence[Lent]) -> bool:
    mine = {one.card.address for one in lent}
    return any(card.address not in mine and card.id in {one.card.id for one in lent} for card in facts.gpus)


def _specs_by_address(lent: Sequence[Lent]) -> list[str]:
    return [
        "device_spec = "
        + json.dumps({"address": one.card.address, "resource_class": RESOURCE_CLASS, "traits": ",".join(one.model.traits)})
        for one in lent
    ]


def aliases(lent: Sequence[Lent]) -> list[str]:
    """Return the lines of [pci]alias. A card that could have virtual functions is of type-PF for Nova, used or not.

    The ids stand beside the class: without [filter_scheduler]pci_in_placement, and computes have none, Nova refuses an alias that
    has no ids (nova.pci.request).
    """
    lines = []
    for one in _models(lent):
        vendor, product = one.card.id.split(":")
        alias = {
            "name": one.model.alias,
            "vendor_id": vendor,
            "product_id": product,
            "resource_class": RESOURCE_CLASS,
            "traits": one.model.trait,
            "device_type": "type-PF" if one.card.sriov_total else "type-PCI",
            "numa_policy": "preferred",
        }
        lines.append(f"alias = {json.dumps(alias)}")
    return lines


def _nova_actions(facts: HostFacts, lent: Sequence[Lent], unit: str) -> Iterable[Action]:
    specs = _specs_by_address(lent) if _by_address(facts, lent) else device_specs(lent)
    yield Action(
        "On this host: which devices may be lent",
        ("[pci]", *specs, *aliases(lent), "report_in_placement = True"),
        path="/etc/nova/nova.conf, section [pci]; keep what is there for other devices",
    )
    yield Action("Start nova-compute again", (f"systemctl restart {unit}",))
    yield Action(
        "The same aliases, and Placement's answer heeded (once every compute host reports to Placement)",
        ("[pci]", *aliases(lent), "[filter_scheduler]", "pci_in_placement = True", f"enabled_filters = {_FILTERS}"),
        path="/etc/nova/nova.conf; add PciPassthroughFilter to your own enabled_filters",
        where=_CONTROLLER,
    )
    for one in _models(lent):
        yield Action(f"A flavor for {one.model.name}; sizes are yours to choose", _flavor(one), where="an operator's shell")


def _flavor(one: Lent) -> tuple[str, ...]:
    return (
        f"openstack flavor create gpu.{one.model.alias} --vcpus 8 --ram 32768 --disk 60 \\",
        f"    --property 'pci_passthrough:alias={one.model.alias}:1' --property beamdesk:gpus=1 \\",
        f"    --property 'beamdesk:title_en=GPU {one.model.name}' --property 'beamdesk:title_zh=GPU {one.model.name}'",
    )


def machine(facts: HostFacts, lent: Sequence[Lent]) -> Step:
    """Plan step 5. Large BARs need UEFI and q35 (64-bit MMIO window)."""
    first = lent[0]
    name = f"gpu-check-{first.model.alias}"
    query = "lspci -nn -d " + first.card.id
    inside = "nvidia-smi    # the card, and no error" if first.card.vendor == "0x10de" else f"{query}    # the card"
    return Step(
        5,
        "Make a virtual machine and install the card's driver in it",
        ("the driver belongs into the image, so that no desktop installs it at its start: docs/howto/make-an-image.md",),
        (
            Action(
                "Image: UEFI and q35, which cards with large memory need",
                ("openstack image set IMAGE --property hw_firmware_type=uefi --property hw_machine_type=q35",),
                where="an operator's shell",
            ),
            Action(
                "A trial on this very host (needs an administrator); otherwise apply for a desktop in the portal",
                (
                    f"openstack server create {name} --flavor gpu.{first.model.alias} --image IMAGE --network desktops \\",
                    f"    --host {facts.host} --os-compute-api-version 2.74",
                ),
                where="an operator's shell",
            ),
        ),
        (f"openstack server show {name} -c status -c fault", f"# in it: {query}", f"# in it: {inside}"),
        (f"openstack server delete {name}",),
    )
