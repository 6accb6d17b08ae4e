"""Which device nodes a container may use: the harmless standard ones, and the GPU cards that it was given."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.protocol.helper import GpuCard

ANY = "any"
"""Asks for a free card of the helper's choice."""
MAX_CARDS = 64
_NVIDIA = re.compile(r"nvidia[0-9]+\Z")
_RENDER = re.compile(r"renderD[0-9]+\Z")
_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
_NVIDIA_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
"""Control nodes that every process with an NVIDIA card opens; they give access to no card by themselves."""
_AMD_SHARED = ("kfd",)
"""ROCm's control node: opens only cards that the device filter lets through (kfd_devcgroup_check_permission)."""
_NOT_CARDS = frozenset({"vgem", "nvidia", "nvidia-drm"})
"""Kernel drivers whose render nodes are no cards: a test device, and NVIDIA's, which belong to their ``nvidiaN``."""


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """Allow ``access`` (letters of ``rwm``) to one device, or to all minors of a major."""

    kind: str
    major: int
    minor: int | None
    access: str = "rwm"

    def __str__(self) -> str:
        """Format as the kernel's ``devices.allow`` wants it."""
        return f"{self.kind} {self.major}:{'*' if self.minor is None else self.minor} {self.access}"


STANDARD = (
    DeviceRule("c", 1, 3),  # null
    DeviceRule("c", 1, 5),  # zero
    DeviceRule("c", 1, 7),  # full
    DeviceRule("c", 1, 8),  # random
    DeviceRule("c", 1, 9),  # urandom
    DeviceRule("c", 5, 0),  # tty
    DeviceRule("c", 5, 1),  # console
    DeviceRule("c", 5, 2),  # ptmx
    DeviceRule("c", 10, 200, "m"),  # tun: newer systemd-nspawn insists on making the node; nobody may open it
    DeviceRule("c", 136, None),  # pseudo terminals
)


@dataclass(frozen=True, slots=True)
class Node:
    """A character device: its path under /dev, and its numbers."""

    path: str
    major: int
    minor: int

    @property
    def rule(self) -> DeviceRule:
        """The rule that allows this node; making it is not allowed."""
        return DeviceRule("c", self.major, self.minor, "rw")


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU: a name, all nodes a desktop needs for it, and its PCI address where the kernel tells it."""

    name: str
    nodes: tuple[Node, ...]
    address: str = ""


def discover(
    dev: Path = Path("/dev"), sys: Path = Path("/sys"), number: Callable[[Path], int | None] | None = None
) -> tuple[Card, ...]:
    """Find the host's GPU cards by their device nodes, in stable order."""
    number = number or _character_device
    shared = _nodes(dev, _NVIDIA_SHARED, number)
    renders = sorted(path.name for path in (dev / "dri").glob("renderD*") if _RENDER.match(path.name))
    by_address = {_address(sys, name): name for name in renders}
    minors = _nvidia_addresses(sys)
    cards = []
    for name in sorted((path.name for path in dev.glob("nvidia*") if _NVIDIA.match(path.name)), key=_trailing_number):
        address = minors.get(_trailing_number(name), "")
        render = by_address.get(address) if address else None
        own = _nodes(dev, (name, *((f"dri/{render}",) if render else ())), number)
        if own:
            cards.append(Card(name, own + shared, address))
    for name in sorted(renders, key=_trailing_number):
        driver = _driver(sys, name)
        own = _nodes(dev, (f"dri/{name}",), number)
        if own and driver not in _NOT_CARDS:
            compute = _nodes(dev, _AMD_SHARED, number) if driver == "amdgpu" else ()
            cards.append(Card(name, own + compute, _address(sys, name)))
    return tuple(cards)


def described(cards: Iterable[Card], sys: Path = Path("/sys")) -> tuple[GpuCard, ...]:
    """Return what the kernel says of cards."""
    return tuple(_described(card, sys / "bus/pci/devices" / card.address) for card in cards)


def _described(card: Card, folder: Path) -> GpuCard:
    if not _PCI.match(card.address):
        return GpuCard(card.name)
    return GpuCard(card.name, card.address, *(_id(folder / name) for name in ("vendor", "device", "subsystem_device")))


def _id(path: Path) -> str:
    try:
        return f"{int(path.read_text(), 16):04x}"
    except (OSError, ValueError):
        return ""


def choose(wanted: Sequence[str], cards: Iterable[Card], taken: Collection[str]) -> tuple[Card, ...]:
    """Choose the cards for one container, by name or PCI address; none that is in ``taken``.

    Raises:
        HelperError: ``out_of_range`` for a card that does not exist, ``no_capacity`` when too few are free.
    """
    if len(wanted) > MAX_CARDS:
        raise HelperError("out_of_range", "That many GPU cards cannot be asked for.")
    known = {card.name: card for card in cards}
    names = {card.address: card.name for card in known.values() if card.address}
    wanted = [names.get(item, item) for item in wanted]
    free = [name for name in known if name not in taken]
    chosen: list[Card] = []
    for name in sorted(wanted, key=lambda item: item == ANY):
        if name != ANY and name not in known:
            raise HelperError("out_of_range", "This machine has no GPU card of that name.")
        if not free or name not in (ANY, *free):
            raise HelperError("no_capacity", "No GPU card is free on this machine now.")
        picked = free[0] if name == ANY else name
        free.remove(picked)
        chosen.append(known[picked])
    return tuple(chosen)


def _character_device(path: Path) -> int | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_rdev if stat.S_ISCHR(status.st_mode) else None


def _nodes(dev: Path, names: Iterable[str], number: Callable[[Path], int | None]) -> tuple[Node, ...]:
    found = ((name, number(dev / name)) for name in names)
    return tuple(Node(name, os.major(device), os.minor(device)) for name, device in found if device is not None)


def _trailing_number(name: str) -> int:
    return int(re.sub(r"\D", "", name))


def _driver(sys: Path, render: str) -> str:
    try:
        return (sys / "class/drm" / render / "device/driver").resolve().name
    except OSError:
        return ""


def _address(sys: Path, render: str) -> str:
    return (sys / "class/drm" / render / "device").resolve().name.lower()


def _nvidia_addresses(sys: Path) -> dict[int, str]:
    """Map the minor number of ``nvidiaN`` to its PCI address, as the driver's proc files tell it."""
    proc = (sys.parent / "proc/driver/nvidia/gpus") if sys != Path("/sys") else Path("/proc/driver/nvidia/gpus")
    found: dict[int, str] = {}
    for folder in proc.glob("*"):
        try:
            minor = re.search(r"Device Minor:\s*(\d+)", (folder / "information").read_text())
        except OSError:
            continue
        if minor:
            found[int(minor.group(1))] = folder.name.lower()
    return found
