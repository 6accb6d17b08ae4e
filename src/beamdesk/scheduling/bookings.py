"""Bookings: cards, CPU and memory of a host that are promised from one time to another.

A booking does not hold anything now. It keeps from its cards every server whose lease runs into it, and from the host's CPU and
memory what is needed at any moment of such a lease. A server that spends the booking gets exactly what was booked.
Half-open intervals: a lease that ends when a booking begins does not touch it. No clock here: ``now`` is an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from beamdesk.scheduling.checks import amount, moment, word
from beamdesk.scheduling.errors import InvalidRequest, NotFree
from beamdesk.scheduling.state import HostTable


@dataclass(frozen=True, slots=True)
class Booking:
    """A promise on one host from ``start`` to ``end`` (seconds since the epoch)."""

    id: str
    host: str
    start: float
    end: float
    cards: tuple[str, ...] = ()
    cpu_milli: int = 0
    memory_mib: int = 0

    def __post_init__(self) -> None:
        word(InvalidRequest, "booking.id", self.id)
        moment(InvalidRequest, "booking.start", self.start)
        moment(InvalidRequest, "booking.end", self.end)
        amount(InvalidRequest, "booking.cpu_milli", self.cpu_milli)
        amount(InvalidRequest, "booking.memory_mib", self.memory_mib)
        if self.end <= self.start:
            raise InvalidRequest("A booking ends after it begins.", field="booking.end")
        if len(set(self.cards)) != len(self.cards):
            raise InvalidRequest("A booking names a card twice.", field="booking.cards")

    def meets(self, start: float, end: float) -> bool:
        """Tell whether it shares a moment with [start, end)."""
        return self.start < end and start < self.end


def add(table: HostTable, booking: Booking, now: float) -> None:
    """Write a booking.

    Raises:
        NotFree: another booking has one of the cards then, a present lease runs into it, or CPU or memory would not suffice.
    """
    with table.lock:
        row = table.row.get(booking.host)
        if row is None or booking.id in table.bookings:
            raise NotFree(f"There is no host {booking.host}, or the booking {booking.id} exists.", field="booking")
        missing = [address for address in booking.cards if table.position(row, address) < 0]
        taken = blocked(table, row, booking.start, booking.end, None) | _leased(table, row, booking, now)
        if missing or taken & set(booking.cards):
            raise NotFree(
                f"{', '.join(missing or sorted(taken & set(booking.cards)))} of {booking.host} cannot be promised then.",
                field="booking.cards",
            )
        cpu, memory = least_free(table, row, max(now, booking.start), booking.end, None, now)
        if short(booking.cpu_milli, cpu) or short(booking.memory_mib, memory):
            raise NotFree(f"{booking.host} does not have that CPU and memory then.", field="booking.cpu_milli")
        table.bookings[booking.id] = booking
        table.booked.setdefault(row, []).append(booking)
        table.promised()
        table.touch(row)


def restore(table: HostTable, booking: Booking) -> None:
    """Write a booking that exists already, whether or not it can be kept: it must not be given to others meanwhile."""
    with table.lock:
        table.bookings[booking.id] = booking
        row = table.row.get(booking.host)
        if row is not None:
            table.booked.setdefault(row, []).append(booking)
            table.touch(row)
        table.promised()


def short(asked: int, free: int) -> bool:
    """Tell whether too little is free. Who asks for nothing is not short of it, even where more is lent than there is."""
    return asked > 0 and free < asked


def remove(table: HostTable, booking_id: str) -> Booking | None:
    """Take a booking out; None when there is none."""
    with table.lock:
        booking = table.bookings.pop(booking_id, None)
        if booking is not None and (row := table.row.get(booking.host)) is not None:
            table.booked[row].remove(booking)
            if not table.booked[row]:
                del table.booked[row]
            table.promised()
            table.touch(row)
        return booking


def blocked(table: HostTable, row: int, start: float, end: float, spent: str | None) -> set[str]:
    """Return the cards of a host that are promised to others at some moment of [start, end)."""
    return {
        address
        for booking in table.booked.get(row, ())
        if booking.id != spent and booking.meets(start, end)
        for address in booking.cards
    }


def _leased(table: HostTable, row: int, booking: Booking, now: float) -> set[str]:
    return {
        grant.address
        for claim_id in table.holders[row]
        if _end(table, claim_id, now) > booking.start
        for grant in table.claims[claim_id].grants
    }


def _end(table: HostTable, claim_id: str, now: float) -> float:
    """Return when a server leaves. One without a lease, or one that has outstayed it, counts as staying."""
    until = table.claims[claim_id].until
    return math.inf if until is None or until <= now else until


def least_free(table: HostTable, row: int, start: float, end: float, spent: str | None, now: float) -> tuple[int, int]:
    """Return the least CPU and memory that is free at any moment of [start, end), leases and bookings counted.

    What is free now, and what leases give back by then: a table whose free amounts come from elsewhere (Nova) counts what no claim
    explains as staying.
    """
    ends = [(_end(table, claim_id, now), table.claims[claim_id]) for claim_id in table.holders[row]]
    bookings = [booking for booking in table.booked.get(row, ()) if booking.id != spent and booking.meets(start, end)]
    cpu = memory = 1 << 60
    for at in {start, *(booking.start for booking in bookings if booking.start > start)}:
        left = [claim for until, claim in ends if until <= at]
        held = [booking for booking in bookings if booking.meets(at, math.nextafter(at, math.inf))]
        cpu = min(cpu, int(table.cpu_free[row]) + sum(one.cpu_milli for one in left) - sum(one.cpu_milli for one in held))
        memory = min(
            memory, int(table.memory_free[row]) + sum(one.memory_mib for one in left) - sum(one.memory_mib for one in held)
        )
    return cpu, memory
