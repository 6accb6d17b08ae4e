"""`beamdesk openstack gpu-plan`: the five host steps of GPU pass-through for the cards of one host, to read and to do by hand.

HEPS paper, section 3.4: (1) IOMMU on, (2) a display emulator against downclocking, (3) the card detached from the host's drivers
and bound to VFIO, its audio function with it, (4) Nova's PCI devices and scheduler, (5) a virtual machine with the card's driver.
Pure: facts in, a plan out. Nothing here runs a command or writes a file.
"""

from __future__ import annotations

from collections.abc import Sequence

from beamdesk.adapters.openstack import gpu_plan_nova, gpu_plan_steps
from beamdesk.adapters.openstack.gpu_plan_cards import model_of
from beamdesk.adapters.openstack.gpu_plan_facts import HostFacts
from beamdesk.adapters.openstack.gpu_plan_model import Lent, Plan


def make_plan(facts: HostFacts, only: Sequence[str] = ()) -> Plan:
    """Return the plan for all GPUs of the host, or for those at the PCI addresses ``only``.

    Raises:
        ValueError: an address is not a GPU of this host.
    """
    known = {card.address: card for card in facts.gpus}
    wanted = [address.lower() if address.count(":") == 2 else f"0000:{address.lower()}" for address in only]
    if unknown := [address for address in wanted if address not in known]:
        raise ValueError(f"{unknown[0]} is not a GPU of {facts.host}; its GPUs: {', '.join(known) or 'none'}")
    cards = [known[address] for address in dict.fromkeys(wanted)] or list(facts.gpus)
    lent = tuple(Lent(card, model_of(card), facts.beside(card)) for card in cards)
    if not lent:
        return Plan(facts.host, (), ("No GPU was found: no PCI function of class 03 from NVIDIA, AMD or Intel.",), ())
    steps = (
        gpu_plan_steps.iommu(facts),
        gpu_plan_steps.display(lent),
        gpu_plan_steps.vfio(facts, lent),
        gpu_plan_nova.nova(facts, lent),
        gpu_plan_nova.machine(facts, lent),
    )
    return Plan(facts.host, lent, tuple(_problems(facts, lent)), steps)


def _problems(facts: HostFacts, lent: Sequence[Lent]) -> list[str]:
    problems = []
    if not facts.virtualisation:
        problems.append("The CPU shows neither vmx nor svm: switch virtualisation on in the firmware, or this host cannot run KVM.")
    for one in lent:
        problems += _problems_of(facts, one)
    if any(one.model.nvswitch for one in lent):
        problems.append(
            "SXM cards are joined by NVSwitch: lending them one by one needs NVIDIA Fabric Manager in shared NVSwitch mode on the "
            "host, else a desktop gets the card and CUDA does not start. Plan for whole boards if you do not run it."
        )
    return problems


def _problems_of(facts: HostFacts, one: Lent) -> list[str]:
    card, problems = one.card, []
    ours = {other.address for other in (*facts.gpus, *one.beside)}
    strangers = [other.address for other in facts.group_of(card) if other.address not in ours and other.slot != card.slot]
    if strangers:
        problems.append(
            f"{card.address} shares IOMMU group {card.iommu_group} with {', '.join(strangers)}: all of them would leave the host. "
            "Use another slot, or switch ACS on in the firmware."
        )
    if card.boot_vga:
        problems.append(
            f"{card.address} is the console of this host: after step 3 its screen stays dark. "
            "Make sure of ssh or a serial console first."
        )
    if card.sriov_on:
        problems.append(
            f"{card.address} has {card.sriov_on} virtual functions switched on (vGPU): it cannot be lent whole at the same time."
        )
    if one.model.mig:
        problems.append(
            f"{card.address} ({one.model.name}) can be divided by MIG: whole cards are lent with MIG off. While the NVIDIA driver "
            f"still has it: nvidia-smi -i {card.address} -mig 0. Parts of it need NVIDIA's vGPU manager on the host, not this plan."
        )
    return problems
