"""Replays measure what they say, and moves make room without breaking anything."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from beamdesk.scheduling.cards import Card, CardState
from beamdesk.scheduling.claims import Claim, Grant, claim, release
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.fragment import Task
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.move import make_room
from beamdesk.scheduling.policy import make
from beamdesk.scheduling.replay import Arrival, Churn, inflate, static, stranded
from beamdesk.scheduling.reports import check_invariants
from beamdesk.scheduling.request import CardDemand, Request
from beamdesk.scheduling.state import HostTable

CARDS = tuple(Card(f"c{number}", "A10", 24576, 9216, 600, 1695) for number in range(2))
ONE = Request("one", 8000, 32768, cards=CardDemand(1))
TWO = Request("two", 16000, 65536, cards=CardDemand(2))
MIX = (Task(8000, 32768, CardDemand(1), 1), Task(16000, 65536, CardDemand(2), 1))


def two_hosts(cpu: int = 32000) -> HostTable:
    return HostTable([HostFacts(name, cpu, 131072, cards=CARDS) for name in "ab"])


def test_inflating_reaches_the_ratio_and_numbers_ids_anew() -> None:
    requests = inflate([ONE, TWO], 100_000, 1.3, np.random.default_rng(1))
    assert 128_000 <= sum(one.cards.milli for one in requests if one.cards) <= 130_000
    assert len({one.id for one in requests}) == len(requests)
    fewer = inflate([replace(ONE, id=f"x{number}") for number in range(100)], 10_000, 1.0, np.random.default_rng(1))
    assert len(fewer) == 10


def test_a_static_replay_counts_what_was_lent_and_refused() -> None:
    requests = [replace(ONE, id=f"r{number}") for number in range(5)] + [Request("cpu", 1000, 1024)]
    result = static(two_hosts(), make("best-fit", two_hosts()), requests, MIX, marks=(50, 100, 125))
    assert result.curve == {50: 50.0, 100: 100.0, 125: 100.0}
    assert (result.accepted_gpu, result.accepted_cpu, result.spilled) == (80.0, 100.0, 1)


def test_a_churn_replay_frees_cards_when_leases_end() -> None:
    arrivals = [Arrival(float(at), 10.0, TWO) for at in (0, 1, 2, 11, 12)]
    table = two_hosts()
    result = Churn(table, make("beamdesk", table, MIX), MIX).run(arrivals, warm=0.0)
    assert (result.asked_gpu, result.gpu, result.multi) == (5, 80.0, 80.0)
    assert check_invariants(table) == []


def test_what_comes_before_the_warm_up_is_not_counted() -> None:
    table = two_hosts()
    result = Churn(table, make("fgd", table, MIX), MIX).run([Arrival(float(at), 1.0, ONE) for at in range(10)], warm=5.0)
    assert result.asked_gpu == 5


def test_the_same_workload_gives_the_same_result() -> None:
    arrivals = [Arrival(float(at), 7.0, (ONE, TWO)[at % 3 == 0]) for at in range(60)]
    results = []
    for _ in range(2):
        table = two_hosts()
        results.append(replace(Churn(table, make("beamdesk", table, MIX), MIX, moves=1).run(arrivals, warm=3.0), seconds=()))
    assert results[0] == results[1]


def test_idle_cards_without_cpu_are_stranded() -> None:
    table = two_hosts()
    claim(table, Claim("big", "a", 30000, 1024))
    assert stranded(table, MIX) == 2


def fragmented() -> tuple[HostTable, Scheduler, dict[str, Request]]:
    """One card is taken on each of two hosts: two are idle, but a request for two fits nowhere."""
    table = two_hosts()
    scheduler = Scheduler(table, make("beamdesk", table, MIX))
    movable = {}
    for name in "ab":
        request = replace(ONE, id=f"on-{name}", only_hosts=frozenset({name}))
        scheduler.place(request)
        movable[request.id] = replace(request, only_hosts=frozenset())
    return table, scheduler, movable


def test_one_move_makes_room_for_two_cards() -> None:
    table, scheduler, movable = fragmented()
    assert scheduler.decide(TWO).host is None
    (move,) = make_room(scheduler, TWO, movable, 0.0, most=1)
    release(table, move.id, leave=CardState.FREE)
    claim(table, move.to)
    assert scheduler.place(TWO).host == move.source
    assert check_invariants(table) == []


def test_a_desktop_that_may_not_move_is_not_moved() -> None:
    _, scheduler, movable = fragmented()
    for fixed in itertools.chain(movable):
        moves = make_room(scheduler, TWO, {name: one for name, one in movable.items() if name != fixed}, 0.0)
        assert all(move.id != fixed for move in moves)
    assert make_room(scheduler, TWO, {}, 0.0) == ()


def test_no_plan_is_better_than_one_that_does_not_suffice() -> None:
    table, scheduler, movable = fragmented()
    claim(table, Claim("fixed", "a", 1000, 1024, grants=(Grant("c1"),)))
    assert scheduler.decide(replace(TWO, cards=CardDemand(2))).host is None
    assert make_room(scheduler, TWO, movable, 0.0) == ()


@pytest.mark.parametrize("most", [1, 2])
def test_planning_changes_nothing(most: int) -> None:
    table, scheduler, movable = fragmented()
    before = table.digest()
    make_room(scheduler, TWO, movable, 0.0, most=most)
    assert table.digest() == before
