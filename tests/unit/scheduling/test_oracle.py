"""The core against brute force, on small worlds with everything in them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamdesk.scheduling import bookings
from beamdesk.scheduling.cards import CardState
from beamdesk.scheduling.claims import release
from beamdesk.scheduling.decide import Scheduler, decide, same_again
from beamdesk.scheduling.errors import NotFree
from beamdesk.scheduling.policy import POLICIES, make
from beamdesk.scheduling.reports import check_invariants
from beamdesk.scheduling.request import Request
from beamdesk.scheduling.snapshot import open_table, take
from beamdesk.scheduling.state import HostTable
from beamdesk.scheduling.wire import read_decision, write_decision
from schedulingkit import Oracle, some_bookings, some_requests, some_worlds

QUICK = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
# A story has four decisions on average, each compared on every host.
SLOW = settings(max_examples=25_000, deadline=None, suppress_health_check=list(HealthCheck))


def check_story(data: st.DataObject) -> None:
    """Play a short story of arrivals and departures; after each step core and oracle agree on every host."""
    facts = data.draw(some_worlds())
    table, oracle = HostTable(facts), Oracle(facts)
    scheduler = Scheduler(table, make(data.draw(st.sampled_from(sorted(POLICIES))), table), keep=len(facts))
    for number in range(data.draw(st.integers(0, 2))):
        booking = data.draw(some_bookings(number))
        with contextlib.suppress(NotFree):
            bookings.add(table, booking, 0.0)
            oracle.bookings.append(booking)
    for number in range(data.draw(st.integers(1, 8))):
        now = float(number)
        request = data.draw(some_requests(f"r{number}"))
        check_decision(table, oracle, scheduler, request, now)
        if table.claims and data.draw(st.integers(0, 3)) == 0:
            gone = data.draw(st.sampled_from(sorted(table.claims)))
            forget(table, oracle, gone)


def check_decision(table: HostTable, oracle: Oracle, scheduler: Scheduler, request: Request, now: float) -> None:
    able = {host.name for host in oracle.facts if oracle.can(host, request, now)}
    decision = scheduler.decide(request, now)
    if scheduler.policy.guard is None:
        assert {one.host for one in decision.ranking} == able
        assert decision.possible == len(able)
    assert {one.host for one in decision.ranking} <= able
    assert (decision.host is None) == (not decision.ranking)
    assert sum(count for _, count in decision.refusals) + decision.possible == (0 if decision.impossible else len(table))
    assert decision == decide(table, scheduler.policy, request, now, keep=len(oracle.facts)), "warm and cold differ"
    assert read_decision(write_decision(decision)) == decision
    copy = open_table(take(table))
    assert copy.digest() == table.digest()
    assert same_again(read_decision(write_decision(decision)), copy, make(scheduler.policy.name, copy)) or not decision.ranking
    if decision.host is None:
        return
    claim = scheduler.place(request, now).claim()
    host = next(one for one in oracle.facts if one.name == claim.host)
    free = [card.address for card in host.cards if request.cards and oracle.card_free(host, card, request.cards)]
    assert len(claim.grants) == (request.cards.count if request.cards else 0)
    assert {grant.address for grant in claim.grants} <= set(free)
    oracle.claims.append(claim)
    for node, cpu, memory in table.charges[claim.id]:
        use = oracle.node_use.setdefault((claim.host, node), [0, 0])
        use[0], use[1] = use[0] + cpu, use[1] + memory
    assert check_invariants(table) == [] or any(card.state is CardState.USED for one in oracle.facts for card in one.cards)


def forget(table: HostTable, oracle: Oracle, claim_id: str) -> None:
    for node, cpu, memory in table.charges[claim_id]:
        claim = table.claims[claim_id]
        use = oracle.node_use[claim.host, node]
        use[0], use[1] = use[0] - cpu, use[1] - memory
    release(table, claim_id, leave=CardState.FREE)
    oracle.claims = [claim for claim in oracle.claims if claim.id != claim_id]


@pytest.mark.heavy
@QUICK
@given(st.data())
def test_core_and_brute_force_agree(data: st.DataObject) -> None:
    check_story(data)


@pytest.mark.slow
@SLOW
@given(st.data())
def test_core_and_brute_force_agree_on_a_hundred_thousand_decisions(data: st.DataObject) -> None:
    check_story(data)
