"""Where a desktop runs, what an experiment has booked, and what was decided: nouns of the scheduler as the product keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from beamdesk.domain.ids import DesktopId, ExperimentId, PersonId
from beamdesk.scheduling.claims import Grant


@dataclass(frozen=True, slots=True)
class Placement:
    """The host and the cards, or parts of cards, of an admitted desktop, as the scheduler gave them."""

    desktop: DesktopId
    host: str
    grants: tuple[Grant, ...]
    node: int | None
    at: datetime

    @property
    def cards(self) -> tuple[str, ...]:
        """Return the addresses of the cards."""
        return tuple(grant.address for grant in self.grants)

    @property
    def shared(self) -> bool:
        """Tell whether others may have parts of the same cards."""
        return any(grant != Grant(grant.address) for grant in self.grants)


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision about a desktop. ``document`` is the core's JSON form; ``verdicts`` says per host why not (empty = it could)."""

    desktop: DesktopId
    at: datetime
    document: str = field(repr=False)
    verdicts: Mapping[str, str] = field(default_factory=dict)
    behind: bool = False
    """It would have fitted, but others were before it in the line."""


@dataclass(frozen=True, slots=True)
class BookedPart:
    """What a booking promises on one host: room for one desktop."""

    host: str
    cards: tuple[str, ...]
    cpu_milli: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Booking:
    """A promise to an experiment, from ``starts`` to ``ends``: one part for each desktop."""

    id: str
    experiment: ExperimentId
    flavor: str
    starts: datetime
    ends: datetime
    parts: tuple[BookedPart, ...]
    created_by: PersonId
    created_at: datetime
    note: str = ""
