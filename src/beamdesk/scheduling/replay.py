"""Running recorded or generated requests through the very code that decides in production, and measuring what came of it.

Two kinds. *Static*: requests arrive and stay, until far more was asked for than there is (the method of the FGD paper). *Churn*:
requests arrive, hold a lease and leave (desktops). Pure: files are read in `beamdesk.adapters.trace`, clocks are passed in.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from beamdesk.scheduling.arrays import CARD
from beamdesk.scheduling.cards import CardState
from beamdesk.scheduling.claims import claim, release
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.fragment import Fragmentation, Mix
from beamdesk.scheduling.move import Move, make_room
from beamdesk.scheduling.policy import Policy
from beamdesk.scheduling.request import Request
from beamdesk.scheduling.rows import rows_of
from beamdesk.scheduling.state import HostTable

HOUR = 3600.0
_BETWEEN_SAMPLES = HOUR / 2
Timer = Callable[[], float]


def _no_timer() -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class StaticResult:
    """What a static replay measured; percentages. ``curve``: arrived cards (% of all) -> lent cards (% of all)."""

    curve: dict[int, float]
    final: float
    fragments: float
    accepted_gpu: float
    accepted_cpu: float
    spilled: int
    cpu_used: float
    seconds: tuple[float, ...] = field(repr=False, default=())


def inflate(requests: Sequence[Request], capacity: int, ratio: float, rng: np.random.Generator) -> list[Request]:
    """Shuffle the requests, then add more drawn from them (or take some away) until ``ratio`` of the capacity is asked for.

    ``capacity`` in thousandths of cards. Ids are numbered anew.
    """
    chosen = [requests[number] for number in rng.permutation(len(requests))]
    asked, target = sum(_milli(one) for one in chosen), ratio * capacity
    while asked > target:
        asked -= _milli(chosen.pop(int(rng.integers(len(chosen)))))
    while asked < target:
        one = requests[int(rng.integers(len(requests)))]
        if asked + _milli(one) > target:
            break
        asked += _milli(one)
        chosen.append(one)
    return [replace(one, id=f"r{number}") for number, one in enumerate(chosen)]


def _milli(request: Request) -> int:
    return request.cards.milli if request.cards is not None else 0


def static(
    table: HostTable, policy: Policy, requests: Iterable[Request], mix: Mix, *, marks: Sequence[int] = (), timer: Timer = _no_timer
) -> StaticResult:
    """Place requests one after another; none leaves. ``mix`` measures fragments. Changes the table."""
    scheduler, capacity = Scheduler(table, policy, keep=1), card_capacity(table)
    arrived = lent = spilled = 0
    curve: dict[int, float] = {}
    seen: Counter[str] = Counter()
    seconds = []
    for request in requests:
        kind = "gpu" if request.cards is not None else "cpu"
        begun = timer()
        decision = scheduler.place(request)
        seconds.append(timer() - begun)
        seen[kind] += 1
        arrived += _milli(request)
        if decision.host is not None:
            seen[f"{kind} accepted"] += 1
            lent += _milli(request)
            spilled += kind == "cpu" and bool(table.has_cards[table.row[decision.host]])
        for mark in marks:
            if mark not in curve and arrived * 100 >= mark * capacity:
                curve[mark] = 100 * lent / capacity
    for mark in marks:
        curve.setdefault(mark, 100 * lent / capacity)
    measure = Fragmentation(table, mix, memory=False)
    fragments = int(measure.of(rows_of(table, np.arange(len(table)))).sum()) / measure.total
    return StaticResult(
        curve,
        100 * lent / capacity,
        100 * fragments / capacity,
        100 * seen["gpu accepted"] / max(1, seen["gpu"]),
        100 * seen["cpu accepted"] / max(1, seen["cpu"]),
        spilled,
        100 * (1 - float(table.cpu_free.sum()) / float(table.cpu_total.sum())),
        tuple(seconds),
    )


def card_capacity(table: HostTable) -> int:
    """Return how many thousandths of cards there are."""
    return int((table.state >= 0).sum()) * CARD


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that comes at ``at`` and leaves ``lease`` seconds later if it got a place at once."""

    at: float
    lease: float
    request: Request


@dataclass(frozen=True, slots=True)
class ChurnResult:
    """What a churn replay measured after its warm-up; percentages, the last four averaged over time.

    ``multi``: requests for several cards. ``cards``: cards given of cards asked. ``stranded``: idle whole cards on hosts where
    some typical request fits by cards but none by CPU and memory.
    """

    gpu: float
    multi: float
    cards: float
    cpu: float
    spilled: int
    moved: int
    lent: float
    stranded: float
    fragments: float
    cpu_used: float
    asked_gpu: int
    asked_cpu: int
    seconds: tuple[float, ...] = field(repr=False, default=())


class Churn:
    """One churn replay. Rejected requests do not come back."""

    def __init__(self, table: HostTable, policy: Policy, mix: Mix, *, moves: int = 0, timer: Timer = _no_timer) -> None:
        self.table, self.mix, self._moves, self._timer = table, mix, moves, timer
        self.scheduler = Scheduler(table, policy, keep=1)
        self._measure = Fragmentation(table, tuple(task for task in mix if task.cards is not None), memory=True)
        self._leaving: list[tuple[float, int, str]] = []
        self._requests: dict[str, Request] = {}
        self._count: Counter[str] = Counter()
        self._time = self._last = 0.0
        self._sums: dict[str, float] = defaultdict(float)
        self._seconds: list[float] = []

    def run(self, arrivals: Iterable[Arrival], warm: float) -> ChurnResult:
        """Play the arrivals; what comes before ``warm`` is not counted."""
        for number, arrival in enumerate(arrivals):
            while self._leaving and self._leaving[0][0] <= arrival.at:
                gone = heapq.heappop(self._leaving)[2]
                release(self.table, gone, leave=CardState.FREE)
                self._requests.pop(gone, None)
            counted = arrival.at >= warm
            if counted:
                self._sample(arrival.at)
            request = replace(arrival.request, id=f"r{number}", until=arrival.at + arrival.lease)
            begun = self._timer()
            placed = self._place(request, arrival.at, counted=counted)
            self._seconds.append(self._timer() - begun)
            if placed:
                self._requests[request.id] = request
                heapq.heappush(self._leaving, (arrival.at + arrival.lease, number, request.id))
            if counted:
                self._tally(request, placed=placed)
        return self._result()

    def _place(self, request: Request, now: float, *, counted: bool) -> bool:
        decision = self.scheduler.place(request, now)
        if decision.host is not None:
            spill = request.cards is None and bool(self.table.has_cards[self.table.row[decision.host]])
            self._count["spilled"] += counted and spill
            return True
        if request.cards is None or not self._moves:
            return False
        moves = make_room(self.scheduler, request, self._requests, now, most=self._moves)
        if not moves:
            return False
        self._carry_out(moves)
        self._count["moved"] += counted * len(moves)
        return self.scheduler.place(request, now).host is not None

    def _carry_out(self, moves: Sequence[Move]) -> None:
        for move in moves:
            release(self.table, move.id, leave=CardState.FREE)
        for move in moves:
            claim(self.table, move.to)

    def _tally(self, request: Request, *, placed: bool) -> None:
        kinds = ["cpu"] if request.cards is None else ["gpu"] + ["multi"] * (request.cards.count > 1)
        for kind in kinds:
            self._count[kind] += 1
            self._count[f"{kind} accepted"] += placed
        self._count["cards"] += _milli(request)
        self._count["cards accepted"] += _milli(request) * placed

    def _sample(self, now: float) -> None:
        """Add the present state, weighted by the time since the last sample. Half-hourly samples are enough for an average."""
        if self._last and now - self._last < _BETWEEN_SAMPLES:
            return
        if self._last:
            span, table = now - self._last, self.table
            self._time += span
            rows = rows_of(table, np.flatnonzero(table.has_cards))
            self._sums["idle"] += span * int(rows.idle.sum())
            self._sums["stranded"] += span * stranded(table, self.mix) * CARD
            self._sums["fragments"] += span * int(self._measure.of(rows).sum()) / self._measure.total
            self._sums["cpu"] += span * float(table.cpu_free.sum()) / float(table.cpu_total.sum())
        self._last = now

    def _result(self) -> ChurnResult:
        def share(kind: str) -> float:
            return 100 * self._count[f"{kind} accepted"] / max(1, self._count[kind])

        capacity, time = max(1, card_capacity(self.table)), max(self._time, 1e-9)
        return ChurnResult(
            gpu=share("gpu"),
            multi=share("multi"),
            cards=share("cards"),
            cpu=share("cpu"),
            spilled=self._count["spilled"],
            moved=self._count["moved"],
            lent=100 * (1 - self._sums["idle"] / time / capacity),
            stranded=100 * self._sums["stranded"] / time / capacity,
            fragments=100 * self._sums["fragments"] / time / capacity,
            cpu_used=100 * (1 - self._sums["cpu"] / time),
            asked_gpu=self._count["gpu"],
            asked_cpu=self._count["cpu"],
            seconds=tuple(self._seconds),
        )


def stranded(table: HostTable, mix: Mix) -> int:
    """Return how many idle whole cards are on hosts where some typical request fits by cards but none by CPU and memory."""
    idle = (table.idle == CARD).sum(axis=1)
    by_cards = able = np.zeros(len(table), np.bool_)
    for task in mix:
        if task.cards is None or task.cards.share < CARD or task.cards.profile is not None:
            continue
        enough = (table.suits(task.cards) & (table.idle == CARD)).sum(axis=1) >= task.cards.count
        by_cards = by_cards | enough
        able = able | (enough & (table.cpu_free >= task.cpu_milli) & (table.memory_free >= task.memory_mib))
    return int(idle[by_cards & ~able].sum())
