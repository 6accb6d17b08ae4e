"""A copy of the whole state as values: to ask "what if", to hand to another process, to replay a decision later.

A table opened from a snapshot has the digest of the one it was taken from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.cards import Card, CardState
from beamdesk.scheduling.claims import Claim, restore
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.state import STATES, HostTable

Charges = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Hosts as they are without their servers, the servers with the NUMA nodes that bear them, the bookings."""

    hosts: tuple[HostFacts, ...]
    claims: tuple[tuple[Claim, Charges], ...]
    bookings: tuple[Booking, ...]


def take(table: HostTable) -> Snapshot:
    """Return the table's present state."""
    with table.lock:
        hosts = tuple(_host(table, row) for row in range(len(table)))
        claims = tuple((claim, tuple(table.charges[claim.id])) for claim in table.claims.values())
        return Snapshot(hosts, claims, tuple(table.bookings.values()))


def _host(table: HostTable, row: int) -> HostFacts:
    lent = {grant.address for one in table.holders[row] for grant in table.claims[one].grants}
    cards = tuple(_card(table, row, card, lent=card.address in lent) for card in table.hosts[row].cards)
    return replace(table.hosts[row], cards=cards, enabled=bool(table.enabled[row]), stale=bool(table.stale[row]))


def _card(table: HostTable, row: int, card: Card, *, lent: bool) -> Card:
    """Return the card as it is under what is lent of it: a claim that is written again marks it as used."""
    state = STATES[table.state[row, table.position(row, card.address)]]
    return replace(card, state=CardState.FREE if lent and state is CardState.USED else state)


def open_table(snapshot: Snapshot) -> HostTable:
    """Return a table in the snapshot's state."""
    table = HostTable(snapshot.hosts)
    for claim, charges in snapshot.claims:
        restore(table, claim, charges)
    for booking in snapshot.bookings:
        table.bookings[booking.id] = booking
        if booking.host in table.row:
            table.booked.setdefault(table.row[booking.host], []).append(booking)
    table.promised()
    return table
