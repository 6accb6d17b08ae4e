"""Plugin and core decide the same, one by one, over traces in which servers come and go."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from beamdesk.plugins.nova.asked import read
from beamdesk.plugins.nova.engine import Engine
from beamdesk.plugins.nova.journal import Journal
from beamdesk.plugins.nova.options import Options
from beamdesk.plugins.nova.seen import look, offers
from beamdesk.scheduling import bookings, line
from beamdesk.scheduling.bookings import Booking
from beamdesk.scheduling.cards import CardState
from beamdesk.scheduling.claims import claim
from beamdesk.scheduling.errors import NotFree
from novakit import Site, card, flavor, host, spec

OPTIONS = Options(api_url="https://beamdesk.example", credential_file="/nowhere", settle=0.0)
KINDS = (
    (flavor(4, 8192), 0),
    (flavor(16, 65536), 0),
    (flavor(8, 32768, beamdesk__gpus="1"), 1),
    (flavor(8, 32768, beamdesk__gpu_memory_mib="30000"), 1),
    (flavor(16, 65536, beamdesk__gpus="2", beamdesk__numa="prefer"), 2),
    (flavor(8, 16384, beamdesk__gpu_models="T4"), 1),
)


def site(policy: str) -> Site:
    hosts = [host(f"cpu-{number}") for number in range(4)]
    hosts += [host(f"a100-{number}", cards=tuple(card(one) for one in range(4))) for number in range(3)]
    hosts += [host(f"t4-{number}", cpus=32, memory=262144, cards=tuple(card(one, "T4") for one in range(4))) for number in range(3)]
    return Site(hosts, policy)


def judge(engine: Engine, world: Site, request: object) -> tuple[object, list[object]]:
    asked, states = read(request), world.offered(request)
    return engine.judge(
        asked, [look(one) for one in states], {one.host: offers(one) for one in states} if asked.devices else {}
    ), states


@pytest.mark.heavy
@pytest.mark.parametrize("policy", ["beamdesk", "heps", "fgd", "nova-default", "best-fit"])
@pytest.mark.parametrize("seed", range(3))
def test_plugin_and_core_choose_the_same_host_and_cards_throughout(policy: str, seed: int) -> None:
    chance, world = random.Random(seed), site(policy)
    source = SimpleNamespace(held=world.confirmed)
    engine = Engine(OPTIONS, source, Journal("", 0), lambda: world.now)
    compared = placed = 0
    for number in range(250):
        world.now += 1
        if world.running and chance.random() < 0.4:
            world.now += 31  # a server that came and went between two requests is expected for half a minute
            world.end(chance.choice(list(world.running)))
            world.clean(chance)
            world.publish()
        elif chance.random() < 0.3:
            world.publish()
        chosen, devices = chance.choice(KINDS)
        request = spec(number, chosen, devices)
        verdict, _ = judge(engine, world, request)
        expected = world.core.decide(read(request).request, world.now)
        compared += 1
        decision = verdict.decision
        assert (decision.host, decision.grants, decision.node) == (expected.host, expected.grants, expected.node), (
            f"decision {number}"
        )
        assert [one.host for one in decision.ranking] == [one.host for one in expected.ranking]
        if expected.host is not None:
            assert decision.ranking == expected.ranking
            claim(world.table, expected.claim())
            world.build(request, expected.host, tuple(one.address for one in expected.grants))
            placed += 1
    assert compared == 250
    assert 100 < placed < 250, "a trace in which nothing is full, or nothing fits, shows little"


def a_promise(chance: random.Random, world: Site, number: int) -> None:
    """Book some cards of one host for some time, if they can be promised then."""
    name = chance.choice([host for host in world.table.names if not host.startswith("cpu")])
    start = world.now + chance.choice([0, 200, 2000])
    addresses = world.table.addresses[world.table.row[name]]
    cards = tuple(sorted(chance.sample(addresses, chance.choice([1, 1, 2]))))
    with contextlib.suppress(NotFree):
        bookings.add(world.table, Booking(f"b{number}.0", name, start, start + 1500, cards, 8000, 32768), world.now)


@pytest.mark.heavy
@pytest.mark.parametrize("policy", ["beamdesk", "heps", "nova-default"])
@pytest.mark.parametrize("seed", range(4))
def test_plugin_and_core_honour_and_spend_bookings_alike(policy: str, seed: int) -> None:
    chance, world = random.Random(100 + seed), site(policy)
    engine = Engine(OPTIONS, SimpleNamespace(held=world.confirmed), Journal("", 0), lambda: world.now)
    spent = refused = 0
    for number in range(200):
        world.now += 10
        for past in [one.id for one in world.table.bookings.values() if one.end <= world.now]:
            bookings.remove(world.table, past)
        if chance.random() < 0.25:
            a_promise(chance, world, number)
        if world.running and chance.random() < 0.45:
            world.now += 31
            world.end(chance.choice(list(world.running)))
            world.clean(chance)
        world.publish()
        names = sorted({one.id.partition(".")[0] for one in world.table.bookings.values()})
        mine = "|".join(chance.sample(names, min(len(names), chance.choice([1, 2])))) if chance.random() < 0.5 else ""
        until = chance.choice([0, int(world.now) + 150, int(world.now) + 1000])
        hints = {"beamdesk_booking": [mine]} if mine else {}
        chosen, devices = chance.choice(KINDS)
        request = spec(number, chosen, devices, hints | ({"beamdesk_until": [str(until)]} if until else {}))
        verdict, states = judge(engine, world, request)
        asked = read(request)
        expected = line.decide(world.core, line.own(world.table, asked.request, asked.bookings, world.now), world.now)
        decision = verdict.decision
        assert (decision.host, decision.grants, decision.node) == (expected.host, expected.grants, expected.node), number
        assert (decision.ranking, decision.request.booking) == (expected.ranking, expected.request.booking), number
        assert dict(decision.refusals).get("booked", 0) >= dict(expected.refusals).get("booked", 0)
        refused += bool(dict(expected.refusals).get("booked"))
        if expected.host is None:
            continue
        if expected.grants:
            named = offers(next(one for one in states if one.host == expected.host))
            assert named is not None
            assert set(named[verdict.offers[expected.host][0]]) == {one.address for one in expected.grants}
        spent += expected.request.booking is not None
        line.take(world.table, expected)
        world.build(request, expected.host, tuple(one.address for one in expected.grants))
    assert spent > 3, "a trace in which no booking is spent shows little"
    assert refused > 20, "a trace in which no booking is in the way shows little"


def test_a_booked_card_is_kept_from_a_lease_that_runs_into_it_and_given_to_who_spends_it() -> None:
    world = Site([host("a", cards=(card(0),))])
    bookings.add(world.table, Booking("b1.0", "a", world.now + 100, world.now + 200, (card(0).address,)), world.now)
    world.publish()
    engine = Engine(OPTIONS, SimpleNamespace(held=world.confirmed), Journal("", 0), lambda: world.now)

    def hosts_for(**hints: str) -> tuple[str, ...]:
        request = spec(1, flavor(beamdesk__gpus="1"), 1, {f"beamdesk_{name}": [text] for name, text in hints.items()})
        asked, states = read(request), world.offered(request)
        named = {one.host: offers(one) for one in states}
        return engine.judge(
            replace(asked, request=replace(asked.request, id=str(hints))), [look(one) for one in states], named
        ).hosts

    into = str(int(world.now) + 150)
    assert hosts_for() == ()
    assert hosts_for(until=into) == ()
    assert hosts_for(until=into, booking="b2") == ()
    world.now += 110
    world.publish()
    assert hosts_for(until=into) == ()
    assert hosts_for(until=into, booking="b2|b1") == ("a",)


def test_a_lease_that_ends_before_a_booking_gets_its_card() -> None:
    world = Site([host("a", cards=(card(0),))])
    bookings.add(world.table, Booking("b1.0", "a", world.now + 100, world.now + 200, (card(0).address,)), world.now)
    world.publish()
    engine = Engine(OPTIONS, SimpleNamespace(held=world.confirmed), Journal("", 0), lambda: world.now)
    ends = {"beamdesk_until": [str(int(world.now) + 100)]}
    verdict, _ = judge(engine, world, spec(1, flavor(beamdesk__gpus="1"), 1, ends))
    assert verdict.hosts == ("a",)


def test_what_is_booked_of_cpu_is_kept_from_desktops_without_cards() -> None:
    world = Site([host("a", cpus=16, cards=(card(0),))], policy="heps")
    bookings.add(world.table, Booking("b1.0", "a", world.now + 100, world.now + 200, (card(0).address,), 10_000, 0), world.now)
    world.publish()
    engine = Engine(OPTIONS, SimpleNamespace(held=world.confirmed), Journal("", 0), lambda: world.now)
    for until, hosts in ((str(int(world.now) + 50), ("a",)), (str(int(world.now) + 150), ())):
        request = spec(int(until), flavor(8, 8192), 0, {"beamdesk_until": [until]})
        verdict, _ = judge(engine, world, request)
        assert verdict.hosts == hosts


def test_a_burst_is_decided_as_if_nova_had_told_of_each_server_at_once() -> None:
    world = site("beamdesk")
    engine = Engine(OPTIONS, SimpleNamespace(held=world.confirmed), Journal("", 0), lambda: world.now)
    chosen, devices = KINDS[4]
    for number in range(6):
        request = spec(number, chosen, devices)
        verdict, _ = judge(engine, world, request)
        expected = world.core.place(read(request).request, world.now)
        assert (verdict.decision.host, verdict.decision.grants) == (expected.host, expected.grants), number


def test_the_first_offer_of_the_best_host_has_the_cards_of_the_core() -> None:
    world = site("beamdesk")
    engine = Engine(OPTIONS, SimpleNamespace(held=world.confirmed), Journal("", 0), lambda: world.now)
    verdict, states = judge(engine, world, spec(1, *KINDS[4]))
    best = next(one for one in states if one.host == verdict.decision.host)
    named = offers(best)
    assert named is not None
    assert set(named[verdict.offers[best.host][0]]) == {one.address for one in verdict.decision.grants}


@pytest.mark.parametrize("state", [CardState.DIRTY, CardState.CLEANING, CardState.FAILED])
def test_what_is_not_free_in_the_records_is_never_offered(state: CardState) -> None:
    bad = host("a", cards=(card(0, state=state), card(1), card(2, state=state)))
    world = Site([bad, host("b", cards=(card(0, state=state),))])
    engine = Engine(OPTIONS, SimpleNamespace(held=world.confirmed), Journal("", 0), lambda: world.now)
    verdict, states = judge(engine, world, spec(1, flavor(beamdesk__gpus="1"), 1))
    assert verdict.hosts == ("a",)
    named = offers(states[0])
    assert named is not None
    assert [named[number] for number in verdict.offers["a"]] == [(card(1).address,)]


def test_a_host_all_of_whose_offers_have_a_dirty_card_is_left_out() -> None:
    world = Site([host("a", cards=tuple(card(one) for one in range(3))), host("b", cards=tuple(card(one) for one in range(4)))])
    first = world.table.hosts[0]
    world = Site([replace(first, cards=(replace(first.cards[0], state=CardState.DIRTY), *first.cards[1:])), world.table.hosts[1]])
    engine = Engine(OPTIONS, SimpleNamespace(held=world.confirmed), Journal("", 0), lambda: world.now)
    request = spec(1, flavor(beamdesk__gpus="2"), 2)
    asked, states = read(request), world.offered(request)
    named = {one.host: offers(one) for one in states}
    named["a"] = tuple(one for one in named["a"] or () if card(0).address in one)
    verdict = engine.judge(asked, [look(one) for one in states], named)
    assert verdict.hosts == ("b",)


def test_where_placement_names_no_devices_a_host_with_a_dirty_card_is_left_out() -> None:
    mixed = host("a", cards=(card(0, state=CardState.DIRTY), card(1), card(2)))
    world = Site([mixed, host("b", cards=tuple(card(one) for one in range(8)))], in_placement=False)
    engine = Engine(OPTIONS, SimpleNamespace(held=world.confirmed), Journal("", 0), lambda: world.now)
    verdict, _ = judge(engine, world, spec(1, flavor(beamdesk__gpus="1"), 1))
    assert verdict.hosts == ("b",)


def test_of_many_hosts_only_those_that_nova_offers_are_chosen() -> None:
    world = site("beamdesk")
    engine = Engine(OPTIONS, SimpleNamespace(held=world.confirmed), Journal("", 0), lambda: world.now)
    request = spec(1, *KINDS[2])
    states = [one for one in world.offered(request) if one.host in {"a100-2", "t4-1"}]
    verdict = engine.judge(read(request), [look(one) for one in states], {one.host: offers(one) for one in states})
    assert set(verdict.hosts) == {"a100-2", "t4-1"}
