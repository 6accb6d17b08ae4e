"""Making room: which few desktops would have to move so that a request fits that no host can take now.

The plan is proposed, not carried out: a move of a GPU desktop suspends it, and that is for a person or a site's rule to allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from beamdesk.scheduling.claims import Claim
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.request import Request
from beamdesk.scheduling.state import FREE, HostTable


@dataclass(frozen=True, slots=True)
class Move:
    """Move server ``id`` from host ``source`` to what ``to`` says."""

    id: str
    source: str
    to: Claim


def make_room(
    scheduler: Scheduler, request: Request, movable: Mapping[str, Request], now: float, *, most: int = 1
) -> tuple[Move, ...]:
    """Return at most ``most`` moves after which the request fits, fewest and smallest first; empty when there are none.

    ``movable`` holds the requests of the servers that may move. Every target is a host that takes the server now, chosen by the
    same policy. Only hosts where so few moves can suffice are tried.
    """
    table = scheduler.table
    with table.lock:
        for row in _candidates(table, request, most):
            moves = _clear(scheduler, request, movable, now, row, most)
            if moves:
                return moves
    return ()


def _candidates(table: HostTable, request: Request, most: int) -> list[int]:
    """Return hosts that would do if empty, those that lack fewest cards first."""
    demand = request.cards
    able = table.enabled & (table.cpu_total >= request.cpu_milli) & (table.memory_total >= request.memory_mib)
    if demand is None:
        return np.flatnonzero(able).tolist()
    if demand.profile is not None or demand.milli < 1000:
        return []
    suits = table.suits(demand)
    lacking = demand.count - (suits & (table.idle >= demand.share)).sum(axis=1)
    able &= (suits.sum(axis=1) >= demand.count) & (lacking <= most) & ~table.stale
    rows = np.flatnonzero(able)
    order = np.lexsort((-table.cpu_free[rows], np.maximum(lacking[rows], 0)))
    return [int(row) for row in rows[order]]


def _clear(
    scheduler: Scheduler, request: Request, movable: Mapping[str, Request], now: float, row: int, most: int
) -> tuple[Move, ...]:
    table, demand = scheduler.table, request.cards
    here = [table.claims[one] for one in table.holders[row] if one in movable]
    cpu, memory = request.cpu_milli - int(table.cpu_free[row]), request.memory_mib - int(table.memory_free[row])
    lacking = 0
    if demand is not None:
        lacking = demand.count - int((table.suits(demand)[row] & (table.idle[row] >= demand.share)).sum())
    chosen: list[Claim] = []
    for one in sorted(here, key=lambda claim: (len(claim.grants), claim.cpu_milli, claim.id)):
        if lacking > 0 and len(one.grants) == 1 and _suits(table, request, row, one) and len(chosen) < most:
            chosen.append(one)
            lacking, cpu, memory = lacking - 1, cpu - one.cpu_milli, memory - one.memory_mib
    for one in sorted(here, key=lambda claim: (-claim.cpu_milli, claim.id)):
        if cpu <= 0 and memory <= 0:
            break
        if not one.grants and len(chosen) < most:
            chosen.append(one)
            cpu, memory = cpu - one.cpu_milli, memory - one.memory_mib
    if lacking > 0 or cpu > 0 or memory > 0 or not chosen:
        return ()
    return _targets(scheduler, chosen, movable, now, table.names[row])


def _suits(table: HostTable, request: Request, row: int, claim: Claim) -> bool:
    """Tell whether the server's one card would suit the request once free."""
    grant = claim.grants[0]
    position = table.position(row, grant.address)
    good = request.cards is not None and position >= 0 and bool(table.suits(request.cards)[row, position])
    return good and grant.profile is None and table.state[row, position] != FREE


def _targets(
    scheduler: Scheduler, chosen: list[Claim], movable: Mapping[str, Request], now: float, source: str
) -> tuple[Move, ...]:
    """Find a place for each of the servers elsewhere. With more than one, later ones must not count on what earlier ones take."""
    moves: list[Move] = []
    used = frozenset({source})
    for one in chosen:
        wanted = movable[one.id]
        decision = scheduler.decide(replace(wanted, not_hosts=wanted.not_hosts | used, booking=None), now)
        if decision.host is None:
            return ()
        moves.append(Move(one.id, source, decision.claim()))
        used = used | {decision.host}
    return tuple(moves)
