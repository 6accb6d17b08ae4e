"""The waiting line over a table of hosts: who may start now, what the others are short of, and about when they could run.

The line of `admission.py` (strict per kind of resource, in order of arrival), with the scheduler in the place of one sum for the
whole site. Who must wait reserves the kinds it is short of. Who waits for a booking reserves nothing: the booking says when.
A request knows the bookings of its own experiment: they keep others away, not itself. No clock here: ``now`` is an argument.
"""

from __future__ import annotations

import contextlib
import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from beamdesk.scheduling import bookings
from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.cards import CardState
from beamdesk.scheduling.claims import Claim, claim, release
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.decision import Decision
from beamdesk.scheduling.policy import Policy
from beamdesk.scheduling.request import Request
from beamdesk.scheduling.snapshot import Snapshot, open_table
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
MOST_STEPS = 400
"""Decisions that an estimate may take; where more would be needed there is none."""


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
    """What came of a walk: an answer for each request, by its id."""

    answers: dict[str, Answer] = field(default_factory=dict)

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
    result, reserved = Line(), set[str]()
    for asked in line:
        decision = decide(scheduler, asked, now)
        if decision.impossible is not None:
            result.answers[asked.request.id] = Answer(decision)
            continue
        before = tuple(kind for kind in KINDS if kind in reserved and _asks(asked.request, kind))
        short = before or (() if decision.host is not None else lacking(decision))
        if not short:
            take(scheduler.table, decision)
        reserved.update(kind for kind in short if kind in KINDS)
        result.answers[asked.request.id] = Answer(decision, short, behind=bool(before) and decision.host is not None)
    return result


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


def expected(
    snapshot: Snapshot, policy: Callable[[HostTable], Policy], line: Sequence[Asked], wanted: str, now: float
) -> float | None:
    """Return when ``wanted`` could start if leases end when they say and nobody else comes; None = that does not tell.

    An estimate: leases are extended and given up early, cards need cleaning. Leases keep their length while they wait.
    """
    table = open_table(snapshot)
    scheduler = Scheduler(table, policy(table), keep=1)
    waiting = [*_up_to(line, wanted)]
    ends = [(one.until, one.id) for one in table.claims.values() if one.until is not None and one.until > now]
    ends += [(one.end, "") for one in table.bookings.values() if one.end > now]
    heapq.heapify(ends)
    at, steps = now, 0
    while waiting:
        steps += len(waiting)
        if steps > MOST_STEPS:
            return None
        answers = walk(scheduler, [_moved(asked, now, at) for asked in waiting], at).answers
        for asked in waiting:
            answer = answers[asked.request.id]
            if not answer.lacking and answer.decision.host is not None:
                if asked.request.id == wanted:
                    return at
                until = table.claims[asked.request.id].until
                if until is not None:
                    heapq.heappush(ends, (until, asked.request.id))
        waiting = [asked for asked in waiting if answers[asked.request.id].lacking]
        at = _next_moment(table, ends)
        if not waiting or waiting[-1].request.id != wanted or math.isinf(at):
            return None
    return None


def _up_to(line: Sequence[Asked], wanted: str) -> Iterator[Asked]:
    for asked in line:
        yield asked
        if asked.request.id == wanted:
            return


def _moved(asked: Asked, now: float, at: float) -> Asked:
    until = asked.request.until
    return asked if until is None else replace(asked, request=replace(asked.request, until=until + at - now))


def _next_moment(table: HostTable, ends: list[tuple[float, str]]) -> float:
    """Let all leases and bookings end that end next; return when that is."""
    if not ends:
        return math.inf
    at = ends[0][0]
    while ends and ends[0][0] <= at:
        _, name = heapq.heappop(ends)
        if name:
            release(table, name, leave=CardState.FREE)
    return at
