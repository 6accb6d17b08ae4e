"""The waiting line over a table of hosts: who may start now, and what the others are short of. When they could: `future.py`.

The line of `admission.py` (strict per kind of resource, in order of arrival), with the scheduler in the place of one sum for the
whole site. Who must wait reserves, on each host that is suited to it, the kind that it is short of there: nobody behind it takes of
that there, and nobody is held up elsewhere. Who waits for a booking reserves nothing: the booking says when.
A request knows the bookings of its own experiment: they keep others away, not itself. No clock here: ``now`` is an argument.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from beamdesk.scheduling import bookings
from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.claims import Claim, claim
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.decision import Decision
from beamdesk.scheduling.request import Request
from beamdesk.scheduling.rows import rows_of
from beamdesk.scheduling.state import HostTable

KINDS = ("vcpus", "memory_mib", "disk_gib", "gpus")
_LACKING = {
    "cpu": "vcpus",
    "memory": "memory_mib",
    "disk": "disk_gib",
    "image": "image",
    "cards_busy": "gpus",
    "numa": "gpus",
    "booked": "booked",
    "stale": "stale",
    "disabled": "hosts",
}
"""Reason of a filter -> what people are told that they wait for. Other reasons say that a host is not suited at all."""
_AMOUNTS = frozenset({"cpu", "memory", "disk"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in the line; ``own``: bookings that do not keep it away, of which it may spend those in ``spend``."""

    request: Request
    own: tuple[str, ...] = ()
    spend: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """``lacking`` empty = it may start where the decision says. ``behind``: it would fit, but others came first.

    ``short``: what it reserves, by host, while it waits.
    """

    decision: Decision
    lacking: tuple[str, ...] = ()
    behind: bool = False
    short: Mapping[str, str] = field(default_factory=dict)


Reserved = dict[str, set[str]]
"""Host -> kinds of which nothing is left there for who comes next."""


@dataclass(frozen=True, slots=True)
class Line:
    """What came of a walk: an answer for each request, by its id."""

    answers: dict[str, Answer] = field(default_factory=dict)
    reserved: Reserved = field(default_factory=dict)

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


def walk(scheduler: Scheduler, line: Sequence[Asked], now: float) -> Line:
    """Walk the line once, first come first; those who may start hold what they get in the scheduler's table afterwards."""
    result = Line()
    for asked in line:
        answer = ask(scheduler, asked, result.reserved, now)
        if not answer.lacking and answer.decision.host is not None:
            take(scheduler.table, answer.decision)
        for host, kind in answer.short.items():
            result.reserved.setdefault(host, set()).add(kind)
        result.answers[asked.request.id] = answer
    return result


def ask(scheduler: Scheduler, asked: Asked, reserved: Reserved, now: float) -> Answer:
    """Return what a request would be told behind those who reserved this. Nothing is taken."""
    decision = decide(scheduler, asked, now)
    if decision.impossible is not None:
        return Answer(decision)
    if decision.host is None:
        return _waits(scheduler, asked, decision, now)
    wanted = {kind for kind in KINDS if _asks(asked.request, kind)}
    closed = {host for host, kinds in reserved.items() if kinds & wanted}
    if decision.host not in closed or decision.request.booking is not None:  # what is booked is nobody else's to wait for
        return Answer(decision)
    elsewhere = replace(asked, request=replace(asked.request, not_hosts=asked.request.not_hosts | closed), spend=())
    other = decide(scheduler, elsewhere, now)
    if other.host is not None:
        return Answer(other)
    kinds = [kind for kind in KINDS if any(kind in reserved[host] for host in closed) and kind in wanted]
    return Answer(decision, tuple(kinds), behind=True, short=_reserved(scheduler, asked, _short(scheduler, asked, now)))


def _waits(scheduler: Scheduler, asked: Asked, decision: Decision, now: float) -> Answer:
    """Return the answer to who finds no host: what it is short of on those that are suited to it."""
    short = _short(scheduler, asked, now)
    told = tuple(dict.fromkeys(kind for kind in _LACKING.values() if kind in short.values()))
    guarded = any(reason == "guard" for reason, _ in decision.refusals)
    return Answer(decision, told or (("vcpus",) if guarded else ("hosts",)), short=_reserved(scheduler, asked, short))


def _reserved(scheduler: Scheduler, asked: Asked, short: dict[str, str]) -> dict[str, str]:
    """Return what of that others could take: not time, for instance.

    Under a guard, who asks for no card keeps nobody with a card off the cards' hosts, unless there are no others.
    """
    mine = {host: kind for host, kind in short.items() if kind in KINDS}
    if asked.request.cards is None and scheduler.policy.guard is not None:
        table = scheduler.table
        plain = {host: kind for host, kind in mine.items() if not table.has_cards[table.row[host]]}
        return plain or mine
    return mine


def _short(scheduler: Scheduler, asked: Asked, now: float) -> dict[str, str]:
    """Return what a request is short of on each host that is suited to it. Where its cards are not free, that is what counts.

    A host that keeps what it has for its cards (`guard`) is not one that a request without cards waits for.
    """
    table, cards = scheduler.table, asked.request.cards
    with without(table, asked.own):
        reasons = scheduler.verdicts(asked.request, now)
    few = np.zeros(len(table), np.bool_)
    if cards is not None:
        few = rows_of(table, np.arange(len(table))).fits(cards).sum(axis=1) < cards.count
    return {
        host: "gpus" if reason in _AMOUNTS and few[table.row[host]] else _LACKING[reason]
        for host, reason in reasons.items()
        if reason in _LACKING
    }


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
