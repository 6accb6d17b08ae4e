"""GPUs as `/sys/bus/pci` shows them: also those bound to vfio-pci, which no driver's library sees.

Virtual functions and a server's own console graphics are no cards to lend: only NVIDIA devices and what the catalogue knows count.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from beamdesk.srm.catalogue import Catalogue
from beamdesk.srm.files import link, names, number, read

NVIDIA = "10de"
_CLASSES = ("0x0300", "0x0302", "0x0380", "0x1200")
"""VGA, 3D, other display controller; processing accelerator: AMD's Instinct cards from MI300 on."""


@dataclass(frozen=True, slots=True)
class PciCard:
    """One function of a GPU. ``node`` is the kernel's NUMA node, -1 = none; ``vfio``: its character devices under `/dev/vfio`."""

    address: str
    vendor: str
    device: str
    subsystem_vendor: str
    subsystem_device: str
    driver: str
    node: int
    iommu_group: int | None
    link_width: int | None
    link_gts: float | None
    vfio: tuple[str, ...]


def scan(sys: Path, catalogue: Catalogue) -> tuple[PciCard, ...]:
    """Return the GPUs of this machine, by address."""
    folder = sys / "bus/pci/devices"
    return tuple(card for card in (_card(folder / name, catalogue) for name in names(folder)) if card is not None)


def _card(path: Path, catalogue: Catalogue) -> PciCard | None:
    if not read(path / "class").startswith(_CLASSES) or link(path / "physfn"):
        return None
    ids = {name: _id(path / name) for name in ("vendor", "device", "subsystem_vendor", "subsystem_device")}
    if ids["vendor"] != NVIDIA and catalogue.find(ids["vendor"], ids["device"], ids["subsystem_device"]) is None:
        return None
    group = link(path / "iommu_group")
    node = number(path / "numa_node")
    devices = (f"devices/{name}" for name in names(path / "vfio-dev"))
    return PciCard(
        address=path.name.lower(),
        **ids,
        driver=link(path / "driver"),
        node=-1 if node is None else node,
        iommu_group=int(group) if group.isdecimal() else None,
        link_width=_positive(number(path / "max_link_width")),
        link_gts=_speed(read(path / "max_link_speed")),
        vfio=(*((group,) if group else ()), *devices),
    )


def _id(path: Path) -> str:
    """Return a PCI id as four hex digits; zeros when it cannot be read."""
    value = number(path)
    return f"{value:04x}" if value is not None and 0 <= value <= 0xFFFF else "0000"


def _positive(value: int | None) -> int | None:
    """Return a link's width; the kernel says 0 or 255 where it does not know."""
    return value if value is not None and 0 < value <= 64 else None


def _speed(text: str) -> float | None:
    """Return GT/s from a text such as ``16.0 GT/s PCIe``."""
    try:
        speed = float(text.split(maxsplit=1)[0])
    except (ValueError, IndexError):
        return None
    return speed if 0 < speed <= 1024 else None
