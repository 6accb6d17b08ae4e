"""Booking: hosts and cards for several servers of one size in a slot, and the nearest slot in which there are any.

Cards that are used, dirty or in cleaning now may be promised for later if their leases end by then; failed ones are not, nor those
that somebody holds of whom no end is known. Hosts are filled tightest first, so that large ones stay whole. No clock here: ``now``
is an argument. The table is as before afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from beamdesk.scheduling import bookings
from beamdesk.scheduling.arrays import Bools
from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.errors import NotFree
from beamdesk.scheduling.request import NumaRule, Request
from beamdesk.scheduling.state import FAILED, FREE, USED, HostTable

MOST_TRIES = 150
"""Slots that `nearest` looks at."""
STEP = 300.0
"""Proposals are whole five minutes."""


def find(table: HostTable, request: Request, count: int, start: float, end: float, now: float) -> tuple[Booking, ...]:
    """Return up to ``count`` promises for servers like ``request`` in [start, end), fewer where there is no more room."""
    found: list[Booking] = []
    with table.lock:
        try:
            for number in range(count):
                promise = _one(table, request, f"{request.id}.{number}", start, end, now)
                if promise is None:
                    break
                found.append(promise)
        finally:
            for promise in found:
                bookings.remove(table, promise.id)
    return tuple(found)


def _one(table: HostTable, request: Request, name: str, start: float, end: float, now: float) -> Booking | None:
    for _, host, cards in sorted(_candidates(table, request, start, end, now)):
        promise = Booking(name, host, start, end, cards, request.cpu_milli, request.memory_mib)
        try:
            bookings.add(table, promise, now)
        except NotFree:
            continue
        return promise
    return None


def _candidates(
    table: HostTable, request: Request, start: float, end: float, now: float
) -> Iterator[tuple[tuple[bool, int], str, tuple[str, ...]]]:
    """Yield the hosts that have the cards then, with how good they are: silent ones last, then those with most cards to spare."""
    suits = table.suits(request.cards) if request.cards is not None else None
    for row in np.flatnonzero(_eligible(table, request)).tolist():
        if suits is None:
            yield (bool(table.stale[row]), len(table.addresses[row])), table.names[row], ()
            continue
        free = _free_then(table, row, suits[row], start, end, now)
        cards = _together(table, request, row, free)
        if cards is not None:
            yield (bool(table.stale[row]), len(free)), table.names[row], cards


def _eligible(table: HostTable, request: Request) -> Bools:
    if not request.aggregates:
        return np.asarray(table.enabled & ~table.dedicated, np.bool_)
    member = np.zeros(len(table), np.bool_)
    for name in request.aggregates:
        member |= table.aggregates.get(name, np.zeros(len(table), np.bool_))
    return np.asarray(table.enabled & member, np.bool_)


def _free_then(table: HostTable, row: int, suited: Bools, start: float, end: float, now: float) -> list[int]:
    """Return the places of the suited cards that nobody has in the slot."""
    claims = [table.claims[name] for name in table.holders[row]]
    held = {grant.address for claim in claims for grant in claim.grants}
    staying = {grant.address for claim in claims if _stays(claim.until, start, now) for grant in claim.grants}
    taken = bookings.blocked(table, row, start, end, None) | staying
    free = []
    for place, address in enumerate(table.addresses[row]):
        state = table.state[row, place]
        gone = state == FAILED or (state == USED and address not in held) or (start <= now and state != FREE)
        if suited[place] and not gone and address not in taken:
            free.append(place)
    return free


def _stays(until: float | None, start: float, now: float) -> bool:
    return until is None or until <= now or until > start


def _together(table: HostTable, request: Request, row: int, free: list[int]) -> tuple[str, ...] | None:
    """Return the cards of one server, of one NUMA node where there is a node with enough; None where there are too few."""
    count = request.cards.count if request.cards is not None else 0
    by_node: dict[int, list[int]] = {}
    for place in free:
        by_node.setdefault(int(table.numa[row, place]), []).append(place)
    enough = [(len(places), node) for node, places in by_node.items() if len(places) >= count]
    if enough:
        chosen = by_node[min(enough)[1]]
    elif request.numa is NumaRule.STRICT or len(free) < count:
        return None
    else:
        chosen = free
    return tuple(table.addresses[row][place] for place in chosen[:count])


def nearest(table: HostTable, request: Request, count: int, start: float, length: float, now: float, latest: float) -> float | None:
    """Return the beginning of the slot of that length that is nearest to ``start`` and has room; None when none is found.

    Slots begin where something ends, or end where a booking begins. None does not prove that there is none: at most `MOST_TRIES`
    are tried.
    """
    ends = [claim.until for claim in table.claims.values() if claim.until is not None and claim.until > start]
    ends += [booking.end for booking in table.bookings.values() if booking.end > start]
    later = {math.ceil(one / STEP) * STEP for one in ends}
    earlier = {math.floor((booking.start - length) / STEP) * STEP for booking in table.bookings.values()}
    moments = {one for one in later | earlier if now <= one <= latest and one != start}
    for moment in sorted(moments, key=lambda one: (abs(one - start), one))[:MOST_TRIES]:
        if len(find(table, request, count, moment, moment + length, now)) == count:
            return moment
    return None
