"""When a request that fits nowhere now could run: leases are let end one after another on a copy of the state.

An estimate, and said so to people: others may come first, cards need cleaning, leases are extended and ended early.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from beamdesk.scheduling.cards import CardState
from beamdesk.scheduling.claims import release
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.policy import Policy
from beamdesk.scheduling.request import Request
from beamdesk.scheduling.snapshot import Snapshot, open_table
from beamdesk.scheduling.state import HostTable


@dataclass(frozen=True, slots=True)
class Chance:
    """The first moment at which a host could take the request, and which. ``at`` = now when one can now."""

    at: float
    host: str


def earliest(snapshot: Snapshot, policy: Callable[[HostTable], Policy], request: Request, now: float) -> Chance | None:
    """Return the first chance, None when no lease's end brings one. The request's lease keeps its length.

    ``policy`` makes the policy for the copied table. Servers without a lease's end, or past it, are taken to stay.
    """
    table = open_table(snapshot)
    scheduler = Scheduler(table, policy(table), keep=1)
    decision = scheduler.decide(request, now)
    if decision.host is not None:
        return Chance(now, decision.host)
    if decision.impossible is not None:
        return None
    length = None if request.until is None else request.until - now
    ending = sorted(
        (claim.until, claim.id, claim.host) for claim, _ in snapshot.claims if claim.until is not None and claim.until > now
    )
    moments = sorted({*(end for end, _, _ in ending), *(one.end for one in snapshot.bookings if one.end > now)})
    for at in moments:
        while ending and ending[0][0] <= at:
            release(table, ending.pop(0)[1], leave=CardState.FREE)
        then = request if length is None else replace(request, until=at + length)
        decision = scheduler.decide(then, at)
        if decision.host is not None:
            return Chance(at, decision.host)
    return None
