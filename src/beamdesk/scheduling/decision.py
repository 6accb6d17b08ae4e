"""What was decided and why, as a value that can be stored (`wire.py`), read by people and checked later."""

from __future__ import annotations

from dataclasses import dataclass

from beamdesk.scheduling.claims import Claim, Grant
from beamdesk.scheduling.errors import NotFree
from beamdesk.scheduling.request import Request


@dataclass(frozen=True, slots=True)
class Ranked:
    """One host in the ranking: its total and each term's contribution (weight times value). ``tier`` 0 comes before 1."""

    host: str
    tier: int
    total: float
    contributions: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one request.

    ``host`` is None when no host can take it: ``impossible`` then says so if none ever could, else ``refusals`` counts hosts by
    reason (`filters.REASONS`). ``state`` is the table's digest: over an equal state the same request gives the same decision.
    """

    policy: str
    request: Request
    now: float
    state: int
    host: str | None = None
    grants: tuple[Grant, ...] = ()
    node: int | None = None
    possible: int = 0
    ranking: tuple[Ranked, ...] = ()
    refusals: tuple[tuple[str, int], ...] = ()
    impossible: str | None = None

    def claim(self) -> Claim:
        """Return what the server would hold.

        Raises:
            NotFree: no host was found.
        """
        if self.host is None:
            raise NotFree(self.impossible or "No host can take it now.", field="host")
        one = self.request
        return Claim(
            one.id,
            self.host,
            one.cpu_milli,
            one.memory_mib,
            one.disk_gib,
            self.grants,
            self.node,
            one.until,
            one.group,
            one.booking,
        )
