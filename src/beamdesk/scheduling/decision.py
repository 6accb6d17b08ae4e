"""What was decided and why, as a value that can be stored, read by people and checked later."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from beamdesk.scheduling.claims import Claim, Grant
from beamdesk.scheduling.errors import NotFree, SchedulingError
from beamdesk.scheduling.request import CardDemand, GroupRule, NumaRule, Request


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


def dumps(decision: Decision) -> str:
    """Write a decision as JSON."""
    return json.dumps(asdict(decision), default=_plain, allow_nan=False, sort_keys=True)


def _plain(value: object) -> list[str]:
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not part of a decision")


def loads(text: str) -> Decision:
    """Read a decision that `dumps` wrote.

    Raises:
        SchedulingError: it is not one.
    """
    try:
        data = json.loads(text)
        ranking = tuple(
            Ranked(one["host"], one["tier"], one["total"], tuple((str(name), float(value)) for name, value in one["contributions"]))
            for one in data.pop("ranking")
        )
        grants = tuple(Grant(**grant) for grant in data.pop("grants"))
        refusals = tuple((str(reason), int(count)) for reason, count in data.pop("refusals"))
        request = _request(data.pop("request"))
        return Decision(request=request, ranking=ranking, grants=grants, refusals=refusals, **data)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SchedulingError(f"This is not a stored decision: {error}") from error


def _request(data: dict[str, Any]) -> Request:
    cards = data["cards"]
    return Request(
        **{
            **data,
            "cards": None if cards is None else CardDemand(**{**cards, "models": frozenset(cards["models"])}),
            "numa": NumaRule(data["numa"]),
            "group_rule": GroupRule(data["group_rule"]),
            **{name: frozenset(data[name]) for name in ("aggregates", "only_hosts", "not_hosts")},
        }
    )
