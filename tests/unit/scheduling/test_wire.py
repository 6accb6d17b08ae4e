"""The JSON documents: what is written comes back, replays to the same host, and nothing else is read."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamdesk.scheduling import bookings
from beamdesk.scheduling.cards import MIG_GEOMETRIES, Card, CardMode, CardState
from beamdesk.scheduling.claims import release
from beamdesk.scheduling.decide import Scheduler, decide, same_again
from beamdesk.scheduling.decision import Decision
from beamdesk.scheduling.errors import Malformed, NotFree, SchedulingError
from beamdesk.scheduling.fragment import Task
from beamdesk.scheduling.host import HostFacts, NumaNode
from beamdesk.scheduling.policy import POLICIES, make
from beamdesk.scheduling.reports import set_hosts
from beamdesk.scheduling.request import CardDemand, NumaRule, Request
from beamdesk.scheduling.state import HostTable
from beamdesk.scheduling.wire import (
    Published,
    open_scheduler,
    publish,
    read_decision,
    read_request,
    read_snapshot,
    write_decision,
    write_request,
    write_snapshot,
)
from schedulingkit import some_bookings, some_requests, some_worlds

MANY = settings(deadline=None, suppress_health_check=list(HealthCheck))
MIX = (Task(1, 1, CardDemand(1), 3), Task(2, 1, CardDemand(2, models=frozenset({"T4", "A10"})), 1))


def played(data: st.DataObject, name: str) -> Scheduler:
    """Play a short story, so that there is something of everything."""
    table = HostTable(data.draw(some_worlds()))
    scheduler = Scheduler(table, make(name, table, MIX))
    for number in range(data.draw(st.integers(0, 2))):
        with contextlib.suppress(NotFree):
            bookings.add(table, data.draw(some_bookings(number)), 0.0)
    for number in range(data.draw(st.integers(0, 6))):
        scheduler.place(data.draw(some_requests(f"r{number}")), 0.5)
    if table.claims and data.draw(st.booleans()):
        release(table, min(table.claims))
    return scheduler


@MANY
@given(st.data())
def test_a_snapshot_comes_back_and_decides_the_same(data: st.DataObject) -> None:
    scheduler = played(data, data.draw(st.sampled_from(sorted(POLICIES))))
    published = publish(scheduler.table, 7.25, scheduler.policy.name, MIX)
    again = read_snapshot(write_snapshot(published))
    assert again == published
    other = open_scheduler(again)
    request = data.draw(some_requests("new"))
    assert other.decide(request, 8.0) == scheduler.decide(request, 8.0)


@MANY
@given(st.data())
def test_a_decision_comes_back_and_replays_to_the_same_host(data: st.DataObject) -> None:
    scheduler = played(data, "beamdesk")
    decision = scheduler.decide(data.draw(some_requests("new")), 9)
    stored = read_decision(write_decision(decision))
    assert stored == decision
    table = open_scheduler(read_snapshot(write_snapshot(publish(scheduler.table, 9, mix=MIX)))).table
    policy = make("beamdesk", table, MIX)
    assert decide(table, policy, stored.request, stored.now).host == decision.host
    assert same_again(stored, table, policy) or not decision.ranking


@MANY
@given(some_requests())
def test_a_request_comes_back(request: Request) -> None:
    assert read_request(write_request(request)) == request


def a_site() -> Scheduler:
    card = Card("0000:3b:00.0", "A30", 24576, 3584, 933, 1440, mode=CardMode.MIG, geometry=MIG_GEOMETRIES["A30"])
    plain = Card("0000:5e:00.0", "A10", 24576, 9216, 600, 1695, numa=1)
    host = HostFacts("gpu-1", 8000, 8192, 100, (card, plain), (NumaNode(4000, 4096), NumaNode(4000, 4096)))
    table = HostTable([host, HostFacts("cpu-1", 8000, 8192, aggregates=frozenset({"B7"}))])
    scheduler = Scheduler(table, make("beamdesk", table, MIX))
    scheduler.place(Request("d-1", 1000, 1024, cards=CardDemand(1, profile="1g.6gb"), until=50.5), 1.0)
    scheduler.place(Request("d-2", 1000, 1024, cards=CardDemand(1, models=frozenset({"A10"})), numa=NumaRule.STRICT), 1.0)
    bookings.add(table, bookings.Booking("b-1", "gpu-1", 60, 90, ("0000:3b:00.0",)), 1.0)
    return scheduler


SITE = json.loads(write_snapshot(publish(a_site().table, 3.0, mix=MIX)))
DECISION = json.loads(write_decision(a_site().decide(Request("d-3", 1000, 1024), 3.0)))

WRONG: list[tuple[tuple[str | int, ...], Any]] = [
    (("format",), "something-else"),
    (("version",), 2),
    (("version",), True),
    (("surprise",), 1),
    (("at",), float("nan")),
    (("at",), float("inf")),
    (("at",), "3"),
    (("digest",), "12"),
    (("digest",), "Z" * 16),
    (("policy",), ""),
    (("mix",), {}),
    (("mix", 0, "weight"), -1),
    (("mix", 0, "cards", "count"), 0),
    (("geometries", 0, "slots"), 63),
    (("geometries", 0, "profiles", 0, "starts", 0), -1),
    (("hosts",), None),
    (("hosts", 0), []),
    (("hosts", 0, "cpu_milli"), -1),
    (("hosts", 0, "cpu_milli"), 1.0),
    (("hosts", 0, "cpu_milli"), True),
    (("hosts", 0, "cpu_milli"), 1 << 60),
    (("hosts", 0, "memory_mib"), float("nan")),
    (("hosts", 0, "memory_mib"), "8192"),
    (("hosts", 0, "name"), ""),
    (("hosts", 0, "name"), "a\nb"),
    (("hosts", 0, "name"), "gpu-1"),
    (("hosts", 0, "gpus"), 1),
    (("hosts", 0, "enabled"), 1),
    (("hosts", 0, "aggregates"), ["B7", "B7"]),
    (("hosts", 0, "aggregates"), [["B7"]]),
    (("hosts", 1, "numa", 0, "cpu_milli"), 1),
    (("hosts", 1, "cards", 0, "state"), "quite free"),
    (("hosts", 1, "cards", 0, "geometry"), 1),
    (("hosts", 1, "cards", 0, "geometry"), -1),
    (("hosts", 1, "cards", 0, "geometry"), "A30"),
    (("hosts", 1, "cards", 0, "geometry"), None),
    (("hosts", 1, "cards", 0, "address"), "0000:5e:00.0"),
    (("hosts", 1, "cards", 1, "numa"), 2),
    (("hosts", 1, "cards", 1, "memory_mib"), -5),
    (("claims", 0, "host"), "elsewhere"),
    (("claims", 0, "id"), "d-2"),
    (("claims", 0, "node"), -1),
    (("claims", 0, "until"), float("nan")),
    (("claims", 0, "charges"), [[0, 1000]]),
    (("claims", 0, "charges"), [[2, 1000, 1024]]),
    (("claims", 0, "charges"), [[0, 999, 1024]]),
    (("claims", 0, "charges"), [[0, -1, 1024]]),
    (("claims", 0, "cpu_milli"), -1000),
    (("claims", 0, "grants", 0, "milli"), 0),
    (("claims", 0, "grants", 0, "milli"), 1001),
    (("claims", 0, "grants", 0, "start"), 62),
    (("claims", 0, "grants", 0, "wish"), 1),
    (("claims", 0), 3),
    (("bookings", 0, "end"), 60),
    (("bookings", 0, "start"), float("-inf")),
    (("bookings", 0, "cards"), ["x", "x"]),
]


def changed(document: dict[str, Any], path: tuple[str | int, ...], value: Any) -> str:
    wrong = copy.deepcopy(document)
    at: Any = wrong
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return json.dumps(wrong)


@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda value: str(value)[:40])
def test_a_snapshot_with_one_wrong_value_is_refused(path: tuple[str | int, ...], value: Any) -> None:
    with pytest.raises(Malformed):
        read_snapshot(changed(SITE, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 0),
        (("policy",), None),
        (("state",), 5),
        (("now",), float("nan")),
        (("possible",), -1),
        (("possible",), 1.5),
        (("node",), -1),
        (("ranking", 0, "total"), "much"),
        (("ranking", 0, "total"), float("nan")),
        (("ranking", 0, "contributions", 0), ["fragment"]),
        (("refusals",), [["cpu", -1]]),
        (("request", "cpu_milli"), -1),
        (("request", "numa"), "maybe"),
        (("request", "more"), 1),
        (("more",), 1),
    ],
    ids=str,
)
def test_a_decision_with_one_wrong_value_is_refused(path: tuple[str | int, ...], value: Any) -> None:
    with pytest.raises(Malformed):
        read_decision(changed(DECISION, path, value))


@pytest.mark.parametrize("key", sorted(SITE))
def test_a_snapshot_without_one_of_its_keys_is_refused(key: str) -> None:
    with pytest.raises(Malformed):
        read_snapshot(json.dumps({name: value for name, value in SITE.items() if name != key}))


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "[" * 100_000, '{"at":1,"at":2}', b"\xff", '{"format":NaN}'])
def test_what_is_no_document_is_refused(text: str | bytes) -> None:
    for read in (read_snapshot, read_decision, read_request):
        with pytest.raises(Malformed):
            read(text)


def test_a_key_said_twice_is_refused_however_deep() -> None:
    twice = json.dumps(SITE).replace('"id": "d-1"', '"id": "d-1", "id": "d-1"')
    with pytest.raises(Malformed, match="twice"):
        read_snapshot(twice)


def test_a_document_that_is_too_long_is_refused() -> None:
    with pytest.raises(Malformed, match="longer"):
        read_snapshot(json.dumps(SITE), most=100)


def test_an_error_names_the_path() -> None:
    with pytest.raises(Malformed, match=r"hosts\[1\]\.cards\[1\]\.memory_mib") as caught:
        read_snapshot(changed(SITE, ("hosts", 1, "cards", 1, "memory_mib"), -5))
    assert caught.value.field == "hosts[1].cards[1].memory_mib"


def test_a_state_that_was_tampered_with_does_not_open() -> None:
    published = read_snapshot(changed(SITE, ("claims", 0, "disk_gib"), 7))
    with pytest.raises(Malformed, match="digest"):
        open_scheduler(published)


def test_a_policy_that_is_not_known_here_does_not_open() -> None:
    with pytest.raises(SchedulingError, match="no policy"):
        open_scheduler(read_snapshot(changed(SITE, ("policy",), "best")))


def test_geometries_are_written_once() -> None:
    card = {"mode": CardMode.MIG, "geometry": MIG_GEOMETRIES["A30"]}
    cards = tuple(Card(f"c{number}", "A30", 24576, 3584, 933, 1440, **card) for number in range(8))  # type: ignore[arg-type]
    published = publish(HostTable([HostFacts("a", 1, 1, cards=cards), HostFacts("b", 1, 1, cards=cards)]), 0)
    assert write_snapshot(published).count('"1g.6gb"') == 1
    assert read_snapshot(write_snapshot(published)) == published


def test_a_lent_card_that_is_no_longer_reported_is_published_as_failed() -> None:
    scheduler = a_site()
    set_hosts(scheduler.table, [HostFacts("gpu-1", 8000, 8192, 100), HostFacts("cpu-1", 8000, 8192)])
    again = read_snapshot(write_snapshot(publish(scheduler.table, 1)))
    cards = next(host for host in again.snapshot.hosts if host.name == "gpu-1").cards
    assert {card.state for card in cards} == {CardState.FAILED}
    assert open_scheduler(again).table.claims.keys() == {"d-1", "d-2"}


def test_what_is_infinite_is_not_written() -> None:
    with pytest.raises(SchedulingError):
        Published(publish(HostTable([]), 0).snapshot, float("inf"))
    with pytest.raises(ValueError, match="JSON"):
        write_decision(Decision("beamdesk", Request("d", 1, 1), float("nan"), 0))
