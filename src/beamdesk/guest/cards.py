"""The graphics cards that the desktop was given, by the device files that it has.

In a container sysfs shows all cards of the host: only those whose device file is here are the desktop's own. Displays that a
hypervisor emulates are no cards.
"""

from __future__ import annotations

import contextlib
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_GROUP, _OTHERS_RIGHTS = stat.S_IRGRP | stat.S_IWGRP, stat.S_IROTH | stat.S_IWOTH
_NVIDIA = re.compile(r"nvidia([0-9]+)\Z")
_RENDER = re.compile(r"renderD[0-9]+\Z")
_OTHERS = frozenset({"nvidia", "nvidia-drm", "virtio_gpu", "vmwgfx", "vgem", "vkms"})
"""Drivers whose render nodes are none of Mesa's cards: NVIDIA's belong to their ``nvidiaN``, the rest are made of software."""


@dataclass(frozen=True, slots=True)
class RenderNode:
    """A card of AMD, Intel or another that Mesa drives: its device file, its kernel driver, and its folder in sysfs."""

    path: Path
    driver: str
    device: Path


def nvidia_cards(dev: Path = Path("/dev")) -> tuple[int, ...]:
    """Return the minor numbers of NVIDIA's cards; a MIG device comes with the node of the card it is a part of."""
    return tuple(sorted(int(match[1]) for path in dev.glob("nvidia*") if (match := _NVIDIA.match(path.name))))


def render_nodes(dev: Path = Path("/dev"), sys: Path = Path("/sys")) -> tuple[RenderNode, ...]:
    """Return the other cards."""
    names = sorted(path.name for path in (dev / "dri").glob("renderD*") if _RENDER.match(path.name))
    found = (RenderNode(dev / "dri" / name, _driver(sys, name), _device(sys, name)) for name in names)
    return tuple(node for node in found if node.driver and node.driver not in _OTHERS)


def groups(dev: Path = Path("/dev")) -> frozenset[int]:
    """Return the groups that may open the desktop's cards where not everybody may: ``render`` or ``video``, as udev gives them.

    In a virtual machine nobody logs in as udev knows it, so that no rule opens the cards to the person. In a container everybody
    may, and the superuser's own group is given to nobody.
    """
    found = set()
    for path in (*dev.glob("nvidia*"), *(dev / "dri").glob("renderD*"), dev / "kfd"):
        with contextlib.suppress(OSError):
            info = path.stat()
            group_only = info.st_mode & _GROUP == _GROUP and info.st_mode & _OTHERS_RIGHTS != _OTHERS_RIGHTS
            if stat.S_ISCHR(info.st_mode) and info.st_gid and group_only:
                found.add(info.st_gid)
    return frozenset(found)


def has_card() -> bool:
    """Tell whether the desktop was given a card."""
    return bool(nvidia_cards() or render_nodes())


def _device(sys: Path, name: str) -> Path:
    return (sys / "class/drm" / name / "device").resolve()


def _driver(sys: Path, name: str) -> str:
    link = sys / "class/drm" / name / "device/driver"
    return link.resolve().name if link.is_symlink() else ""
