"""Bookings keep away what would run into them, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from beamdesk.scheduling.bookings import Booking, add, remove
from beamdesk.scheduling.cards import Card
from beamdesk.scheduling.claims import Claim, Grant, claim
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.errors import InvalidRequest, NotFree
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.policy import make
from beamdesk.scheduling.request import CardDemand, Request
from beamdesk.scheduling.state import HostTable

CARDS = tuple(Card(f"c{number}", "A10", 24576, 9216, 600, 1695) for number in range(2))
BEAMTIME = Booking("b-1", "h0", 100.0, 200.0, cards=("c0",), cpu_milli=8000, memory_mib=32768)
WANTED = Request("d-1", 8000, 32768, cards=CardDemand(2), until=100.0)


def site() -> tuple[HostTable, Scheduler]:
    table = HostTable([HostFacts("h0", 16000, 65536, cards=CARDS)])
    return table, Scheduler(table, make("beamdesk", table))


def test_a_lease_that_ends_when_the_booking_begins_is_fine_and_one_second_more_is_not() -> None:
    table, scheduler = site()
    add(table, BEAMTIME, now=0.0)
    assert scheduler.decide(WANTED, 0.0).host == "h0"
    assert scheduler.decide(replace(WANTED, until=101.0), 0.0).refusals == (("booked", 1),)
    assert scheduler.decide(replace(WANTED, until=None), 0.0).refusals == (("booked", 1),)
    assert scheduler.decide(replace(WANTED, until=300.0), 200.0).host == "h0"


@pytest.mark.parametrize("cards", [None, CardDemand(2)])
@pytest.mark.parametrize("now", [50.0, 100.0, 150.0])
def test_a_lease_that_is_over_counts_as_open_and_takes_nothing_booked(now: float, cards: CardDemand | None) -> None:
    table, scheduler = site()
    add(table, BEAMTIME, now=0.0)
    over = Request("d-1", 9000, 1024, cards=cards, until=now)
    assert scheduler.decide(over, now).refusals == (("booked", 1),)
    assert scheduler.decide(replace(over, until=None), now).refusals == (("booked", 1),)


def test_a_booked_card_is_not_given_while_its_neighbour_is() -> None:
    table, scheduler = site()
    add(table, BEAMTIME, now=0.0)
    (grant,) = scheduler.decide(replace(WANTED, cards=CardDemand(1), until=150.0), 0.0).grants
    assert grant.address == "c1"


def test_booked_cpu_is_kept_at_every_moment_of_a_lease() -> None:
    table, scheduler = site()
    add(table, BEAMTIME, now=0.0)
    scheduler.place(Request("early", 8000, 1024, until=100.0), 0.0)
    assert scheduler.decide(Request("d", 8000, 1024, until=150.0), 0.0).host == "h0"
    assert scheduler.decide(Request("d", 8001, 1024, until=150.0), 0.0).host is None


def test_who_spends_a_booking_gets_its_cards_and_ends_it() -> None:
    table, scheduler = site()
    add(table, BEAMTIME, now=0.0)
    mine = replace(WANTED, cards=CardDemand(1), until=200.0, booking="b-1")
    decision = scheduler.place(mine, 100.0)
    assert [grant.address for grant in decision.grants] == ["c0"]
    assert table.bookings == {}
    assert scheduler.decide(replace(mine, id="d-2"), 100.0).refusals == (("booked", 1),)


def test_the_time_passes_without_any_change_of_the_table() -> None:
    table, scheduler = site()
    add(table, BEAMTIME, now=0.0)
    wanted = replace(WANTED, until=150.0)
    assert [scheduler.decide(wanted, now).host for now in (0.0, 210.0)] == [None, "h0"]


def test_bookings_do_not_overlap_each_other_or_present_leases() -> None:
    table, _ = site()
    add(table, BEAMTIME, now=0.0)
    with pytest.raises(NotFree, match="c0"):
        add(table, replace(BEAMTIME, id="b-2", start=199.0, end=300.0), now=0.0)
    add(table, replace(BEAMTIME, id="b-3", start=200.0, end=300.0), now=0.0)
    claim(table, Claim("d", "h0", 1000, 1024, grants=(Grant("c1"),), until=150.0))
    with pytest.raises(NotFree, match="c1"):
        add(table, Booking("b-4", "h0", 140.0, 160.0, cards=("c1",)), now=0.0)
    add(table, Booking("b-5", "h0", 150.0, 160.0, cards=("c1",)), now=0.0)
    with pytest.raises(NotFree, match="c9"):
        add(table, Booking("b-6", "h0", 1.0, 2.0, cards=("c9",)), now=0.0)


def test_who_asks_for_no_memory_is_not_short_of_it_where_more_is_promised_than_there_is() -> None:
    table, scheduler = site()
    scheduler.place(Request("late", 1000, 65536, until=10.0), 0.0)
    add(table, Booking("b-1", "h0", 20.0, 30.0, cards=("c0",), memory_mib=1024), now=0.0)
    # At 15 the server has outstayed its lease: with the booking, more memory is promised from 20 on than the host has.
    wanted = Request("d", 1000, 0, cards=CardDemand(1))
    assert [grant.address for grant in scheduler.decide(wanted, 15.0).grants] == ["c1"]
    add(table, Booking("b-2", "h0", 20.0, 30.0, cards=("c1",), cpu_milli=1000), now=15.0)
    with pytest.raises(NotFree, match="CPU and memory"):
        add(table, Booking("b-3", "h0", 20.0, 30.0, memory_mib=1), now=15.0)


def test_removing_a_booking_frees_its_time() -> None:
    table, scheduler = site()
    add(table, BEAMTIME, now=0.0)
    assert remove(table, "b-1") == BEAMTIME
    assert remove(table, "b-1") is None
    assert scheduler.decide(replace(WANTED, until=None), 0.0).host == "h0"


@pytest.mark.parametrize("end", [100.0, 99.0, float("nan"), float("inf")])
def test_a_booking_has_a_finite_time_and_ends_after_it_begins(end: float) -> None:
    with pytest.raises(InvalidRequest):
        Booking("b", "h0", 100.0, end)
