"""Policies: equations by hand, tiers, ties, the guard, preferences; and fragmentation against a plain loop."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamdesk.scheduling import filters
from beamdesk.scheduling.arrays import CARD
from beamdesk.scheduling.cards import Card, CardMode, CardState
from beamdesk.scheduling.claims import Claim, Grant, claim, release
from beamdesk.scheduling.decide import Scheduler, decide, same_again
from beamdesk.scheduling.errors import NotFree, SchedulingError
from beamdesk.scheduling.filters import Window
from beamdesk.scheduling.fragment import Fragmentation, Task, typical
from beamdesk.scheduling.host import HostFacts, NumaNode
from beamdesk.scheduling.policy import POLICIES, Guard, make
from beamdesk.scheduling.request import CardDemand, GroupRule, NumaRule, Request
from beamdesk.scheduling.rows import rows_of
from beamdesk.scheduling.state import HostTable
from beamdesk.scheduling.wire import read_decision, write_decision
from schedulingkit import some_requests, some_worlds

T4 = ("T4", 16384, 2560, 320, 1590)
A100 = ("A100", 40960, 6912, 1555, 1410)


def cards(kind: tuple[str, int, int, int, int], count: int, **more: object) -> tuple[Card, ...]:
    return tuple(Card(f"c{number}", *kind, **more) for number in range(count))  # type: ignore[arg-type]


def cpu_host(name: str, cpu: int = 64000, memory: int = 262144) -> HostFacts:
    return HostFacts(name, cpu, memory)


def gpu_host(name: str, kind: tuple[str, int, int, int, int] = T4, count: int = 4, cpu: int = 64000, **more: object) -> HostFacts:
    return HostFacts(name, cpu, 393216, cards=cards(kind, count), **more)  # type: ignore[arg-type]


def test_heps_scores_cpu_hosts_by_equation_1() -> None:
    table = HostTable([cpu_host("a")])
    decision = decide(table, make("heps", table), Request("d", 16000, 131072))
    assert decision.ranking[0].total == pytest.approx(100 * (0.5 * 48 / 64 + 0.5 * 0.5))


def test_heps_scores_gpu_hosts_by_equations_2_to_4() -> None:
    table = HostTable([gpu_host("a", T4, 4), gpu_host("b", A100, 8, cpu=128000)])
    request = Request("d", 8000, 32768, cards=CardDemand(1))
    ranked = {one.host: dict(one.contributions) for one in decide(table, make("heps", table), request).ranking}
    s_card = (2560 * 1590 / (6912 * 1410) + 320 / 1555 + 1.0) / 3
    n = (4 / 8, 16384 / 40960, 2560 / 6912, 64 / 128, 1.0)
    r = (1 / 8, 16384 / 40960, 2560 / 6912, 8 / 128, 32768 / 393216)
    cosine = sum(x * y for x, y in zip(n, r, strict=True)) / (math.hypot(*n) * math.hypot(*r))
    assert ranked["a"]["gpu_score"] == pytest.approx(s_card * cosine)


def test_heps_uses_cpu_hosts_first_and_gpu_hosts_when_they_are_full() -> None:
    table = HostTable([cpu_host("z", cpu=4000), gpu_host("a", cpu=640000)])
    scheduler = Scheduler(table, make("heps", table))
    assert [scheduler.place(Request(f"d{number}", 4000, 1024)).host for number in range(2)] == ["z", "a"]


def test_nova_spreads_each_weigher_over_the_hosts_that_passed() -> None:
    table = HostTable([cpu_host("a", 10000, 100), cpu_host("b", 20000, 50), cpu_host("c", 15000, 100)])
    ranked = decide(table, make("nova-default", table), Request("d", 1000, 10)).ranking
    assert [(one.host, one.total) for one in ranked] == [("c", 1.5), ("a", 1.0), ("b", 1.0)]


def test_fgd_truncates_its_score_and_gives_ties_to_the_smallest_name() -> None:
    table = HostTable([gpu_host(name) for name in ("b", "a")])
    claim(table, Claim("x", "b", 1000, 1024))
    ranked = decide(table, make("fgd", table), Request("d", 1000, 1024)).ranking
    assert ranked[0].host == "a"
    assert all(one.total == int(one.total) for one in ranked)


def test_beamdesk_packs_a_gpu_desktop_onto_the_host_in_use() -> None:
    table = HostTable([gpu_host("a"), gpu_host("b")])
    scheduler = Scheduler(table, make("beamdesk", table))
    claim(table, Claim("x", "b", 8000, 32768, grants=(Grant("c0"),)))
    assert scheduler.place(Request("d", 8000, 32768, cards=CardDemand(1))).host == "b"


def test_the_guard_keeps_cpu_for_idle_cards_and_lets_go_while_many_are_idle() -> None:
    table = HostTable([gpu_host("a", count=4)])
    mix = (Task(8000, 32768, CardDemand(1), 1),)
    wanted = Request("d", 40000, 1024)
    strict = replace(make("beamdesk", table, mix), guard=Guard(table, mix, plenty=1.0))
    assert decide(table, strict, wanted).refusals == (("guard", 1),)
    assert decide(table, strict, replace(wanted, cpu_milli=32000)).host == "a"
    lenient = replace(strict, guard=Guard(table, mix, plenty=0.2))
    assert decide(table, lenient, wanted).host == "a"


def test_the_guard_counts_dirty_cards_as_coming_back() -> None:
    table = HostTable([HostFacts("a", 64000, 393216, cards=cards(T4, 4, state=CardState.DIRTY))])
    mix = (Task(8000, 32768, CardDemand(1), 1),)
    assert decide(table, make("beamdesk", table, mix), Request("d", 40000, 1024)).refusals == (("guard", 1),)


def test_strict_numa_needs_all_on_one_node_and_binds_there() -> None:
    nodes = (NumaNode(32000, 131072), NumaNode(32000, 131072))
    own = tuple(replace(card, numa=number // 2) for number, card in enumerate(cards(T4, 4)))
    table = HostTable([HostFacts("a", 64000, 262144, cards=own, numa=nodes)])
    scheduler = Scheduler(table, make("beamdesk", table))
    first = scheduler.place(Request("d1", 20000, 1024, cards=CardDemand(2), numa=NumaRule.STRICT))
    assert (first.node, {grant.address for grant in first.grants}) in ((0, {"c0", "c1"}), (1, {"c2", "c3"}))
    assert scheduler.decide(Request("d2", 1000, 1024, cards=CardDemand(3), numa=NumaRule.STRICT)).host is None
    second = scheduler.place(Request("d3", 20000, 1024, cards=CardDemand(1), numa=NumaRule.STRICT))
    assert second.node == 1 - (first.node or 0)
    assert scheduler.decide(Request("d4", 20000, 1024, cards=CardDemand(1), numa=NumaRule.STRICT)).refusals == (("numa", 1),)
    assert scheduler.decide(Request("d5", 20000, 1024, cards=CardDemand(1), numa=NumaRule.PREFER)).host == "a"


def test_several_cards_come_from_one_node_where_they_can() -> None:
    nodes = (NumaNode(32000, 131072), NumaNode(32000, 131072))
    own = tuple(replace(card, numa=number % 2) for number, card in enumerate(cards(T4, 4)))
    table = HostTable([HostFacts("a", 64000, 262144, cards=own, numa=nodes)])
    given = decide(table, make("beamdesk", table), Request("d", 1000, 1024, cards=CardDemand(2))).grants
    assert [grant.address for grant in given] == ["c0", "c2"]


def test_an_image_on_the_host_breaks_the_tie() -> None:
    table = HostTable([cpu_host("a"), HostFacts("b", 64000, 262144, images=frozenset({"imaging"}))])
    policy = make("beamdesk", table)
    assert decide(table, policy, Request("d", 1000, 1024)).host == "a"
    assert decide(table, policy, Request("d", 1000, 1024, image="imaging")).host == "b"


def test_members_of_a_group_lie_as_their_rule_says() -> None:
    table = HostTable([cpu_host(name) for name in "abc"])
    scheduler = Scheduler(table, make("beamdesk", table))
    scheduler.place(Request("d1", 1000, 1024, group="g"))
    wanted = Request("d2", 1000, 1024, group="g")
    assert scheduler.decide(replace(wanted, group_rule=GroupRule.TOGETHER)).host == "a"
    assert scheduler.decide(replace(wanted, group_rule=GroupRule.SOFT_TOGETHER)).host == "a"
    assert scheduler.decide(replace(wanted, group_rule=GroupRule.SOFT_APART)).host == "b"
    assert scheduler.decide(replace(wanted, group_rule=GroupRule.APART)).host == "b"
    release(table, "d1")
    assert scheduler.decide(replace(wanted, group_rule=GroupRule.TOGETHER)).possible == 3


def test_a_beamlines_hosts_serve_it_and_dedicated_ones_nobody_else() -> None:
    own = HostFacts("a", 64000, 262144, aggregates=frozenset({"B7"}), dedicated=True)
    table = HostTable([own, cpu_host("b")])
    policy = make("beamdesk", table)
    assert decide(table, policy, Request("d", 1, 1)).host == "b"
    assert decide(table, policy, Request("d", 1, 1, aggregates=frozenset({"B7"}))).host == "a"
    assert decide(table, policy, Request("d", 1, 1, aggregates=frozenset({"B9"}))).impossible == "No host is for B9."


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request("d", 1, 1, cards=CardDemand(16)), "16 cards; no host has more than 4"),
        (Request("d", 1, 1, cards=CardDemand(1, models=frozenset({"H100"}))), "no host has more than 0 such cards"),
        (Request("d", 1, 1, cards=CardDemand(1, memory_mib=99999)), "no host has more than 0 such cards"),
        (Request("d", 65000, 1), "CPU"),
        (Request("d", 1, 999999), "memory"),
        (Request("d", 1, 1, disk_gib=5), "disk"),
        (Request("d", 1, 1, only_hosts=frozenset({"nowhere"})), "There is no host nowhere"),
        (Request("d", 64000, 393216, cards=CardDemand(4), aggregates=frozenset({"B7"})), "No host is for B7"),
    ],
)
def test_what_no_empty_host_could_take_is_refused_at_once_with_the_reason(request_: Request, says: str) -> None:
    table = HostTable([gpu_host("a"), cpu_host("b")])
    decision = decide(table, make("beamdesk", table), request_)
    assert says in (decision.impossible or "")
    with pytest.raises(NotFree, match=r"no host|No host"):
        decision.claim()


def test_cards_and_cpu_on_different_hosts_are_not_enough() -> None:
    table = HostTable([gpu_host("a", cpu=1000), cpu_host("b")])
    assert decide(table, make("beamdesk", table), Request("d", 2000, 1, cards=CardDemand(1))).impossible is not None


def test_a_stored_decision_comes_out_the_same_on_the_same_state_only() -> None:
    table = HostTable([gpu_host("a"), gpu_host("b"), cpu_host("c")])
    policy = make("beamdesk", table)
    stored = write_decision(decide(table, policy, Request("d", 1000, 1024, cards=CardDemand(1))))
    again = HostTable([cpu_host("c"), gpu_host("b"), gpu_host("a")])
    assert same_again(read_decision(stored), again, make("beamdesk", again))
    claim(again, Claim("x", "c", 1, 1))
    assert not same_again(read_decision(stored), again, make("beamdesk", again))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"request": 1}', "nonsense"])
def test_what_is_not_a_decision_is_refused(text: str) -> None:
    with pytest.raises(SchedulingError):
        read_decision(text)


def test_an_unknown_policy_is_refused_by_name() -> None:
    with pytest.raises(SchedulingError, match="no policy 'best'"):
        make("best", HostTable([cpu_host("a")]))


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_table_without_hosts_takes_nothing(name: str) -> None:
    table = HostTable([])
    assert decide(table, make(name, table), Request("d", 1, 1)).impossible == "There is no host."


def plain_fragment(facts: HostFacts, cpu: int, memory: int, idle: dict[str, int], mix: tuple[Task, ...]) -> int:
    """FGD's definition as a plain loop over tasks and cards."""
    result = 0
    for task in mix:
        total = sum(idle.values())
        if task.cards is None:
            result += task.weight * total
            continue
        demand = task.cards
        good = [
            card.address
            for card in facts.cards
            if (not demand.models or card.model in demand.models)
            and card.memory_mib >= demand.memory_mib
            and card.cores >= demand.cores
            and card.bandwidth_gbs >= demand.bandwidth_gbs
            and card.clock_mhz >= demand.clock_mhz
            and (card.mode is CardMode.HOST and demand.container if demand.share < CARD else True)
            and (card.mode is CardMode.PASSTHROUGH or (card.mode is CardMode.HOST and demand.container))
            and idle.get(card.address, 0) >= demand.share
        ]
        fits = cpu >= task.cpu_milli and memory >= task.memory_mib and len(good) >= demand.count
        result += task.weight * (sum(value for address, value in idle.items() if address not in good) if fits else total)
    return result


@pytest.mark.heavy
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_fragmentation_and_its_gradient_are_those_of_the_definition(data: st.DataObject) -> None:
    facts = data.draw(some_worlds())
    plain = [one for one in (data.draw(some_requests(f"m{n}")) for n in range(4)) if not one.cards or not one.cards.profile]
    mix = tuple(Task(one.cpu_milli, one.memory_mib, one.cards, number + 1) for number, one in enumerate(plain))
    table = HostTable(facts)
    measure = Fragmentation(table, mix, memory=True)
    at = np.arange(len(table))
    rows = rows_of(table, at)
    idle = [{card.address: CARD for card in host.cards if card.state is CardState.FREE and not host.stale} for host in table.hosts]
    before = [plain_fragment(host, host.cpu_milli, host.memory_mib, idle[row], mix) for row, host in enumerate(table.hosts)]
    assert measure.of(rows).tolist() == before
    request = data.draw(some_requests().filter(lambda one: one.cards is None or one.cards.profile is None))
    reason, rows, fit = filters.refusals(table, request, at, Window())
    for row in np.flatnonzero(reason == 0).tolist():
        host, demand = table.hosts[row], request.cards
        chosen = [address for address, fits in zip(table.addresses[row], fit[row], strict=False) if fits]
        options = [chosen[: demand.count]] if demand and demand.share == CARD else [[one] for one in chosen] if demand else [[]]
        after = []
        for option in options:
            left = {
                address: value - demand.share if demand and address in option else value for address, value in idle[row].items()
            }
            after.append(plain_fragment(host, host.cpu_milli - request.cpu_milli, host.memory_mib - request.memory_mib, left, mix))
        gained, _ = measure.gain(rows.pick(np.array([row])), request, fit[row : row + 1], lambda gained: gained)
        assert gained[0] == before[row] - min(after)


def test_typical_requests_are_the_most_frequent_ones() -> None:
    some = [Request(f"a{n}", 1000, n) for n in range(19)] + [Request("b", 2000, 1)]
    assert [(task.cpu_milli, task.weight) for task in typical(some, 0.95, memory=False)] == [(1000, 19)]
