"""Facts of a hypervisor that matter for lending its GPUs: CPU, IOMMU, PCI functions, modules, Nova's configuration.

Standard library only, and one file on purpose: `beamdesk openstack facts --script | ssh HOST python3 -` collects the facts of a
machine that has no Beamdesk. It reads files below a root, changes nothing, and copies no secret: of nova.conf only the sections and
keys in `NOVA_KEYS`. Absent files are absent facts, never an error.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1
ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
DISPLAY_CLASSES = ("0x0300", "0x0302", "0x0380")
"""PCI base class 03: VGA controller, 3D controller, other display controller (PCI Code and ID Assignment 1.11)."""
GPU_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_ACCELERATOR = "0x1200"
_AMD = "0x1002"
NOVA_KEYS = {
    "pci": ("device_spec", "passthrough_whitelist", "alias", "report_in_placement"),
    "devices": ("enabled_mdev_types", "enabled_vgpu_types"),
    "filter_scheduler": ("enabled_filters", "available_filters", "pci_in_placement", "weight_classes"),
    "libvirt": ("virt_type",),
    "DEFAULT": ("compute_driver",),
}
_NOVA_FILES = ("etc/nova/nova.conf", "etc/nova/nova-compute.conf", "etc/nova/nova-cpu.conf", "etc/nova/nova.conf.d")
_MODPROBE_FOLDERS = ("usr/lib/modprobe.d", "lib/modprobe.d", "run/modprobe.d", "etc/modprobe.d")
_INITRAMFS_FILES = ("etc/initramfs-tools/modules", "etc/modules", "etc/dracut.conf", "etc/dracut.conf.d", "etc/modules-load.d")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class PciFunction:
    """One PCI function. Ids as sysfs tells them (``0x10de``); ``bars`` in bytes; None or empty = sysfs does not tell."""

    address: str
    vendor: str
    device: str
    subsystem: str = ""
    class_code: str = ""
    driver: str = ""
    iommu_group: int | None = None
    numa: int = -1
    boot_vga: bool = False
    sriov_total: int = 0
    sriov_on: int = 0
    physical: str = ""
    mdev_types: tuple[str, ...] = ()
    bars: tuple[int, ...] = ()
    reset: str = ""

    @property
    def slot(self) -> str:
        """Return the address without its function."""
        return self.address.rsplit(".", 1)[0]

    @property
    def id(self) -> str:
        """Return ``vendor:device`` as vfio-pci and lspci write it."""
        return f"{self.vendor.removeprefix('0x')}:{self.device.removeprefix('0x')}"

    @property
    def is_gpu(self) -> bool:
        """Tell whether it is a graphics card that can be lent: no virtual function, and not the small one of a server's console."""
        display = self.class_code.startswith(DISPLAY_CLASSES) or (self.class_code.startswith(_ACCELERATOR) and self.vendor == _AMD)
        return display and self.vendor in GPU_VENDORS and not self.physical

    @property
    def is_bridge(self) -> bool:
        """Tell whether it is a PCI bridge: those stay with the host whatever group they are in."""
        return self.class_code.startswith("0x0604")


@dataclass(frozen=True)
class HostFacts:
    """One host. ``nova`` is section -> key -> values; ``settings`` are lines of module configuration as ``file: line``."""

    host: str
    distribution: str = ""
    kernel: str = ""
    cpu: str = ""
    virtualisation: bool = False
    cmdline: tuple[str, ...] = ()
    iommu_groups: int = 0
    devices: tuple[PciFunction, ...] = ()
    modules: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    nova: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    nova_files: tuple[str, ...] = ()
    nova_groups: tuple[str, ...] | None = None
    kvm: bool = False
    vfio: tuple[str, ...] = ()

    @property
    def gpus(self) -> tuple[PciFunction, ...]:
        """Return the GPUs, by address."""
        return tuple(one for one in self.devices if one.is_gpu)

    def beside(self, gpu: PciFunction) -> tuple[PciFunction, ...]:
        """Return the other functions in the GPU's slot: audio, USB-C."""
        return tuple(one for one in self.devices if one.slot == gpu.slot and one != gpu and not one.physical)

    def group_of(self, gpu: PciFunction) -> tuple[PciFunction, ...]:
        """Return what else is in the GPU's IOMMU group and would have to go with it, bridges left out."""
        if gpu.iommu_group is None:
            return ()
        return tuple(one for one in self.devices if one.iommu_group == gpu.iommu_group and one != gpu and not one.is_bridge)


def collect(root: Path = Path("/"), host: str | None = None) -> HostFacts:
    """Return the facts of the machine whose file system is at ``root``."""
    cpuinfo = _read(root / "proc/cpuinfo")
    flags = set(re.findall(r"\b(vmx|svm)\b", cpuinfo[:8192]))
    files = tuple(_files(root, _NOVA_FILES, ".conf"))
    return HostFacts(
        host=host or _read(root / "proc/sys/kernel/hostname").strip() or "this-host",
        distribution=_value(_read(root / "etc/os-release"), "ID"),
        kernel=_read(root / "proc/sys/kernel/osrelease").strip(),
        cpu={"GenuineIntel": "intel", "AuthenticAMD": "amd"}.get(_field(cpuinfo, "vendor_id"), _field(cpuinfo, "vendor_id")),
        virtualisation=bool(flags),
        cmdline=tuple(_read(root / "proc/cmdline").split()),
        iommu_groups=len(_names(root / "sys/kernel/iommu_groups")),
        devices=tuple(_functions(root / "sys/bus/pci/devices")),
        modules=tuple(sorted(line.split()[0] for line in _read(root / "proc/modules").splitlines() if line.strip())),
        settings=tuple(_settings(root)),
        nova=_nova([root / name for name in files]),
        nova_files=tuple(f"/{name}" for name in files),
        nova_groups=_groups(root, "nova"),
        kvm=(root / "dev/kvm").exists(),
        vfio=tuple(_names(root / "dev/vfio")),
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names only
    except OSError:
        return []


def _value(text: str, key: str) -> str:
    found = re.search(rf"^{key}=\"?([^\"\n]*)", text, re.MULTILINE)
    return found.group(1) if found else ""


def _field(text: str, key: str) -> str:
    found = re.search(rf"^{key}\s*:\s*(\S+)", text, re.MULTILINE)
    return found.group(1) if found else ""


def _link(path: Path) -> str:
    try:
        return Path(os.readlink(path)).name  # noqa: PTH115 - the target need not exist
    except OSError:
        return ""


def _number(text: str, default: int = 0) -> int:
    try:
        return int(text.strip(), 0)
    except ValueError:
        return default


def _functions(folder: Path) -> list[PciFunction]:
    return [_function(folder / name) for name in _names(folder) if ADDRESS.fullmatch(name)]


def _function(path: Path) -> PciFunction:
    def text(name: str) -> str:
        return _read(path / name).strip()

    group = _link(path / "iommu_group")
    return PciFunction(
        address=path.name,
        vendor=text("vendor"),
        device=text("device"),
        subsystem=f"{text('subsystem_vendor')}:{text('subsystem_device')}".replace("0x", "").strip(":"),
        class_code=text("class"),
        driver=_link(path / "driver"),
        iommu_group=int(group) if group.isdigit() else None,
        numa=_number(text("numa_node"), -1),
        boot_vga=text("boot_vga") == "1",
        sriov_total=_number(text("sriov_totalvfs")),
        sriov_on=_number(text("sriov_numvfs")),
        physical=_link(path / "physfn"),
        mdev_types=tuple(_names(path / "mdev_supported_types")),
        bars=tuple(_bars(text("resource"))),
        reset=text("reset_method"),
    )


def _bars(text: str) -> list[int]:
    sizes = []
    for line in text.splitlines()[:6]:
        numbers = [_number(part) for part in line.split()[:2]]
        if len(numbers) == 2 and numbers[1] > numbers[0]:
            sizes.append(numbers[1] - numbers[0] + 1)
    return sizes


def _files(root: Path, names: tuple[str, ...], suffix: str) -> list[str]:
    found = []
    for name in names:
        path = root / name
        if path.is_dir():
            found += [f"{name}/{one}" for one in _names(path) if one.endswith(suffix)]
        elif path.is_file():
            found.append(name)
    return found


def _settings(root: Path) -> list[str]:
    lines = []
    for name in _files(root, _MODPROBE_FOLDERS + _INITRAMFS_FILES, ".conf"):
        for line in _read(root / name).splitlines():
            said = " ".join(line.split("#", 1)[0].split())
            if re.search(r"\b(blacklist|vfio|nouveau|nvidia|amdgpu|radeon|snd_hda_intel|i915|xe)\b|vfio", said):
                lines.append(f"/{name}: {said}")
    return lines


def _nova(paths: list[Path]) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for path in paths:
        here: dict[str, dict[str, list[str]]] = {}
        section = "DEFAULT"
        for line in _joined(_read(path)):
            if header := re.fullmatch(r"\[([^\]]+)\]\s*", line):
                section = header.group(1)
                continue
            said = re.match(r"([A-Za-z_]+)\s*[=:]\s*(.*)$", line)
            if said and said.group(1) in NOVA_KEYS.get(section, ()):
                here.setdefault(section, {}).setdefault(said.group(1), []).append(said.group(2).strip())
        for name, keys in here.items():  # a later file replaces a key of an earlier one, as in oslo.config
            found.setdefault(name, {}).update(keys)
    return found


def _joined(text: str) -> list[str]:
    """Return the lines of an oslo.config file with continuation lines (indented) joined, comments left out."""
    lines: list[str] = []
    for raw in text.splitlines():
        if not raw.strip() or raw.lstrip().startswith(("#", ";")):
            continue
        if raw[0].isspace() and lines and not lines[-1].startswith("["):
            lines[-1] += " " + raw.strip()
        else:
            lines.append(raw.strip())
    return lines


def _groups(root: Path, account: str) -> tuple[str, ...] | None:
    """Return the groups of an account, None when there is no such account."""
    entry = re.search(rf"^{account}:[^:]*:\d+:(\d+):", _read(root / "etc/passwd"), re.MULTILINE)
    if entry is None:
        return None
    rows = [line.split(":") for line in _read(root / "etc/group").splitlines() if line.count(":") == 3]
    return tuple(sorted(row[0] for row in rows if row[2] == entry.group(1) or account in row[3].split(",")))


def to_json(facts: HostFacts) -> str:
    """Return the facts as a document."""
    return json.dumps({"format": FORMAT, **asdict(facts)}, indent=1) + "\n"


def from_json(text: str) -> HostFacts:
    """Return the facts of a document.

    Raises:
        ValueError: it is none; the text names the offence.
    """
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise ValueError(f"it is not a facts file of format {FORMAT}")
    try:
        devices = tuple(PciFunction(**_tuples(one, ("mdev_types", "bars"))) for one in document.pop("devices"))
        names = ("cmdline", "modules", "settings", "nova_files", "nova_groups", "vfio")
        facts = HostFacts(devices=devices, **_tuples(document, names))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it lacks a fact or has one of another shape ({error})") from error
    _check_shapes(facts)
    return facts


def _tuples(entry: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: tuple(value) if key in names and isinstance(value, list) else value for key, value in entry.items()}


_ID = re.compile(r"0x[0-9a-f]{4}")


def _check_shapes(facts: HostFacts) -> None:
    """Refuse what would end up in printed commands: a facts file comes from elsewhere."""
    if not isinstance(facts.host, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}", facts.host):
        raise ValueError("host is not a host name")
    for one in facts.devices:
        if not isinstance(one.address, str) or not ADDRESS.fullmatch(one.address):
            raise ValueError("a device has no PCI address")
        if not all(isinstance(text, str) and _ID.fullmatch(text) for text in (one.vendor, one.device)):
            raise ValueError(f"{one.address}: vendor or device is not a PCI id")


if __name__ == "__main__":
    sys.stdout.write(to_json(collect()))
