"""Builds the files of common hypervisors below a folder: what sysfs, proc and etc show there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

A100 = ("0x10de", "0x20b2", "0x030200")
A40 = ("0x10de", "0x2235", "0x030200")
ADA = ("0x10de", "0x26b1", "0x030000")
ADA_AUDIO = ("0x10de", "0x22ba", "0x040300")
T4 = ("0x10de", "0x1eb8", "0x030200")
MI210 = ("0x1002", "0x740f", "0x120000")
NETWORK = ("0x8086", "0x1572", "0x020000")
BRIDGE = ("0x8086", "0x2030", "0x060400")
CONSOLE = ("0x1a03", "0x2000", "0x030000")  # ASPEED: the small graphics chip of a server's console


@dataclass
class Device:
    address: str
    kind: tuple[str, str, str]
    group: int | None = 1
    driver: str = ""
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class Machine:
    """A host's files. ``groups`` is how many IOMMU groups it has: 0 = the IOMMU is off."""

    devices: list[Device]
    vendor: str = "GenuineIntel"
    flags: str = "fpu vmx sse"
    cmdline: str = "root=/dev/vda1 intel_iommu=on iommu=pt"
    groups: int = 80
    modules: tuple[str, ...] = ("vfio_pci", "kvm")
    distribution: str = "debian"
    files: dict[str, str] = field(default_factory=dict)

    def write(self, root: Path) -> Path:
        put(root, "proc/sys/kernel/hostname", "gpu01\n")
        put(root, "proc/sys/kernel/osrelease", "6.1.0\n")
        put(root, "proc/cpuinfo", f"processor\t: 0\nvendor_id\t: {self.vendor}\nflags\t\t: {self.flags}\n")
        put(root, "proc/cmdline", self.cmdline + "\n")
        put(root, "proc/modules", "".join(f"{name} 4096 0 - Live 0x0\n" for name in self.modules))
        put(root, "etc/os-release", f'NAME="x"\nID={self.distribution}\n')
        for number in range(self.groups):
            (root / f"sys/kernel/iommu_groups/{number}").mkdir(parents=True, exist_ok=True)
        for device in self.devices:
            write_device(root, device, iommu=self.groups > 0)
        for name, text in self.files.items():
            put(root, name, text)
        return root


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_device(root: Path, device: Device, *, iommu: bool) -> None:
    folder = root / "sys/bus/pci/devices" / device.address
    vendor, product, code = device.kind
    content = {"vendor": vendor, "device": product, "class": code, "numa_node": "0", "resource": "0x0000 0x0fff 0x40200\n"}
    for name, text in {**content, **device.files}.items():
        put(folder, name, text + "\n")
    if device.driver:
        (folder / "driver").symlink_to(f"../../../bus/pci/drivers/{device.driver}")
    if iommu and device.group is not None:
        (folder / "iommu_group").symlink_to(f"../../../kernel/iommu_groups/{device.group}")


NOVA = """
[DEFAULT]
transport_url = rabbit://openstack:secret@controller
[pci]
device_spec = { "vendor_id": "10de", "product_id": "26b1",
    "resource_class": "CUSTOM_GPU", "traits": "CUSTOM_GPU_MODEL_RTX_6000_ADA" }
alias = {"name": "rtx-6000-ada", "vendor_id": "10de", "product_id": "26b1", "resource_class": "CUSTOM_GPU", "traits": "CUSTOM_GPU_MODEL_RTX_6000_ADA"}
report_in_placement = True
[filter_scheduler]
enabled_filters = ComputeFilter,PciPassthroughFilter
[libvirt]
virt_type = kvm
"""

VFIO = "options vfio-pci ids=10de:26b1,10de:22ba disable_vga=1\nblacklist nouveau\nblacklist nvidia\nblacklist snd_hda_intel\n"


def ready() -> Machine:
    """A host with one RTX 6000 Ada on which everything is done."""
    return Machine(
        [
            Device("0000:3b:00.0", ADA, 30, "vfio-pci"),
            Device("0000:3b:00.1", ADA_AUDIO, 30, "vfio-pci"),
            Device("0000:02:00.0", CONSOLE, 3, "ast", {"boot_vga": "1"}),
            Device("0000:17:00.0", NETWORK, 9, "i40e"),
        ],
        modules=("vfio_pci", "vfio", "kvm"),
        files={
            "etc/modprobe.d/vfio.conf": VFIO,
            "etc/initramfs-tools/modules": "# modules\nvfio_pci\n",
            "etc/nova/nova.conf": NOVA,
            "etc/passwd": "root:x:0:0::/root:/bin/sh\nnova:x:64060:64060::/var/lib/nova:/usr/sbin/nologin\n",
            "etc/group": "nova:x:64060:\nlibvirt:x:110:nova\nkvm:x:105:nova\n",
            "dev/kvm": "",
            "dev/vfio/vfio": "",
            "dev/vfio/30": "",
        },
    )


def untouched() -> Machine:
    """The same card as the machine came: nothing is done."""
    return Machine(
        [
            Device("0000:3b:00.0", ADA, None, "nouveau", {"boot_vga": "1"}),
            Device("0000:3b:00.1", ADA_AUDIO, None, "snd_hda_intel"),
        ],
        cmdline="root=/dev/vda1 quiet",
        groups=0,
        modules=("nouveau", "snd_hda_intel"),
    )


def a100_sxm() -> Machine:
    return Machine(
        [Device(f"0000:{bus:02x}:00.0", A100, 10 + bus, "nvidia", {"sriov_totalvfs": "20"}) for bus in (0x07, 0x0F, 0x47, 0x4E)]
    )


def a40() -> Machine:
    return Machine([Device("0000:81:00.0", A40, 44, "nvidia", {"sriov_totalvfs": "32"})], distribution="rocky", cmdline="quiet")


def two_models_on_amd() -> Machine:
    return Machine(
        [
            Device("0000:41:00.0", ADA, 20, "nouveau"),
            Device("0000:41:00.1", ADA_AUDIO, 20, "snd_hda_intel"),
            Device("0000:81:00.0", T4, 40, "nouveau"),
            Device("0000:80:01.0", BRIDGE, 40, "pcieport"),
        ],
        vendor="AuthenticAMD",
        flags="fpu svm",
        cmdline="root=/dev/vda1 amd_iommu=off",
        groups=0,
    )
