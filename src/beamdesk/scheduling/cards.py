"""GPU cards as the scheduler sees them: facts, states, and the ways in which a card may be divided.

A card is lent whole (passthrough), by thousandths (a container on the host's own driver), or by profile (vGPU, MIG). A `Geometry`
says which profiles a card offers and where each may lie. This module knows no host and no request.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from beamdesk.scheduling.arrays import CARD
from beamdesk.scheduling.checks import amount, word
from beamdesk.scheduling.errors import InvalidHost


class CardState(StrEnum):
    """Only ``free`` is ever chosen. used -> dirty -> cleaning -> free; ``failed`` is quarantine."""

    FREE = "free"
    USED = "used"
    DIRTY = "dirty"
    CLEANING = "cleaning"
    FAILED = "failed"


class CardMode(StrEnum):
    """How a card can be lent."""

    PASSTHROUGH = "passthrough"
    HOST = "host"
    VGPU = "vgpu"
    MIG = "mig"


@dataclass(frozen=True, slots=True)
class Profile:
    """A part of a card: its share in thousandths (for accounting), its length in slots and the slots where it may begin."""

    name: str
    milli: int
    span: int
    starts: tuple[int, ...]

    def masks(self) -> tuple[int, ...]:
        """Return the slots that each start would occupy, as bit masks."""
        return tuple(((1 << self.span) - 1) << start for start in self.starts)


@dataclass(frozen=True, slots=True)
class Geometry:
    """The profiles that a card offers. ``mixed`` = different ones side by side (MIG, mixed-size vGPU); else all alike."""

    name: str
    slots: int
    profiles: tuple[Profile, ...]
    mixed: bool

    def __post_init__(self) -> None:
        word(InvalidHost, "geometry.name", self.name)
        amount(InvalidHost, "geometry.slots", self.slots, least=1, most=62)
        if len({profile.name for profile in self.profiles}) != len(self.profiles) or not self.profiles:
            raise InvalidHost(f"Geometry {self.name} must name each of its profiles once.", field="geometry.profiles")
        for profile in self.profiles:
            amount(InvalidHost, f"profile {profile.name}.milli", profile.milli, least=1, most=CARD)
            amount(InvalidHost, f"profile {profile.name}.span", profile.span, least=1, most=self.slots)
            if not profile.starts or any(not 0 <= start <= self.slots - profile.span for start in profile.starts):
                raise InvalidHost(f"Profile {profile.name} begins outside of the {self.slots} slots.", field="geometry.profiles")

    def index(self, profile: str) -> int:
        """Return the number of ``profile`` in this geometry, or -1."""
        return next((number for number, one in enumerate(self.profiles) if one.name == profile), -1)


@lru_cache(maxsize=65536)
def start_for(geometry: Geometry, profile: int, occupied: int, present: int) -> int:
    """Return the best free start for a profile on a card, or -1.

    ``occupied`` is the mask of taken slots, ``present`` the profile that is there already (-1 = none), which matters for cards
    that take one size only. Best = the start that takes away the fewest placements that are possible now; ties to the lowest
    slot. On MIG this fills the seventh slice first, which no larger profile can use.
    """
    if not geometry.mixed and present not in {-1, profile}:
        return -1
    one = geometry.profiles[profile]
    possible = [(start, mask) for start, mask in zip(one.starts, one.masks(), strict=True) if not mask & occupied]
    if not possible:
        return -1
    others = geometry.profiles if geometry.mixed else (one,)
    open_masks = [mask for other in others for mask in other.masks() if not mask & occupied]
    return min(possible, key=lambda item: (sum(1 for mask in open_masks if mask & item[1]), item[0]))[0]


def _mig(name: str, slots: int, slices: int, rows: tuple[tuple[str, int, int, tuple[int, ...]], ...]) -> Geometry:
    profiles = tuple(Profile(title, CARD * compute // slices, span, starts) for title, compute, span, starts in rows)
    return Geometry(name, slots, profiles, mixed=True)


def _seven(name: str, gib: int) -> Geometry:
    """Placements as `nvidia-smi mig -lgipp` lists them for cards with seven compute and eight memory slices."""
    return _mig(
        name,
        8,
        7,
        (
            (f"1g.{gib}gb", 1, 1, (0, 1, 2, 3, 4, 5, 6)),
            (f"1g.{2 * gib}gb", 1, 2, (0, 2, 4, 6)),
            (f"2g.{2 * gib}gb", 2, 2, (0, 2, 4)),
            (f"3g.{4 * gib}gb", 3, 4, (0, 4)),
            (f"4g.{4 * gib}gb", 4, 4, (0,)),
            (f"7g.{8 * gib}gb", 7, 8, (0,)),
        ),
    )


MIG_GEOMETRIES = {
    "A100-40GB": _seven("mig-A100-40GB", 5),
    "A100-80GB": _seven("mig-A100-80GB", 10),
    "H100-80GB": _seven("mig-H100-80GB", 10),
    "A30": _mig("mig-A30", 4, 4, (("1g.6gb", 1, 1, (0, 1, 2, 3)), ("2g.12gb", 2, 2, (0, 2)), ("4g.24gb", 4, 4, (0,)))),
}
"""MIG placements by card (NVIDIA Multi-Instance GPU User Guide, "Supported MIG Profiles")."""


def equal_size_vgpu(name: str, per_card: dict[str, int]) -> Geometry:
    """Make the geometry of a card that carries any number of ONE vGPU type at a time, up to ``per_card[type]``."""
    profiles = tuple(Profile(title, CARD // count, 1, tuple(range(count))) for title, count in per_card.items())
    return Geometry(name, max(per_card.values()), profiles, mixed=False)


def mixed_size_vgpu(name: str, slots: int, spans: dict[str, int]) -> Geometry:
    """Make the geometry of a card in mixed-size vGPU mode: a type of ``span`` slots begins at multiples of its span."""
    profiles = tuple(
        Profile(title, max(1, CARD * span // slots), span, tuple(range(0, slots - span + 1, span))) for title, span in spans.items()
    )
    return Geometry(name, slots, profiles, mixed=True)


@dataclass(frozen=True, slots=True)
class Card:
    """One physical GPU. Clock in MHz, bandwidth in GB/s, memory in MiB; ``numa`` is the node of its PCI slot."""

    address: str
    model: str
    memory_mib: int
    cores: int
    bandwidth_gbs: int
    clock_mhz: int
    state: CardState = CardState.FREE
    mode: CardMode = CardMode.PASSTHROUGH
    numa: int = 0
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        word(InvalidHost, "card.address", self.address)
        word(InvalidHost, "card.model", self.model)
        for field in ("memory_mib", "cores", "bandwidth_gbs", "clock_mhz"):
            amount(InvalidHost, f"card {self.address}: {field}", getattr(self, field))
        amount(InvalidHost, f"card {self.address}: numa", self.numa, most=63)
        if (self.mode in {CardMode.VGPU, CardMode.MIG}) != (self.geometry is not None):
            raise InvalidHost(f"Card {self.address}: vgpu and mig cards have a geometry, others have none.", field="card.geometry")

    @property
    def facts(self) -> tuple[str, int, int, int, int, CardMode, int, Geometry | None]:
        """Return what does not change while servers come and go."""
        return (
            self.model,
            self.memory_mib,
            self.cores,
            self.bandwidth_gbs,
            self.clock_mhz,
            self.mode,
            self.numa,
            self.geometry,
        )
