"""Taking in what hosts report: new facts, card states, silence. What is lent stays lent whatever a host says of it.

A host is never believed against a claim: a card that is lent and missing from a report is kept, as failed, so that it is neither
given twice nor forgotten. Such contradictions are returned for operators to see.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.cards import Card, CardState
from beamdesk.scheduling.claims import restore, settle
from beamdesk.scheduling.errors import InvalidHost
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.state import FREE, STATES, USED, HostTable

FOLLOWS: dict[CardState, frozenset[CardState]] = {
    CardState.FREE: frozenset({CardState.DIRTY, CardState.FAILED}),
    CardState.USED: frozenset({CardState.FAILED}),
    CardState.DIRTY: frozenset({CardState.CLEANING, CardState.FAILED}),
    CardState.CLEANING: frozenset({CardState.FREE, CardState.DIRTY, CardState.FAILED}),
    CardState.FAILED: frozenset({CardState.DIRTY}),
}
"""State -> states that an operator or report may set. ``used`` begins and ends with claims only; a failed card comes back dirty."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something a host reported that contradicts what the table knows."""

    host: str
    kind: str
    detail: str


def set_card_state(table: HostTable, host: str, address: str, state: CardState) -> None:
    """Move a card to another state.

    Raises:
        InvalidHost: no such card, or the change is not one of `FOLLOWS`.
    """
    with table.lock:
        row = table.row.get(host, -1)
        position = table.position(row, address) if row >= 0 else -1
        if position < 0:
            raise InvalidHost(f"There is no card {address} on a host {host}.", field="address")
        at = row, position
        now = STATES[table.state[at]]
        if state is now:
            return
        if state not in FOLLOWS[now]:
            raise InvalidHost(f"Card {address} of {host} cannot go from {now} to {state}.", field="state")
        table.state[at] = STATES.index(state)
        settle(table, at)
        table.touch(row)


def set_stale(table: HostTable, host: str, *, stale: bool) -> None:
    """Record that a host's report is too old to lend cards by, or fresh again."""
    with table.lock:
        row = _row(table, host)
        if table.stale[row] != stale:
            table.stale[row] = stale
            table.touch(row)


def set_enabled(table: HostTable, host: str, *, enabled: bool) -> None:
    """Open a host to new servers, or close it."""
    with table.lock:
        row = _row(table, host)
        if table.enabled[row] != enabled:
            table.enabled[row] = enabled
            table.touch(row)


def _row(table: HostTable, host: str) -> int:
    if host not in table.row:
        raise InvalidHost(f"There is no host {host}.", field="host")
    return table.row[host]


def set_hosts(table: HostTable, hosts: Iterable[HostFacts]) -> tuple[Anomaly, ...]:
    """Replace the description of all hosts; claims and bookings stay.

    Card states that the table knows better (dirty, cleaning, failed) are kept. A host that is gone but holds servers is kept,
    switched off; a lent card that is gone is kept, failed.

    Raises:
        InvalidHost: two hosts of one name. The table is unchanged then.
    """
    with table.lock:
        fresh = list(hosts)
        anomalies: list[Anomaly] = []
        kept = [_keep(table, host, anomalies) for host in fresh]
        known = {host.name for host in fresh}
        for name in sorted({claim.host for claim in table.claims.values()} - known):
            anomalies.append(Anomaly(name, "host_gone", "it still holds servers"))
            kept.append(replace(table.hosts[table.row[name]], enabled=False, stale=True))
        _rebuild(table, kept)
        anomalies.extend(_over(table))
        return tuple(anomalies)


def _keep(table: HostTable, host: HostFacts, anomalies: list[Anomaly]) -> HostFacts:
    """Return the host with the states that the table knows better, and with lent cards that it no longer reports."""
    row = table.row.get(host.name)
    if row is None:
        return host
    reported = {card.address: card for card in host.cards}
    lent = {grant.address for one in table.holders[row] for grant in table.claims[one].grants}
    cards = [_with_known_state(table, row, card, lent=card.address in lent) for card in host.cards]
    for card in table.hosts[row].cards:
        if card.address in reported or card.address not in lent:
            continue
        anomalies.append(Anomaly(host.name, "card_gone", f"{card.address} is lent but not reported"))
        cards.append(replace(card, state=CardState.FAILED, numa=min(card.numa, len(host.nodes) - 1)))
    return replace(host, cards=tuple(cards))


def _with_known_state(table: HostTable, row: int, card: Card, *, lent: bool) -> Card:
    position = table.position(row, card.address)
    if position < 0:
        return card
    known = STATES[table.state[row, position]]
    if lent and card.state is not CardState.FAILED and known in {CardState.FREE, CardState.USED}:
        # The claims are written again on top, and say themselves what is used.
        return replace(card, state=CardState.FREE)
    if card.state is not CardState.FREE or known is CardState.FREE:
        return card
    return replace(card, state=CardState.DIRTY if known is CardState.USED else known)


def _rebuild(table: HostTable, hosts: list[HostFacts]) -> None:
    claims, bookings = list(table.claims.values()), list(table.bookings.values())
    table.load(hosts)
    table.claims.clear()
    table.charges.clear()
    table.groups.clear()
    for claim in claims:
        restore(table, claim)
    table.bookings.clear()
    for booking in bookings:
        _put_back(table, booking)


def _put_back(table: HostTable, booking: Booking) -> None:
    """A promise stands even where it can no longer be kept in full: it must not be given to others meanwhile."""
    if booking.host in table.row:
        table.bookings[booking.id] = booking
        table.booked.setdefault(table.row[booking.host], []).append(booking)
        table.promised()


def _over(table: HostTable) -> list[Anomaly]:
    """Name what is lent beyond what there is."""
    found = []
    for row, name in enumerate(table.names):
        if table.cpu_free[row] < 0 or table.memory_free[row] < 0:
            found.append(Anomaly(name, "over_capacity", "more CPU or memory is lent than the host has"))
        twice = [address for position, address in enumerate(table.addresses[row]) if table.used[row, position] > 1000]
        found.extend(Anomaly(name, "lent_twice", address) for address in twice)
    return found


def check_invariants(table: HostTable) -> list[str]:
    """Return what is inconsistent between claims and arrays; empty when all is well. For tests and operators."""
    wrong = []
    for row, name in enumerate(table.names):
        claims = [table.claims[one] for one in table.holders[row]]
        for field, free, total in (
            ("cpu_milli", table.cpu_free, table.cpu_total),
            ("memory_mib", table.memory_free, table.memory_total),
            ("disk_gib", table.disk_free, table.disk_total),
        ):
            if int(free[row]) + sum(getattr(claim, field) for claim in claims) != int(total[row]):
                wrong.append(f"{name}: {field} does not add up")
        for position, address in enumerate(table.addresses[row]):
            held = [grant for claim in claims for grant in claim.grants if grant.address == address]
            if sum(grant.milli for grant in held) != int(table.used[row, position]):
                wrong.append(f"{name}: use of {address} does not add up")
            if table.used[row, position] > 1000:
                wrong.append(f"{name}: {address} is lent twice")
            if table.state[row, position] == USED and not held:
                wrong.append(f"{name}: {address} is used by nobody")
            if table.state[row, position] != FREE and table.idle[row, position]:
                wrong.append(f"{name}: {address} is idle but not free")
    return wrong
