"""What hosts report: taken in, but never against what is lent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from beamdesk.scheduling.cards import Card, CardMode, CardState, equal_size_vgpu
from beamdesk.scheduling.claims import Claim, Grant, claim, release
from beamdesk.scheduling.decide import Scheduler, decide
from beamdesk.scheduling.errors import InvalidHost
from beamdesk.scheduling.host import HostFacts, NumaNode
from beamdesk.scheduling.policy import make
from beamdesk.scheduling.reports import check_invariants, set_card_state, set_enabled, set_hosts, set_stale
from beamdesk.scheduling.request import CardDemand, Request
from beamdesk.scheduling.state import HostTable

CARDS = tuple(Card(f"c{number}", "A10", 24576, 9216, 600, 1695) for number in range(2))
HOST = HostFacts("h0", 64000, 262144, cards=CARDS)
ONE_CARD = Request("d-9", 1000, 1024, cards=CardDemand(1))


def lent() -> HostTable:
    table = HostTable([HOST])
    claim(table, Claim("d-1", "h0", 1000, 1024, grants=(Grant("c1"),)))
    return table


def test_two_hosts_of_one_name_are_refused_and_the_table_stays() -> None:
    with pytest.raises(InvalidHost, match="Two hosts are named h0"):
        HostTable([HOST, HOST])
    table = lent()
    before = table.digest()
    with pytest.raises(InvalidHost, match="Two hosts are named h0"):
        set_hosts(table, [HOST, replace(HOST, cpu_milli=1)])
    assert table.digest() == before
    assert table.claims.keys() == {"d-1"}


def test_a_lent_card_that_is_no_longer_reported_is_kept_as_failed() -> None:
    table = lent()
    (anomaly,) = set_hosts(table, [replace(HOST, cards=CARDS[:1])])
    assert (anomaly.host, anomaly.kind) == ("h0", "card_gone")
    assert table.addresses[0] == ("c0", "c1")
    release(table, "d-1")
    set_card_state(table, "h0", "c1", CardState.FAILED)
    decision = decide(table, make("beamdesk", table), replace(ONE_CARD, cards=CardDemand(2)))
    assert decision.host is None


def test_a_host_that_is_gone_but_holds_servers_is_kept_switched_off() -> None:
    table = lent()
    (anomaly,) = set_hosts(table, [replace(HOST, name="h1")])
    assert anomaly.kind == "host_gone"
    assert decide(table, make("beamdesk", table), ONE_CARD).host == "h1"
    assert table.claims["d-1"].host == "h0"


def test_capacity_below_what_is_lent_is_named_and_takes_nothing_more() -> None:
    table = lent()
    (anomaly,) = set_hosts(table, [replace(HOST, cpu_milli=500)])
    assert anomaly.kind == "over_capacity"
    assert decide(table, make("heps", table), Request("d-9", 100, 100)).host is None


def test_a_report_cannot_free_what_is_lent_or_dirty() -> None:
    table = lent()
    set_card_state(table, "h0", "c0", CardState.DIRTY)
    assert set_hosts(table, [HOST]) == ()
    assert decide(table, make("beamdesk", table), ONE_CARD).refusals == (("cards_busy", 1),)
    assert check_invariants(table) == []


def test_a_report_that_changes_nothing_keeps_the_digest() -> None:
    table = lent()
    before = table.digest()
    set_hosts(table, [HOST])
    assert table.digest() == before


def test_a_card_divided_anew_under_a_server_gives_nothing_more() -> None:
    cards = (replace(CARDS[0], mode=CardMode.VGPU, geometry=equal_size_vgpu("old", {"Q4": 4})),)
    table = HostTable([replace(HOST, cards=cards)])
    claim(table, Claim("d-1", "h0", 1, 1, grants=(Grant("c0", 250, "Q4", 0),)))
    set_hosts(table, [replace(HOST, cards=(replace(cards[0], geometry=equal_size_vgpu("new", {"Q2": 2})),))])
    assert decide(table, make("beamdesk", table), replace(ONE_CARD, cards=CardDemand(1, profile="Q2"))).host is None
    release(table, "d-1")
    assert check_invariants(table) == []


def test_cards_go_through_cleaning_in_order() -> None:
    table = HostTable([HOST])
    for state in (CardState.DIRTY, CardState.CLEANING, CardState.FREE):
        set_card_state(table, "h0", "c0", state)
    with pytest.raises(InvalidHost, match="cannot go from free to cleaning"):
        set_card_state(table, "h0", "c0", CardState.CLEANING)
    set_card_state(table, "h0", "c0", CardState.FAILED)
    with pytest.raises(InvalidHost, match="cannot go from failed to free"):
        set_card_state(table, "h0", "c0", CardState.FREE)


def test_a_lent_card_cannot_be_set_free_by_hand() -> None:
    with pytest.raises(InvalidHost, match="cannot go from used"):
        set_card_state(lent(), "h0", "c1", CardState.FREE)


def test_a_silent_host_lends_no_cards_but_takes_cpu_desktops() -> None:
    table = HostTable([HOST])
    scheduler = Scheduler(table, make("heps", table))
    assert scheduler.decide(ONE_CARD).host == "h0"
    set_stale(table, "h0", stale=True)
    assert scheduler.decide(ONE_CARD).refusals == (("stale", 1),)
    assert scheduler.decide(Request("d-2", 1000, 1024)).host == "h0"
    set_stale(table, "h0", stale=False)
    assert scheduler.decide(ONE_CARD).host == "h0"


def test_a_host_switched_off_takes_nothing() -> None:
    table = HostTable([HOST])
    set_enabled(table, "h0", enabled=False)
    assert decide(table, make("heps", table), Request("d-2", 1000, 1024)).refusals == (("disabled", 1),)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: HostFacts("", 1, 1),
        lambda: HostFacts("h", -1, 1),
        lambda: HostFacts("h", float("nan"), 1),  # type: ignore[arg-type]
        lambda: HostFacts("h", 1, 1, cards=(CARDS[0], CARDS[0])),
        lambda: HostFacts("h", 10, 10, numa=(NumaNode(5, 5),)),
        lambda: HostFacts("h", 1, 1, cards=(replace(CARDS[0], numa=1),)),
        lambda: replace(CARDS[0], memory_mib=-1),
        lambda: replace(CARDS[0], clock_mhz=float("nan")),
        lambda: replace(CARDS[0], mode=CardMode.MIG),
    ],
)
def test_malformed_hosts_and_cards_are_refused(bad: object) -> None:
    with pytest.raises(InvalidHost):
        bad()  # type: ignore[operator]
