"""Checks of a hypervisor: IOMMU, drivers of its GPUs, Nova's configuration. Pure, over `HostFacts`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from beamdesk.adapters.openstack.doctor import Check, HostCheck, Outcome, missing, ok, unknown, warning, wrong
from beamdesk.adapters.openstack.gpu_plan_cards import model_of
from beamdesk.adapters.openstack.gpu_plan_facts import HostFacts, PciFunction
from beamdesk.adapters.openstack.gpu_plan_steps import host_drivers, kind_of, wanted_words

_PLAN = "`beamdesk openstack gpu-plan` prints the lines"
_NO_GPU = "this host has no GPU to lend"


def _with_gpus(check: Callable[[HostFacts], Outcome]) -> Callable[[HostFacts], Outcome]:
    def run(facts: HostFacts) -> Outcome:
        return check(facts) if facts.gpus else ok(_NO_GPU)

    run.__doc__ = check.__doc__
    return run


def _name(function: PciFunction) -> str:
    return f"{function.address} {model_of(function).name if function.is_gpu else kind_of(function)}"


def virtualisation(facts: HostFacts) -> Outcome:
    """Examine whether the CPU may run virtual machines."""
    if not facts.virtualisation:
        return wrong("Switch VT-x or SVM on in the firmware; in a virtual machine: nested virtualisation.", "no vmx and no svm")
    if not facts.kvm:
        return wrong("modprobe kvm_intel (or kvm_amd), and look at dmesg.", "the CPU could, but there is no /dev/kvm")
    return ok(f"{facts.cpu}, /dev/kvm is there")


@_with_gpus
def iommu(facts: HostFacts) -> Outcome:
    """Examine whether the IOMMU is on."""
    lacking = [word for word in wanted_words(facts) if word not in facts.cmdline]
    if not facts.iommu_groups:
        said = f"the kernel's command line lacks {' '.join(lacking)}" if lacking else "the kernel was told; the firmware has it off"
        return wrong(f"Step 1 of the plan: {_PLAN}.", "no IOMMU group", said)
    if "iommu=pt" in lacking:
        return warning("Add iommu=pt: without it the host's own devices are slower.", f"{facts.iommu_groups} IOMMU groups")
    return ok(f"{facts.iommu_groups} IOMMU groups")


@_with_gpus
def groups(facts: HostFacts) -> Outcome:
    """Examine whether each GPU is alone in its IOMMU group, its own functions and other GPUs apart."""
    bad, good = [], []
    for gpu in facts.gpus:
        strangers = [one.address for one in facts.group_of(gpu) if one.slot != gpu.slot and not one.is_gpu]
        if strangers:
            bad.append(f"{_name(gpu)} shares group {gpu.iommu_group} with {', '.join(strangers)}")
        elif gpu.iommu_group is None:
            bad.append(f"{_name(gpu)} is in no group")
        else:
            good.append(f"{_name(gpu)}: group {gpu.iommu_group}")
    if bad:
        return wrong("IOMMU on (step 1); another slot, or ACS on in the firmware, for a group with strangers.", *bad, *good)
    return ok(*good)


@_with_gpus
def binding(facts: HostFacts) -> Outcome:
    """Examine whether each GPU is bound to vfio-pci; one with the NVIDIA driver and virtual functions lends vGPUs instead."""
    bad, good = [], []
    for gpu in facts.gpus:
        if gpu.driver == "vfio-pci":
            good.append(f"{_name(gpu)}: vfio-pci")
        elif gpu.sriov_on or gpu.mdev_types:
            good.append(f"{_name(gpu)}: {gpu.driver}, lends vGPUs")
        else:
            bad.append(f"{_name(gpu)}: driver {gpu.driver or 'none'}")
    return wrong(f"Step 3 of the plan: {_PLAN}.", *bad, *good) if bad else ok(*good)


@_with_gpus
def audio(facts: HostFacts) -> Outcome:
    """Examine whether the other functions of each lent card (audio, USB-C) left the host's drivers with it."""
    bad: list[str] = []
    good: list[str] = []
    for gpu in facts.gpus:
        for one in facts.beside(gpu) if gpu.driver == "vfio-pci" or not gpu.sriov_on else ():
            (good if one.driver in {"vfio-pci", ""} else bad).append(f"{_name(one)}: driver {one.driver or 'none'}")
    if bad:
        return wrong(
            f"Bind them to vfio-pci too, else the group is not viable and the desktop does not start: {_PLAN}.", *bad, *good
        )
    return ok(*(good or ["the cards have no other function"]))


@_with_gpus
def blacklist(facts: HostFacts) -> Outcome:
    """Examine whether the host's drivers stay away from lent cards after the next restart too."""
    lent = [gpu for gpu in facts.gpus if not (gpu.sriov_on or gpu.mdev_types)]
    functions = [function for gpu in lent for function in (gpu, *facts.beside(gpu))]
    lines = [line.split(": ", 1)[1] for line in facts.settings]
    drivers = [
        driver for driver in host_drivers(functions) if driver in {"nouveau", "nvidia", "amdgpu", "i915", "xe", "snd_hda_intel"}
    ]
    open_ = [one for one in drivers if f"blacklist {one}" not in lines and f"softdep {one} pre: vfio-pci" not in lines]
    loaded = [one for one in drivers if one in facts.modules and one != "snd_hda_intel"]
    ids = {one for line in lines if line.startswith("options vfio-pci ids=") for one in line.split("=", 1)[1].split()[0].split(",")}
    unbound = sorted({function.id for function in functions} - ids)
    found = [f"not kept away: {one}" for one in open_] + [f"loaded now: {one}" for one in loaded]
    if open_ and loaded:
        return wrong(f"Step 3 of the plan: {_PLAN}.", *found)
    if unbound and ids:
        return warning(
            "Add them to `options vfio-pci ids=`, unless they are bound by address.", f"not in its ids: {', '.join(unbound)}"
        )
    if open_ or loaded:
        return warning(f"After a restart the host's driver may take the card first: {_PLAN}.", *found)
    return ok(*facts.settings[:20])


def _specs(facts: HostFacts, key: str) -> Iterable[tuple[dict[str, Any] | None, str]]:
    """Yield the JSON values of a [pci] key, None for one that is not JSON; a value may be a list of devices."""
    for text in facts.nova.get("pci", {}).get(key, []):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            yield None, text
            continue
        for one in value if isinstance(value, list) else [value]:
            yield (one if isinstance(one, dict) else None), text


def _no_nova(facts: HostFacts) -> Outcome | None:
    if facts.nova_files:
        return None
    return unknown(
        "Run the doctor where nova-compute's configuration is (with Kolla: inside of the nova_compute container).",
        "no nova.conf here",
    )


def _on(facts: HostFacts, section: str, key: str) -> bool:
    return facts.nova.get(section, {}).get(key, ["false"])[-1].lower() in {"true", "1", "yes", "on", "t"}


@_with_gpus
def device_spec(facts: HostFacts) -> Outcome:
    """Examine whether [pci]device_spec names each GPU that is bound to vfio-pci."""
    if nothing := _no_nova(facts):
        return nothing
    specs = list(_specs(facts, "device_spec")) + list(_specs(facts, "passthrough_whitelist"))
    if broken := [text for spec, text in specs if spec is None]:
        return wrong("Each value is one JSON object; mind the quotes.", *(f"not JSON: {text[:100]}" for text in broken))
    lent = [gpu for gpu in facts.gpus if gpu.driver == "vfio-pci"]
    out = [f"{_name(gpu)}: no device_spec names it" for gpu in lent if not any(spec and _names(spec, gpu) for spec, _ in specs)]
    if out:
        return wrong(f"Step 4 of the plan: {_PLAN}.", *out)
    if any(spec and "resource_class" not in spec for spec, _ in specs):
        return warning("Give each a resource_class, so that Placement counts all GPUs alike.", f"{len(specs)} device_spec")
    return ok(f"{len(specs)} device_spec for {len(lent)} cards")


def _names(spec: dict[str, Any], gpu: PciFunction) -> bool:
    """Tell whether a device_spec names the card; address may be short (without domain) or a glob, which is believed."""
    address = spec.get("address")
    if isinstance(address, str) and address.strip("*:. ") and "*" not in address and not gpu.address.endswith(address.lower()):
        return False
    for key, value in (("vendor_id", gpu.vendor), ("product_id", gpu.device)):
        said = spec.get(key, "*")
        if said != "*" and str(said).lower() != value.removeprefix("0x"):
            return False
    return bool({"address", "vendor_id", "product_id"} & set(spec))


@_with_gpus
def alias(facts: HostFacts) -> Outcome:
    """Examine whether an alias leads to the cards. nova-api needs the same one: an alias there only gives no card here."""
    if nothing := _no_nova(facts):
        return nothing
    found = list(_specs(facts, "alias"))
    if broken := [text for spec, text in found if spec is None or not spec.get("name")]:
        return wrong('Each value is one JSON object with "name".', *(f"not an alias: {text[:100]}" for text in broken))
    if not found:
        return missing(f"Step 4 of the plan, here and on the controllers: {_PLAN}.", "[pci]alias is not set")
    in_placement = _on(facts, "filter_scheduler", "pci_in_placement")
    if bare := [str(spec["name"]) for spec, _ in found if spec and not ({"vendor_id", "product_id"} <= set(spec) or in_placement)]:
        return wrong(
            "Give it vendor_id and product_id too: Nova refuses a resource_class alone where pci_in_placement is not set.",
            f"alias {', '.join(bare)} has no ids",
        )
    physical = {gpu.id for gpu in facts.gpus if gpu.sriov_total}
    for spec, _ in found:
        mine = f"{spec.get('vendor_id')}:{spec.get('product_id')}" if spec else ""
        if spec and mine in physical and spec.get("device_type", "type-PCI") == "type-PCI":
            return wrong(
                'Set "device_type": "type-PF": a card that could have virtual functions is a physical function to Nova.',
                f"alias {spec['name']} is of type-PCI and {mine} never is",
            )
    return ok(f"aliases: {', '.join(str(spec['name']) for spec, _ in found if spec)}")


@_with_gpus
def placement(facts: HostFacts) -> Outcome:
    """Examine whether this host reports its cards to Placement."""
    if nothing := _no_nova(facts):
        return nothing
    if not _on(facts, "pci", "report_in_placement"):
        return wrong("[pci]report_in_placement = True in nova.conf, then start nova-compute again.", "report_in_placement is off")
    return ok("[pci]report_in_placement is on")


def scheduler(facts: HostFacts) -> Outcome:
    """Examine the filters, where this machine's nova.conf sets them: only nova-scheduler's counts."""
    said = facts.nova.get("filter_scheduler", {}).get("enabled_filters")
    if not said:
        return ok("not set here: Nova's default has PciPassthroughFilter since Queens")
    names = {one.strip() for one in ",".join(said).split(",")}
    if "PciPassthroughFilter" not in names:
        return wrong("Add PciPassthroughFilter to [filter_scheduler]enabled_filters of nova-scheduler.", ", ".join(sorted(names)))
    return ok(", ".join(sorted(names)))


def account(facts: HostFacts) -> Outcome:
    """Examine whether the account nova may use libvirt and KVM."""
    if facts.nova_groups is None:
        return unknown("With packages: groupadd and useradd come with nova-compute. In containers this is fine.", "no account nova")
    lacking = sorted({"libvirt", "kvm"} - set(facts.nova_groups))
    if "libvirt" in lacking:
        return wrong(
            "usermod --append --groups libvirt,kvm nova; systemctl restart nova-compute", f"nova is not in {', '.join(lacking)}"
        )
    return ok(f"nova is in {', '.join(facts.nova_groups)}")


CHECKS: tuple[HostCheck, ...] = (
    Check("host.virtualisation", "The CPU runs virtual machines", virtualisation, blocks=True),
    Check("host.iommu", "The IOMMU is on", iommu),
    Check("host.groups", "Each GPU is alone in its IOMMU group", groups),
    Check("host.binding", "Each GPU is bound to vfio-pci", binding),
    Check("host.audio", "The GPUs' audio and other functions are bound with them", audio),
    Check("host.blacklist", "The host's own GPU drivers stay away", blacklist),
    Check("host.device-spec", "Nova's [pci]device_spec names the GPUs", device_spec),
    Check("host.alias", "Nova's [pci]alias leads to the GPUs", alias),
    Check("host.placement", "The GPUs are reported to Placement", placement),
    Check("host.scheduler", "The scheduler's filters heed PCI devices", scheduler),
    Check("host.account", "The account nova may use libvirt and KVM", account),
)
