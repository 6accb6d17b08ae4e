"""What can be had of a size, now and later, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from beamdesk.domain.catalog import Resources
from beamdesk.domain.ids import FlavorId

IMAGE_NEEDS = "image_needs"
"""Lacking: the size does not have what the image asks for."""


class State(StrEnum):
    """What an application for a size would meet."""

    NOW = "now"
    WAIT = "wait"
    NEVER = "never"
    UNKNOWN = "unknown"


class Sureness(StrEnum):
    """How sure ``expected_at`` is."""

    SURE = "sure"
    """Nobody's lease has to end for it."""
    LIKELY = "likely"
    """Also within an hour if leases that end by then are extended once; or, now: a card is free, the rest is not known."""
    POSSIBLE = "possible"
    """It depends on leases that may be extended."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What can be had of a size. ``lacking``: what is short. ``likely_by``: when, if leases are extended once.

    ``largest``: the most of each that one host has, where the size can never be. ``as_of``: the moment of which all this is true.
    """

    state: State
    as_of: datetime
    lacking: tuple[str, ...] = ()
    expected_at: datetime | None = None
    likely_by: datetime | None = None
    sureness: Sureness | None = None
    largest: Resources | None = None


Outlooks = dict[FlavorId, Outlook]
