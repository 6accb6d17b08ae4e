"""Slots: what can be promised when, and the nearest slot that has room; compared with trying every moment."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamdesk.scheduling import bookings
from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.cards import Card, CardState
from beamdesk.scheduling.claims import Claim, Grant, restore
from beamdesk.scheduling.host import HostFacts, NumaNode
from beamdesk.scheduling.request import CardDemand, NumaRule, Request
from beamdesk.scheduling.slots import STEP, find, nearest
from beamdesk.scheduling.state import HostTable

ONE = Request("new", 2000, 4096, cards=CardDemand(1))


def card(number: int, **more: object) -> Card:
    return Card(f"c{number}", "A10", 24576, 9216, 600, 1695, **more)  # type: ignore[arg-type]


def host(name: str = "h", cards: int = 2, **more: object) -> HostFacts:
    return HostFacts(name, 16000, 65536, 500, tuple(card(number) for number in range(cards)), **more)  # type: ignore[arg-type]


def lent(table: HostTable, address: str, until: float | None, name: str = "d") -> None:
    restore(table, Claim(f"{name}-{address}", table.names[0], 1000, 1024, grants=(Grant(address),), until=until))


def test_each_server_gets_cards_of_its_own_and_the_table_is_as_before() -> None:
    table = HostTable([host()])
    before = table.digest()
    found = find(table, ONE, 3, 100, 200, 0)
    assert [(one.host, one.cards) for one in found] == [("h", ("c0",)), ("h", ("c1",))]
    assert table.digest() == before


def test_the_tightest_host_is_filled_first() -> None:
    table = HostTable([host("a", 4), host("b", 1)])
    assert [one.host for one in find(table, ONE, 2, 100, 200, 0)] == ["b", "a"]


@pytest.mark.parametrize(("until", "possible"), [(100, 2), (101, 1), (None, 1)])
def test_a_lease_that_runs_into_the_slot_keeps_its_card(until: float | None, possible: int) -> None:
    table = HostTable([host()])
    lent(table, "c0", until)
    assert len(find(table, ONE, 2, 100, 200, 0)) == possible


@pytest.mark.parametrize(
    ("state", "start", "possible"),
    [
        (CardState.DIRTY, 100, 1),
        (CardState.CLEANING, 100, 1),
        (CardState.DIRTY, 0, 0),
        (CardState.FAILED, 100, 0),
        (CardState.USED, 100, 0),
    ],
)
def test_a_card_that_will_be_clean_may_be_promised_for_later_only(state: CardState, start: float, possible: int) -> None:
    one = host(cards=1)
    table = HostTable([replace(one, cards=(replace(one.cards[0], state=state),))])
    assert len(find(table, ONE, 1, start, 200, 0)) == possible


def test_hosts_are_for_whom_they_are() -> None:
    table = HostTable([host("a", aggregates=frozenset({"B7"}), dedicated=True), host("b", enabled=False)])
    assert find(table, ONE, 1, 100, 200, 0) == ()
    assert [one.host for one in find(table, replace(ONE, aggregates=frozenset({"B7"})), 1, 100, 200, 0)] == ["a"]


def test_cards_of_one_server_lie_on_one_node_where_there_is_one_and_must_where_it_says_so() -> None:
    nodes = (NumaNode(8000, 32768), NumaNode(8000, 32768))
    spread = HostFacts("h", 16000, 65536, 500, (card(0, numa=0), card(1, numa=1), card(2, numa=1)), nodes)
    two = replace(ONE, cards=CardDemand(2))
    assert find(HostTable([spread]), two, 1, 100, 200, 0)[0].cards == ("c1", "c2")
    split = HostFacts("h", 16000, 65536, 500, (card(0, numa=0), card(1, numa=1)), nodes)
    assert find(HostTable([split]), two, 1, 100, 200, 0)[0].cards == ("c0", "c1")
    assert find(HostTable([split]), replace(two, numa=NumaRule.STRICT), 1, 100, 200, 0) == ()


def test_the_nearest_slot_begins_where_a_lease_or_a_booking_ends_or_ends_where_one_begins() -> None:
    table = HostTable([host(cards=1)])
    bookings.add(table, Booking("b", "h", 6000, 12000, ("c0",)), 0)
    assert nearest(table, ONE, 1, 9000, 3000, 0, 10**6) == 12000
    assert nearest(table, ONE, 1, 6600, 3000, 0, 10**6) == 3000
    lent(table, "c0", 4000)
    assert nearest(table, ONE, 1, 6600, 3000, 0, 10**6) == 12000
    assert nearest(table, ONE, 1, 3000, 1200, 0, 10**6) == 4200, "five minutes are whole"


def test_where_there_never_is_room_no_slot_is_proposed() -> None:
    table = HostTable([host(cards=1)])
    lent(table, "c0", None)
    assert nearest(table, ONE, 1, 9000, 3000, 0, 10**6) is None
    assert nearest(table, replace(ONE, cards=CardDemand(2)), 1, 9000, 3000, 0, 10**6) is None


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_slot_nearer_than_the_proposed_one_has_room(data: st.DataObject) -> None:
    step, steps = int(STEP), st.integers(0, 30)
    table = HostTable([host("h", 2), host("i", 1)])
    for number in range(data.draw(st.integers(0, 4))):
        start = data.draw(steps) * step
        name, address = data.draw(st.sampled_from([("h", "c0"), ("h", "c1"), ("i", "c0")]))
        bookings.restore(table, Booking(f"b{number}", name, start, start + step * data.draw(st.integers(1, 12)), (address,)))
    if data.draw(st.booleans()):
        lent(table, "c1", data.draw(st.sampled_from([None, 1500.0, 4500.0])))
    count, length = data.draw(st.integers(1, 3)), step * data.draw(st.integers(1, 8))
    wanted = data.draw(steps) * step

    def room(at: int) -> bool:
        return len(find(table, ONE, count, at, at + length, 0)) == count

    if room(wanted):
        return
    proposed = nearest(table, ONE, count, wanted, length, 0, 200 * step)
    possible = [at for at in range(0, 100 * step, step) if room(at)]
    best = min((abs(at - wanted) for at in possible), default=None)
    assert (None if proposed is None else abs(proposed - wanted)) == best
