"""When who waits could run, and when somebody could who asked now: leases and bookings are let end one after another on a copy.

Estimates, and said so to people: others come, cards need cleaning, leases are extended and given up early. How sure one is shows
in two times: when it could be if leases end as they say, and when if those that end by then are extended once. Where the two are
one, no lease has to end. No clock here: ``now`` is an argument.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from beamdesk.scheduling.cards import CardState
from beamdesk.scheduling.claims import release
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.line import Answer, Asked, Line, ask, walk
from beamdesk.scheduling.policy import Policy
from beamdesk.scheduling.snapshot import Snapshot, open_table
from beamdesk.scheduling.state import HostTable

MOST_STEPS = 400
"""Decisions that an estimate may take; where more would be needed there is none."""
Make = Callable[[HostTable], Policy]
"""Makes the policy for a copy of the table."""


@dataclass(frozen=True, slots=True)
class Chance:
    """What somebody who asked now would be told, and when it could run: ``at``, or ``by`` if leases are extended once.

    None = leases do not tell.
    """

    answer: Answer
    at: float | None
    by: float | None

    @property
    def never(self) -> bool:
        """Tell whether no host could ever run it."""
        return self.answer.decision.impossible is not None


@dataclass(slots=True)
class _Budget:
    left: int = MOST_STEPS

    def spend(self, steps: int) -> bool:
        self.left -= steps
        return self.left >= 0


@dataclass(slots=True)
class _Future:
    """A copy of the state as time goes by: the line is walked at each moment at which something ends."""

    scheduler: Scheduler
    waiting: list[Asked]
    now: float
    budget: _Budget
    ends: list[tuple[float, str]] = field(default_factory=list)

    def moments(self) -> Iterator[tuple[float, Line]]:
        """Yield each moment with what came of the line then; who starts holds what it got from then on."""
        table = self.scheduler.table
        self.ends = [(one.until, one.id) for one in table.claims.values() if one.until is not None and one.until > self.now]
        self.ends += [(one.end, "") for one in table.bookings.values() if one.end > self.now]
        heapq.heapify(self.ends)
        at: float | None = self.now
        while at is not None and self.budget.spend(len(self.waiting)):
            walked = walk(self.scheduler, [moved(asked, self.now, at) for asked in self.waiting], at)
            self._started(walked)
            yield at, walked
            at = self._next()

    def _started(self, walked: Line) -> None:
        table = self.scheduler.table
        for name, answer in walked.answers.items():
            if not answer.lacking and answer.decision.host is not None and (until := table.claims[name].until) is not None:
                heapq.heappush(self.ends, (until, name))
        self.waiting = [asked for asked in self.waiting if walked.answers[asked.request.id].lacking]

    def _next(self) -> float | None:
        """Let all leases and bookings end that end next; return when that is."""
        if not self.ends:
            return None
        at = self.ends[0][0]
        while self.ends and self.ends[0][0] <= at:
            _, name = heapq.heappop(self.ends)
            if name:
                release(self.scheduler.table, name, leave=CardState.FREE)
        return at


def _open(snapshot: Snapshot, policy: Make, line: Sequence[Asked], now: float, budget: _Budget) -> _Future:
    table = open_table(snapshot)
    return _Future(Scheduler(table, policy(table), keep=1), list(line), now, budget)


def moved(asked: Asked, now: float, at: float) -> Asked:
    """Return a request as it is when it begins later: its lease keeps its length."""
    until = asked.request.until
    return asked if until is None else replace(asked, request=replace(asked.request, until=until + at - now))


def expected(snapshot: Snapshot, policy: Make, line: Sequence[Asked], wanted: str, now: float) -> float | None:
    """Return when ``wanted``, who is in the line, could start if leases end when they say; None = that does not tell."""
    places = [asked.request.id for asked in line]
    future = _open(snapshot, policy, line[: places.index(wanted) + 1], now, _Budget())
    for at, walked in future.moments():
        answer = walked.answers.get(wanted)
        if answer is None or answer.decision.impossible is not None:
            return None
        if not answer.lacking:
            return at
    return None


def chances(
    snapshot: Snapshot, policy: Make, line: Sequence[Asked], probes: Sequence[Asked], now: float, extension: float
) -> dict[str, Chance]:
    """Return for each of several requests what came of it if it were the next in line, and when each could run by itself.

    ``extension``: seconds by which a lease is extended at once.
    """
    answers: dict[str, Answer] = {}
    times = _first_times(snapshot, policy, line, probes, now, answers)
    later = dict(times)
    for at in {one for one in times.values() if one > now}:
        those = [probe for probe in probes if times.get(probe.request.id) == at]
        later |= _first_times(_extended(snapshot, now, at, extension), policy, line, those, now, {})
    return {name: Chance(answer, times.get(name), later.get(name)) for name, answer in answers.items()}


def _first_times(
    snapshot: Snapshot, policy: Make, line: Sequence[Asked], probes: Sequence[Asked], now: float, answers: dict[str, Answer]
) -> dict[str, float]:
    """Return when each could run; ``answers`` gets what each is told at the first moment."""
    budget, left, times = _Budget(), list(probes), {}
    future = _open(snapshot, policy, line, now, budget)
    for at, walked in future.moments():
        if not left or not budget.spend(len(left)):
            break
        for probe in tuple(left):
            answer = ask(future.scheduler, moved(probe, now, at), walked.reserved, at)
            answers.setdefault(probe.request.id, answer)
            if not answer.lacking:
                left.remove(probe)
                if answer.decision.host is not None:
                    times[probe.request.id] = at
    return times


def _extended(snapshot: Snapshot, now: float, at: float, extension: float) -> Snapshot:
    """Return the state with the leases that end from now to ``at`` extended once."""
    claims = tuple(
        (replace(claim, until=claim.until + extension), charges)
        if claim.until is not None and now < claim.until <= at
        else (claim, charges)
        for claim, charges in snapshot.claims
    )
    return replace(snapshot, claims=claims)
