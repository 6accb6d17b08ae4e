"""What use cases need of placements, decisions and bookings. Part of the store's transactions (`...store.Transaction.placing`)."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, runtime_checkable

from beamdesk.domain.desktop import Desktop
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.placement import Booking, Placement, StoredDecision
from beamdesk.scheduling.host import HostFacts


@runtime_checkable
class HostSource(Protocol):
    """The hosts among which we choose. A driver whose cloud places servers itself is none."""

    async def hosts(self) -> tuple[HostFacts, ...]:
        """Return all hosts as they are without our desktops.

        Raises:
            CloudError: it cannot be told now. NotSupported: no desktop can run here; the text says why.
        """


class Placing(Protocol):
    """Placements, decisions, bookings."""

    async def lock(self) -> None:
        """Hold back everybody else who decides or books, to the end of the transaction."""

    async def line(self, joining: DesktopId, token: str, now: datetime) -> tuple[Desktop, ...]:
        """Return the waiting line with the claimed desktop in it, in order of arrival.

        Raises:
            LookupError: the claim was lost.
        """

    async def waiting(self) -> tuple[Desktop, ...]:
        """Return the waiting line, in order of arrival."""

    async def place(self, placement: Placement, token: str) -> bool:
        """Admit the claimed desktop and keep its place; False = the claim was lost."""

    async def put(self, placement: Placement) -> None:
        """Keep the place of a desktop that is admitted already."""

    async def placement(self, desktop_id: DesktopId) -> Placement | None:
        """Return where a desktop is."""

    async def placements(self) -> tuple[Placement, ...]:
        """Return where all are."""

    async def release(self, desktop_id: DesktopId) -> Placement | None:
        """Forget where a desktop was and return it; absent is fine."""

    async def add_decision(self, decision: StoredDecision, *, keep: int) -> None:
        """Keep a decision, and of the older ones of its desktop so many that there are ``keep``."""

    async def decisions(self, desktop_id: DesktopId, limit: int = 10) -> tuple[StoredDecision, ...]:
        """Return the newest decisions about a desktop, newest first."""

    async def marks(self, now: datetime) -> bytes:
        """Digest bookings and leases of servers: it changes when one of them changes, begins or ends. Cheap."""

    async def line_marks(self) -> bytes:
        """Digest who is admitted, where, and who waits. Cheap."""

    async def put_booking(self, booking: Booking) -> None:
        """Keep a booking."""

    async def booking(self, booking_id: str) -> Booking | None:
        """Return one booking."""

    async def bookings(self, ending_after: datetime) -> tuple[Booking, ...]:
        """Return the bookings that are not over at that time, soonest first."""

    async def remove_booking(self, booking_id: str) -> bool:
        """Remove a booking; False = there was none."""

    async def purge_bookings(self, before: datetime) -> int:
        """Remove bookings that were over before a time; returns how many."""
