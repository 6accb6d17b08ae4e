"""The line over hosts, and when those could run who wait or would ask now; compared with trying every moment."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamdesk.scheduling import bookings, line
from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.cards import Card, CardState
from beamdesk.scheduling.claims import release
from beamdesk.scheduling.decide import Scheduler, decide
from beamdesk.scheduling.future import Chance, chances, expected
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.line import Asked, own, walk
from beamdesk.scheduling.policy import Policy, make
from beamdesk.scheduling.request import CardDemand, Request
from beamdesk.scheduling.snapshot import open_table, take
from beamdesk.scheduling.state import HostTable
from schedulingkit import some_requests, some_worlds

EXTENSION = 40.0
ONE = Request("new", 1000, 1024, cards=CardDemand(1), until=100.0)


def policy(table: HostTable) -> Policy:
    return make("beamdesk", table)


def host(name: str, cards: int, cpus: int = 64) -> HostFacts:
    own_cards = tuple(Card(f"c{number}", "A10", 24576, 9216, 600, 1695) for number in range(cards))
    return HostFacts(name, cpus * 1000, 65536, 500, own_cards)


def a_site(*untils: float | None, cards: int = 2) -> HostTable:
    """Return one host with cards, the first of them lent until then."""
    table = HostTable([host("h", cards)])
    scheduler = Scheduler(table, policy(table))
    for number, until in enumerate(untils):
        assert scheduler.place(replace(ONE, id=f"d{number}", until=until), 0.0).host == "h"
    return table


def chance(table: HostTable, *probes: Request, waiting: tuple[Request, ...] = (), now: float = 10.0) -> dict[str, Chance]:
    asked = [own(table, one, (), now) for one in probes]
    return chances(take(table), policy, [Asked(one) for one in waiting], asked, now, EXTENSION)


def times(table: HostTable, *probes: Request, **more: object) -> list[tuple[float | None, float | None]]:
    found = chance(table, *probes, **more)  # type: ignore[arg-type]
    return [(found[one.id].at, found[one.id].by) for one in probes]


def test_who_fits_now_can_have_it_now_for_sure() -> None:
    assert times(a_site(50.0), ONE) == [(10.0, 10.0)]


def test_the_first_lease_that_ends_is_the_time_and_its_extension_the_doubt() -> None:
    table = a_site(50.0, 80.0)
    assert times(table, ONE) == [(50.0, 80.0)], "by 80 the other lease ends, though the first is extended to 90"
    assert times(a_site(50.0, cards=1), ONE) == [(50.0, 90.0)]
    assert times(table, replace(ONE, cards=CardDemand(2))) == [(80.0, 120.0)]
    assert table.claims.keys() == {"d0", "d1"}, "the table is as before"


def test_a_booking_that_ends_is_sure() -> None:
    table = a_site(cards=1)
    bookings.add(table, Booking("b.0", "h", 5.0, 60.0, ("c0",)), 0.0)
    assert times(table, ONE) == [(60.0, 60.0)]


def test_what_no_lease_tells_has_no_time_and_what_can_never_be_says_so() -> None:
    table = a_site(None, cards=1)
    assert times(table, ONE) == [(None, None)]
    found = chance(table, ONE, replace(ONE, id="huge", cards=CardDemand(3)))
    assert [found[name].never for name in ("new", "huge")] == [False, True]
    assert found["new"].answer.lacking == ("gpus",)


def test_a_lease_keeps_its_length_while_it_waits() -> None:
    table = a_site(50.0, cards=1)
    bookings.add(table, Booking("b.0", "h", 120.0, 200.0, ("c0",)), 0.0)
    assert times(table, replace(ONE, until=60.0)) == [(50.0, 200.0)], "extended once, its lease of 50 would run into the booking"
    assert times(table, replace(ONE, until=110.0)) == [(200.0, 200.0)], "100 from 50 on would run into the booking"


def test_those_who_wait_come_first() -> None:
    table, waits = a_site(50.0, 80.0), replace(ONE, id="waits", until=30.0)
    assert times(table, ONE, waiting=(waits,)) == [(70.0, 90.0)], "who waits has a card for 20 first"
    found = chance(a_site(50.0), ONE, waiting=(replace(waits, cards=CardDemand(2)),))
    assert (found["new"].answer.lacking, found["new"].answer.behind) == (("gpus",), True)


def test_a_request_without_cards_is_not_behind_one_that_waits_for_cards() -> None:
    waits = replace(ONE, id="waits")
    assert times(a_site(50.0, 80.0), replace(ONE, cards=None), waiting=(waits,)) == [(10.0, 10.0)]


def test_own_bookings_keep_nobody_away() -> None:
    table = a_site(cards=1)
    bookings.add(table, Booking("b.0", "h", 20.0, 60.0, ("c0",)), 0.0)
    asked = [own(table, ONE, ("b",), 10.0)]
    assert chances(take(table), policy, [], asked, 10.0, EXTENSION)["new"].at == 10.0


def test_who_is_in_the_line_is_told_its_time_and_who_is_behind_a_later_one() -> None:
    table = a_site(50.0, cards=1)
    first, second = (Asked(replace(ONE, id=name, until=40.0)) for name in ("first", "second"))
    assert expected(take(table), policy, [first, second], "first", 10.0) == 50.0
    assert expected(take(table), policy, [first, second], "second", 10.0) == 80.0


def test_walking_the_line_lends_what_it_says() -> None:
    table = a_site(cards=2)
    walked = walk(Scheduler(table, policy(table)), [Asked(replace(ONE, id=f"r{number}")) for number in range(3)], 10.0)
    assert [walked.answers[f"r{number}"].lacking for number in range(3)] == [(), (), ("gpus",)]
    assert set(table.claims) == {"r0", "r1"}
    assert walked.reserved == {"h": {"gpus"}}


def test_who_waits_holds_up_others_only_on_hosts_that_are_suited_to_it() -> None:
    table = HostTable([host("cpu", 0, cpus=4), host("gpu", 1, cpus=4)])
    scheduler = Scheduler(table, policy(table))
    cpu = Request("cpu-1", 2000, 2048, until=100.0)
    scheduler.place(replace(ONE, id="has", cpu_milli=4000, until=50.0), 0.0)
    waits = replace(ONE, id="waits", cpu_milli=4000)
    walked = walk(scheduler, [Asked(waits), Asked(cpu), Asked(replace(cpu, id="cpu-2")), Asked(replace(cpu, id="cpu-3"))], 10.0)
    assert (walked.answers["waits"].lacking, walked.reserved["gpu"]) == (("gpus",), {"gpus"})
    assert [walked.answers[f"cpu-{number}"].decision.host for number in (1, 2)] == ["cpu", "cpu"]
    assert walked.answers["cpu-3"].lacking == ("vcpus",)


def test_who_waits_for_memory_beside_a_free_card_is_told_so_and_has_it_reserved() -> None:
    table = HostTable([host("gpu", 2)])
    scheduler = Scheduler(table, policy(table))
    scheduler.place(replace(ONE, id="has", memory_mib=60000, until=50.0), 0.0)
    waits, small = replace(ONE, id="waits", memory_mib=10000), replace(ONE, id="small")
    walked = walk(scheduler, [Asked(waits), Asked(small)], 10.0)
    assert (walked.answers["waits"].lacking, walked.answers["small"].lacking) == (("memory_mib",), ("memory_mib",))
    assert (walked.answers["small"].behind, walked.place("small")) == (True, 2)


def test_a_booked_part_is_taken_past_those_who_wait() -> None:
    table = HostTable([host("gpu", 2)])
    bookings.add(table, Booking("b.0", "gpu", 0.0, 60.0, ("c0",)), 0.0)
    waits = Asked(replace(ONE, id="waits", cards=CardDemand(2)))
    mine = own(table, replace(ONE, id="mine", until=40.0), ("b",), 10.0)
    walked = walk(Scheduler(table, policy(table)), [waits, mine, Asked(replace(ONE, id="other"))], 10.0)
    assert walked.answers["mine"].decision.grants[0].address == "c0"
    assert [walked.answers[name].lacking for name in ("waits", "mine", "other")] == [("booked",), (), ()]


def test_parts_of_a_booking_are_spent_one_after_another() -> None:
    table = a_site(cards=2)
    scheduler = Scheduler(table, policy(table))
    for number in range(2):
        bookings.add(table, Booking(f"b.{number}", "h", 0.0, 60.0, (f"c{number}",)), 0.0)
    spent = []
    for number in range(3):
        decision = line.decide(scheduler, own(table, replace(ONE, id=f"r{number}"), ("b", "a"), 10.0), 10.0)
        spent.append(decision.request.booking if decision.host else None)
        if decision.host:
            line.take(table, decision)
    assert spent == ["b.0", "b.1", None]
    assert table.bookings == {}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_earlier_moment_has_room_for_a_request(data: st.DataObject) -> None:
    facts = data.draw(some_worlds())
    table = HostTable(facts)
    scheduler = Scheduler(table, policy(table))
    for number in range(data.draw(st.integers(0, 6))):
        scheduler.place(replace(data.draw(some_requests(f"d{number}")), until=data.draw(st.none() | st.integers(11, 30))), 0.0)
    probe = replace(data.draw(some_requests("probe")), group=None, until=data.draw(st.none() | st.integers(11, 40)))
    found = chances(take(table), policy, [], [own(table, probe, (), 10.0)], 10.0, EXTENSION)["probe"]
    brute = None
    for at in sorted({10.0, *(claim.until for claim in table.claims.values() if claim.until is not None)}):
        copy = open_table(take(table))
        for claim in list(copy.claims.values()):
            if claim.until is not None and claim.until <= at:
                release(copy, claim.id, leave=CardState.FREE)
        until = None if probe.until is None else probe.until + at - 10.0
        if decide(copy, policy(copy), replace(probe, until=until), at).host is not None:
            brute = at
            break
    assert found.at == brute
    assert found.by is None or found.at is None or found.at <= found.by <= found.at + EXTENSION + 20


def test_an_estimate_that_would_take_too_long_is_not_made() -> None:
    table = a_site(*(100.0 + number for number in range(60)), cards=60)
    wants_all = replace(ONE, cards=CardDemand(60))
    waiting = [Asked(replace(wants_all, id=f"w{number}")) for number in range(10)]
    assert expected(take(table), policy, waiting[:1], "w0", 10.0) == 159.0
    assert expected(take(table), policy, waiting, "w9", 10.0) is None
