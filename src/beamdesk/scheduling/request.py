"""What a server asks of a host. A request that contradicts itself is refused here, before any host is looked at.

The texts in which flavors, images and hints carry a request are parsed in `vocabulary.py` (`from_extra_specs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from beamdesk.scheduling.arrays import CARD
from beamdesk.scheduling.checks import amount, moment, word
from beamdesk.scheduling.errors import InvalidRequest


class NumaRule(StrEnum):
    """Whether CPU, memory and cards must lie on one NUMA node."""

    NONE = "none"
    PREFER = "prefer"
    STRICT = "strict"


class GroupRule(StrEnum):
    """How members of one group lie to each other."""

    TOGETHER = "together"
    APART = "apart"
    SOFT_TOGETHER = "soft-together"
    SOFT_APART = "soft-apart"


@dataclass(frozen=True, slots=True)
class CardDemand:
    """The cards that a request asks for: ``count`` whole ones, one ``share`` of a card, or ``count`` of a ``profile``.

    Minima hold for each card. Empty ``models`` = any. ``container`` = the server is a container and may use a card that the
    host's own driver holds. Profiles of one request lie on different cards.
    """

    count: int
    share: int = CARD
    profile: str | None = None
    models: frozenset[str] = frozenset()
    memory_mib: int = 0
    cores: int = 0
    bandwidth_gbs: int = 0
    clock_mhz: int = 0
    container: bool = False

    def __post_init__(self) -> None:
        amount(InvalidRequest, "cards.count", self.count, least=1, most=64)
        amount(InvalidRequest, "cards.share", self.share, least=1, most=CARD)
        for field in ("memory_mib", "cores", "bandwidth_gbs", "clock_mhz"):
            amount(InvalidRequest, f"cards.{field}", getattr(self, field))
        for model in self.models:
            word(InvalidRequest, "cards.models", model)
        if self.profile is not None:
            word(InvalidRequest, "cards.profile", self.profile)
        if self.share < CARD and self.count != 1:
            raise InvalidRequest("A share of a card is a share of one card: ask for one, or for whole cards.", field="cards.share")
        if self.share < CARD and self.profile is not None:
            raise InvalidRequest("Ask for a share or for a profile of a card, not for both.", field="cards.profile")
        if self.share < CARD and not self.container:
            raise InvalidRequest(
                "Only containers can take a share of a card; a server takes whole cards or profiles.", field="cards.share"
            )

    @property
    def milli(self) -> int:
        """Return the thousandths of cards asked for (a profile's own size is the card's to say: a whole card is assumed)."""
        return self.count * self.share


Shape = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One server to place.

    ``aggregates``: the host must be in one of them (empty = anywhere that is not dedicated). ``only_hosts`` (empty = any) and
    ``not_hosts`` name hosts. ``until`` is the lease's end in seconds since the epoch (None = open). ``booking`` is spent by this
    request, which then runs where the booking is.
    """

    id: str
    cpu_milli: int
    memory_mib: int
    disk_gib: int = 0
    cards: CardDemand | None = None
    numa: NumaRule = NumaRule.NONE
    aggregates: frozenset[str] = frozenset()
    image: str | None = None
    image_required: bool = False
    group: str | None = None
    group_rule: GroupRule = GroupRule.SOFT_APART
    only_hosts: frozenset[str] = frozenset()
    not_hosts: frozenset[str] = frozenset()
    until: float | None = None
    booking: str | None = None

    def __post_init__(self) -> None:
        word(InvalidRequest, "id", self.id)
        amount(InvalidRequest, "cpu_milli", self.cpu_milli)
        amount(InvalidRequest, "memory_mib", self.memory_mib)
        amount(InvalidRequest, "disk_gib", self.disk_gib)
        for field in ("image", "group", "booking"):
            value = getattr(self, field)
            if value is not None:
                word(InvalidRequest, field, value)
        if self.until is not None:
            moment(InvalidRequest, "until", self.until)
        if self.image_required and self.image is None:
            raise InvalidRequest("The image is required on the host, but no image is named.", field="image_required")
        if self.only_hosts and not self.only_hosts - self.not_hosts:
            raise InvalidRequest("Every host that is allowed is excluded as well.", field="not_hosts")

    @property
    def shape(self) -> Shape:
        """Return what placement on a host depends on: requests of one shape share all that was computed per host."""
        return (
            self.cpu_milli,
            self.memory_mib,
            self.disk_gib,
            self.cards,
            self.numa,
            self.aggregates,
            self.image,
            self.image_required,
        )
