"""Who of the waiting line may start now: a fair line per kind of resource. Pure: no clock, no I/O.

Rules, in order of arrival:

1. A request that fits into what is free, and asks for no kind that somebody before it is short of, is admitted.
2. A request that must wait reserves every kind it is short of: nobody behind it takes of these. So a wait for a GPU holds up other
   GPU requests and nothing else, and a large request cannot be overtaken for ever by small ones. (A kind that every request asks
   for, such as CPUs, cannot be taken from under a waiting one: whoever is short of it holds up all behind.)
3. A request that is larger than everything there is takes no part: see `never_fits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

Amounts = Mapping[str, int]
"""How much of which kind of resource; an absent kind is zero."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who has resources, until ``until`` where that is known."""

    amounts: Amounts
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody who asks for resources."""

    id: str
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the line: 1 = next among those who wait for the same. ``expected_at`` only where lease ends tell."""

    place: int
    lacking: tuple[str, ...]
    expected_at: datetime | None


def never_fits(total: Amounts, wanted: Amounts) -> tuple[str, ...]:
    """Name the kinds of which ``wanted`` asks more than there is in total (empty = it can fit one day)."""
    return tuple(kind for kind, amount in wanted.items() if amount > total.get(kind, 0))


def walk(total: Amounts, holders: Sequence[Holder], line: Sequence[Waiting]) -> dict[str, tuple[str, ...]]:
    """Walk the line once, first come first; return for each request the kinds it is short of (empty = admitted)."""
    free = {kind: amount - sum(holder.amounts.get(kind, 0) for holder in holders) for kind, amount in total.items()}
    reserved: set[str] = set()
    result: dict[str, tuple[str, ...]] = {}
    for waiting in line:
        if short := never_fits(total, waiting.amounts):
            result[waiting.id] = short
            continue
        asked = {kind: amount for kind, amount in waiting.amounts.items() if amount > 0}
        lacking = tuple(kind for kind, amount in asked.items() if kind in reserved or amount > free[kind])
        result[waiting.id] = lacking
        if lacking:
            reserved.update(lacking)
        else:
            for kind, amount in asked.items():
                free[kind] -= amount
    return result


def place_of(total: Amounts, holders: Sequence[Holder], line: Sequence[Waiting], wanted_id: str, now: datetime) -> Place | None:
    """Return the place of ``wanted_id`` in ``line``, or None when it is admitted now."""
    lacking = walk(total, holders, line)
    mine = lacking[wanted_id]
    if not mine:
        return None
    place = 1
    for waiting in line:
        if waiting.id == wanted_id:
            break
        if set(lacking[waiting.id]) & set(mine) and not never_fits(total, waiting.amounts):
            place += 1
    return Place(place, mine, _expected(total, holders, line, wanted_id, now))


def _expected(total: Amounts, holders: Sequence[Holder], line: Sequence[Waiting], wanted_id: str, now: datetime) -> datetime | None:
    """Let leases end one after another and see when the request gets in; those admitted before it are taken to stay."""
    ending = sorted((holder for holder in holders if holder.until is not None), key=lambda holder: holder.until or now)
    staying = [holder for holder in holders if holder.until is None]
    waiting = list(line)
    while ending:
        until = ending.pop(0).until or now
        lacking = walk(total, staying + ending, waiting)
        if not lacking[wanted_id]:
            return max(until, now)
        staying += [Holder(one.amounts) for one in waiting if not lacking[one.id]]
        waiting = [one for one in waiting if lacking[one.id]]
    return None
