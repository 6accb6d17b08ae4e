"""The waiting line over a table of hosts: who may start now, and what the others are short of. When they could: `future.py`.

The line of `admission.py` (strict per kind of resource, in order of arrival), with the scheduler in the place of one sum for the
whole site. Who must wait reserves the kinds it is short of. Who waits for a booking reserves nothing: the booking says when.
A request knows the bookings of its own experiment: they keep others away, not itself. No clock here: ``now`` is an argument.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from beamdesk.scheduling import bookings
from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.claims import Claim, claim
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.decision import Decision
from beamdesk.scheduling.request import Request
from beamdesk.scheduling.state import HostTable

KINDS = ("vcpus", "memory_mib", "disk_gib", "gpus")
_LACKING = {
    "cpu": "vcpus",
    "memory": "memory_mib",
    "disk": "disk_gib",
    "image": "image",
    "cards_busy": "gpus",
    "numa": "gpus",
    "guard": "vcpus",
    "booked": "booked",
    "stale": "stale",
    "disabled": "hosts",
}
"""Reason of a filter -> what people are told that they wait for. Other reasons say that a host is not suited at all."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in the line; ``own``: bookings that do not keep it away, of which it may spend those in ``spend``."""

    request: Request
    own: tuple[str, ...] = ()
    spend: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """``lacking`` empty = it may start where the decision says. ``behind``: it would fit, but others came first."""

    decision: Decision
    lacking: tuple[str, ...] = ()
    behind: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """What came of a walk: an answer for each request, by its id. ``reserved``: kinds of which nothing is left for others."""

    answers: dict[str, Answer] = field(default_factory=dict)
    reserved: set[str] = field(default_factory=set)

    def place(self, wanted: str) -> int:
        """Return the place among those who wait for the same: 1 = next."""
        mine = set(self.answers[wanted].lacking)
        place = 1
        for name, answer in self.answers.items():
            if name == wanted:
                break
            place += bool(mine & set(answer.lacking))
        return place


def own(table: HostTable, request: Request, names: Iterable[str], now: float) -> Asked:
    """Return a request whose experiment made the bookings ``names``: their parts do not keep it away, present ones are used first.

    A part is named ``NAME.NUMBER``. Parts with too few cards left for the request are not tried.
    """
    count = request.cards.count if request.cards is not None else 0
    wanted = set(names)
    parts = [one for one in table.bookings.values() if one.id in wanted or one.id.rpartition(".")[0] in wanted]
    spend = tuple(one.id for one in parts if one.start <= now < one.end and len(one.cards) >= count)
    return Asked(request, tuple(one.id for one in parts), spend)


def lacking(decision: Decision) -> tuple[str, ...]:
    """Return what a request that found no host is short of, on hosts that are suited to it."""
    found = dict.fromkeys(_LACKING[reason] for reason, _ in decision.refusals if reason in _LACKING)
    return tuple(found) or ("hosts",)


def walk(scheduler: Scheduler, line: Sequence[Asked], now: float) -> Line:
    """Walk the line once, first come first; those who may start hold what they get in the scheduler's table afterwards."""
    result = Line()
    for asked in line:
        answer = ask(scheduler, asked, result.reserved, now)
        if not answer.lacking and answer.decision.host is not None:
            take(scheduler.table, answer.decision)
        result.reserved.update(kind for kind in answer.lacking if kind in KINDS)
        result.answers[asked.request.id] = answer
    return result


def ask(scheduler: Scheduler, asked: Asked, reserved: Collection[str], now: float) -> Answer:
    """Return what a request would be told behind those who reserved these kinds. Nothing is taken."""
    decision = decide(scheduler, asked, now)
    if decision.impossible is not None:
        return Answer(decision)
    before = tuple(kind for kind in KINDS if kind in reserved and _asks(asked.request, kind))
    short = before or (() if decision.host is not None else lacking(decision))
    return Answer(decision, short, behind=bool(before) and decision.host is not None)


def _asks(request: Request, kind: str) -> bool:
    amounts = {"vcpus": request.cpu_milli, "memory_mib": request.memory_mib, "disk_gib": request.disk_gib}
    return request.cards is not None if kind == "gpus" else amounts[kind] > 0


def decide(scheduler: Scheduler, asked: Asked, now: float) -> Decision:
    """Decide for one request, first within what its experiment has booked, then anywhere."""
    for booking in asked.spend:
        with without(scheduler.table, tuple(one for one in asked.own if one != booking)):
            decision = scheduler.decide(replace(asked.request, booking=booking), now)
        if decision.host is not None:
            return decision
    with without(scheduler.table, asked.own):
        return scheduler.decide(asked.request, now)


def take(table: HostTable, decision: Decision) -> Claim:
    """Claim what was decided. A booking that is spent keeps what is left of it."""
    wanted = replace(decision.claim(), booking=None)
    claim(table, wanted)
    spent = table.bookings.get(decision.request.booking or "")
    if spent is not None:
        bookings.remove(table, spent.id)
        left = reduced(spent, (wanted,))
        if left is not None:
            bookings.restore(table, left)
    return wanted


def reduced(booking: Booking, held: Sequence[Claim]) -> Booking | None:
    """Return what is left of a booking that those servers use, None when nothing is."""
    cards = {grant.address for one in held for grant in one.grants}
    left = replace(
        booking,
        cards=tuple(address for address in booking.cards if address not in cards),
        cpu_milli=max(0, booking.cpu_milli - sum(one.cpu_milli for one in held)),
        memory_mib=max(0, booking.memory_mib - sum(one.memory_mib for one in held)),
    )
    return left if left.cards or left.cpu_milli or left.memory_mib else None


@contextlib.contextmanager
def without(table: HostTable, names: tuple[str, ...]) -> Iterator[None]:
    """Take bookings out for the length of a look at the table."""
    taken = [booking for booking in (bookings.remove(table, name) for name in names) if booking is not None]
    try:
        yield
    finally:
        for booking in taken:
            bookings.restore(table, booking)
