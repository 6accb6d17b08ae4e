"""Steps 1 to 3 of a GPU plan: IOMMU, display emulator, VFIO. Debian, Ubuntu and the RHEL family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from beamdesk.adapters.openstack.gpu_plan_facts import HostFacts, PciFunction
from beamdesk.adapters.openstack.gpu_plan_model import Action, Lent, Step

_RHEL = frozenset({"rhel", "centos", "rocky", "almalinux", "fedora", "ol"})
_GRUB = "/etc/default/grub.d/beamdesk-iommu.cfg"
_MODPROBE = "/etc/modprobe.d/beamdesk-vfio.conf"
_DRACUT = "/etc/dracut.conf.d/beamdesk-vfio.conf"
_INITRAMFS = "/etc/initramfs-tools/modules"
_HOST_DRIVERS = {
    "0x10de": ("nouveau", "nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidiafb"),
    "0x1002": ("amdgpu", "radeon"),
    "0x8086": ("i915", "xe"),
}


def is_rhel(facts: HostFacts) -> bool:
    """Tell whether the host is of the RHEL family (grubby and dracut)."""
    return facts.distribution in _RHEL


def wanted_words(facts: HostFacts) -> tuple[str, ...]:
    """Return the kernel's words for an IOMMU: Intel's is off unless told, AMD's is on (kernel-parameters.txt)."""
    return ("iommu=pt",) if facts.cpu == "amd" else ("intel_iommu=on", "iommu=pt")


def iommu(facts: HostFacts) -> Step:
    """Plan step 1."""
    missing = [word for word in wanted_words(facts) if word not in facts.cmdline]
    off = [word for word in facts.cmdline if word in {"intel_iommu=off", "amd_iommu=off", "iommu=off"}]
    return Step(
        1,
        "Switch the IOMMU on",
        tuple(_iommu_found(facts, missing, off)),
        tuple(_iommu_actions(facts, missing, off)),
        (
            "cat /proc/cmdline",
            "ls /sys/kernel/iommu_groups | wc -l    # more than 0",
            "dmesg | grep -i -e DMAR -e AMD-Vi | head",
        ),
        _iommu_undo(facts, missing),
    )


def _iommu_found(facts: HostFacts, missing: Sequence[str], off: Sequence[str]) -> Iterable[str]:
    yield f"CPU {facts.cpu or 'unknown'}, {facts.iommu_groups} IOMMU groups" + ("" if facts.iommu_groups else ": the IOMMU is off")
    if off:
        yield f"the kernel's command line switches it off: {' '.join(off)}"
    if missing:
        yield f"the kernel's command line lacks {' '.join(missing)}"
    elif not facts.iommu_groups:
        yield "the command line is right and there is no group: the firmware has it off, or hides it"


def _iommu_actions(facts: HostFacts, missing: Sequence[str], off: Sequence[str]) -> Iterable[Action]:
    name = {"amd": "AMD-Vi (IOMMU) and SVM", "intel": "VT-d and VT-x"}.get(facts.cpu, "the IOMMU")
    if not facts.iommu_groups:
        yield Action(
            "In the firmware",
            (f"# {name} on; 'Above 4G decoding' and, for 24 GiB cards and larger, 'Resizable BAR/MMIO high' on.",),
        )
    if not missing and not off:
        return
    words = " ".join(missing)
    if is_rhel(facts):
        if off:
            yield Action("Take the words that switch it off away", (f'grubby --update-kernel=ALL --remove-args="{" ".join(off)}"',))
        if missing:
            yield Action("Tell the kernel", (f'grubby --update-kernel=ALL --args="{words}"',))
    else:
        if off:
            yield Action("Take the words that switch it off away", (f"editor /etc/default/grub    # remove: {' '.join(off)}",))
        if missing:
            line = f'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT {words}"'
            yield Action("Tell the kernel", (line,), path=_GRUB)
        yield Action("Write the boot menu", ("update-grub",))
    yield Action("Restart, now or after step 3", ("systemctl reboot",))


def _iommu_undo(facts: HostFacts, missing: Sequence[str]) -> tuple[str, ...]:
    if not missing:
        return ("# Nothing was added.",)
    if is_rhel(facts):
        return (f'grubby --update-kernel=ALL --remove-args="{" ".join(missing)}"', "systemctl reboot")
    return (f"rm {_GRUB}", "update-grub", "systemctl reboot")


def display(lent: Sequence[Lent]) -> Step:
    """Plan step 2: cards with display outputs lower their clocks and sleep without a screen; a dummy plug keeps them awake."""
    outputs = [one for one in lent if one.card.class_code.startswith("0x0300")]
    without = [one for one in lent if one not in outputs]
    found = [f"{one.card.address} {one.model.name}: has display outputs (VGA controller)" for one in outputs]
    found += [f"{one.card.address} {one.model.name}: none in use (3D controller), no plug needed" for one in without]
    plugs = tuple(f"# one DisplayPort emulator (dummy plug) into {one.card.address}, {one.model.name}" for one in outputs)
    return Step(
        2,
        "Put a display emulator into cards with display outputs",
        tuple(found),
        (Action("At the machine", plugs),) if plugs else (),
        (
            "# In a desktop with the card, while something draws; pstate P0 or P2 and a clock that is not at its minimum:",
            "nvidia-smi --query-gpu=pstate,clocks.gr,display_active --format=csv",
        )
        if outputs
        else ("# Nothing to verify.",),
        ("# Pull the plugs out.",) if plugs else ("# Nothing was done.",),
    )


def vfio(facts: HostFacts, lent: Sequence[Lent]) -> Step:
    """Plan step 3."""
    functions = [function for one in lent for function in (one.card, *one.beside)]
    kept = [card for card in facts.gpus if card not in functions]
    by_address = bool({card.id for card in kept} & {one.card.id for one in lent})
    ids = sorted({function.id for function in functions}) if not by_address else []
    return Step(
        3,
        "Detach the cards from the host's drivers and bind them to vfio-pci",
        tuple(_function_found(function) for function in functions),
        tuple(_vfio_actions(facts, functions, kept, ids)),
        (
            *(f"lspci -nnk -s {function.address}    # Kernel driver in use: vfio-pci" for function in functions),
            "lsmod | grep -E '^(nouveau|nvidia|amdgpu)'    # nothing",
            "ls /dev/vfio    # the groups of the cards beside vfio",
        ),
        _vfio_undo(facts, functions, by_address=by_address),
    )


def kind_of(function: PciFunction) -> str:
    """Return what a PCI function is, in a word."""
    words = {"0x03": "graphics", "0x0403": "audio", "0x0c03": "USB", "0x0c80": "USB-C"}
    return words.get(function.class_code[:6]) or words.get(function.class_code[:4]) or "other"


def _function_found(function: PciFunction) -> str:
    group = "no IOMMU group" if function.iommu_group is None else f"IOMMU group {function.iommu_group}"
    return f"{function.address} {function.id} {kind_of(function)}: driver {function.driver or 'none'}, {group}"


def host_drivers(functions: Sequence[PciFunction]) -> tuple[str, ...]:
    """Return the host's drivers that must not touch these functions, audio's last."""
    found = [driver for function in functions if function.is_gpu for driver in _HOST_DRIVERS.get(function.vendor, ())]
    if any(kind_of(function) == "audio" for function in functions):
        found.append("snd_hda_intel")
    return tuple(dict.fromkeys(found))


def _vfio_actions(
    facts: HostFacts, functions: Sequence[PciFunction], kept: Sequence[PciFunction], ids: Sequence[str]
) -> Iterable[Action]:
    staying = {driver for card in kept for driver in _HOST_DRIVERS.get(card.vendor, ())}
    drivers = host_drivers(functions)
    lines = [f"options vfio-pci ids={','.join(ids)} disable_vga=1"] if ids else []
    lines += [f"softdep {driver} pre: vfio-pci" for driver in drivers]
    lines += [f"blacklist {driver}" for driver in drivers if driver not in staying]
    yield Action("Drivers: vfio-pci first, the host's own not at all", tuple(lines), path=_MODPROBE)
    if not ids:
        commands = tuple(f"driverctl set-override {function.address} vfio-pci" for function in functions)
        yield Action("Other cards of the same model stay with the host: bind by address (package driverctl)", commands)
    modules = ("vfio", "vfio_iommu_type1", "vfio_pci")
    if is_rhel(facts):
        yield Action("Into the initramfs", (f'force_drivers+=" {" ".join(modules)} "',), path=_DRACUT)
        yield Action("Write the initramfs", ("dracut --force --regenerate-all",))
    else:
        yield Action("Into the initramfs", (f"printf '%s\\n' {' '.join(modules)} >>{_INITRAMFS}",))
        yield Action("Write the initramfs", ("update-initramfs -u -k all",))
    yield Action("Restart", ("systemctl reboot",))


def _vfio_undo(facts: HostFacts, functions: Sequence[PciFunction], *, by_address: bool) -> tuple[str, ...]:
    commands = [f"rm {_MODPROBE}"]
    if by_address:
        commands += [f"driverctl unset-override {function.address}" for function in functions]
    if is_rhel(facts):
        commands += [f"rm {_DRACUT}", "dracut --force --regenerate-all"]
    else:
        commands += [f"sed -i '/^vfio/d' {_INITRAMFS}", "update-initramfs -u -k all"]
    return (*commands, "systemctl reboot")
