"""Claiming and releasing: all or nothing, no device twice, used cards come back dirty."""

from __future__ import annotations

import random
import sys
import threading
import time

import pytest

from beamdesk.scheduling.cards import MIG_GEOMETRIES, Card, CardMode, CardState, equal_size_vgpu, mixed_size_vgpu
from beamdesk.scheduling.claims import Claim, Grant, claim, release, restore
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.errors import InvalidHost, NotFree
from beamdesk.scheduling.host import HostFacts, NumaNode
from beamdesk.scheduling.policy import make
from beamdesk.scheduling.reports import check_invariants
from beamdesk.scheduling.request import CardDemand, Request
from beamdesk.scheduling.state import HostTable


def a_card(number: int, mode: CardMode = CardMode.PASSTHROUGH, **more: object) -> Card:
    return Card(f"c{number}", "A10", 24576, 9216, 600, 1695, mode=mode, **more)  # type: ignore[arg-type]


def a_table(*cards: Card, hosts: int = 1, cpu: int = 64000) -> HostTable:
    return HostTable([HostFacts(f"h{number}", cpu, 262144, disk_gib=1000, cards=cards) for number in range(hosts)])


def test_a_claimed_card_is_not_given_again() -> None:
    table = a_table(a_card(0))
    claim(table, Claim("d-1", "h0", 1000, 1024, grants=(Grant("c0"),)))
    with pytest.raises(NotFree, match="c0"):
        claim(table, Claim("d-2", "h0", 1000, 1024, grants=(Grant("c0"),)))
    assert table.claims.keys() == {"d-1"}
    assert check_invariants(table) == []


def test_a_released_card_is_dirty_and_not_chosen_until_clean() -> None:
    table = a_table(a_card(0))
    scheduler = Scheduler(table, make("beamdesk", table))
    wanted = Request("d-1", 1000, 1024, cards=CardDemand(1))
    assert scheduler.place(wanted).host == "h0"
    release(table, "d-1")
    assert scheduler.decide(wanted).refusals == (("cards_busy", 1),)


def test_releasing_twice_is_fine() -> None:
    table = a_table()
    claim(table, Claim("d-1", "h0", 1000, 1024))
    assert release(table, "d-1") is not None
    assert release(table, "d-1") is None
    assert table.cpu_free[0] == 64000


def test_one_id_holds_one_claim() -> None:
    table = a_table(hosts=2)
    claim(table, Claim("d-1", "h0", 1000, 1024))
    with pytest.raises(NotFree, match="already"):
        claim(table, Claim("d-1", "h1", 1000, 1024))


def test_a_claim_that_does_not_fit_changes_nothing() -> None:
    table = a_table(a_card(0), a_card(1))
    before = table.digest()
    for bad in (
        Claim("d", "h0", 64001, 1),
        Claim("d", "h0", 1, 262145),
        Claim("d", "h0", 1, 1, disk_gib=1001),
        Claim("d", "h0", 1, 1, grants=(Grant("c0"), Grant("c9"))),
        Claim("d", "h0", 1, 1, grants=(Grant("c0"), Grant("c0"))),
        Claim("d", "h9", 1, 1),
    ):
        with pytest.raises(NotFree):
            claim(table, bad)
    assert table.digest() == before


def test_shares_fill_a_card_and_no_more() -> None:
    table = a_table(a_card(0, CardMode.HOST))
    for number in range(4):
        claim(table, Claim(f"d-{number}", "h0", 1, 1, grants=(Grant("c0", 250),)))
    with pytest.raises(NotFree):
        claim(table, Claim("d-4", "h0", 1, 1, grants=(Grant("c0", 1),)))
    release(table, "d-0")
    claim(table, Claim("d-5", "h0", 1, 1, grants=(Grant("c0", 250),)))
    assert check_invariants(table) == []


def test_a_card_of_equal_profiles_takes_one_kind_at_a_time() -> None:
    table = a_table(a_card(0, CardMode.VGPU, geometry=equal_size_vgpu("A10", {"A10-4Q": 6, "A10-8Q": 3})))
    claim(table, Claim("d-1", "h0", 1, 1, grants=(Grant("c0", 166, "A10-4Q", 0),)))
    with pytest.raises(NotFree):
        claim(table, Claim("d-2", "h0", 1, 1, grants=(Grant("c0", 333, "A10-8Q", 1),)))
    release(table, "d-1")
    claim(table, Claim("d-2", "h0", 1, 1, grants=(Grant("c0", 333, "A10-8Q", 1),)))


def test_a_card_of_equal_profiles_is_not_offered_for_another_size() -> None:
    table = a_table(a_card(0, CardMode.VGPU, geometry=equal_size_vgpu("A10", {"A10-4Q": 6, "A10-8Q": 3})))
    scheduler = Scheduler(table, make("beamdesk", table))
    assert scheduler.place(Request("d-1", 1, 1, cards=CardDemand(1, profile="A10-8Q"))).host == "h0"
    assert scheduler.decide(Request("d-2", 1, 1, cards=CardDemand(1, profile="A10-4Q"))).refusals == (("cards_busy", 1),)
    assert scheduler.decide(Request("d-3", 1, 1, cards=CardDemand(1, profile="A10-8Q"))).host == "h0"


def test_sizes_lie_side_by_side_on_a_card_of_mixed_profiles() -> None:
    table = a_table(a_card(0, CardMode.VGPU, geometry=mixed_size_vgpu("A10", 24, {"A10-4Q": 4, "A10-8Q": 8, "A10-24Q": 24})))
    scheduler = Scheduler(table, make("beamdesk", table))
    starts = {
        scheduler.place(Request(f"d-{number}", 1, 1, cards=CardDemand(1, profile=profile))).grants[0].start
        for number, profile in enumerate(["A10-4Q", "A10-8Q", "A10-4Q", "A10-8Q"])
    }
    assert len(starts) == 4
    assert check_invariants(table) == []
    assert scheduler.decide(Request("d-9", 1, 1, cards=CardDemand(1, profile="A10-8Q"))).host is None


def test_mig_fills_the_slice_that_no_larger_profile_can_use_first() -> None:
    table = a_table(a_card(0, CardMode.MIG, geometry=MIG_GEOMETRIES["A100-40GB"]))
    scheduler = Scheduler(table, make("best-fit", table))
    small = scheduler.place(Request("d-1", 1, 1, cards=CardDemand(1, profile="1g.5gb")))
    assert small.grants[0].start == 6
    assert scheduler.place(Request("d-2", 1, 1, cards=CardDemand(1, profile="4g.20gb"))).host == "h0"
    assert scheduler.place(Request("d-3", 1, 1, cards=CardDemand(1, profile="3g.20gb"))).host is None
    assert scheduler.place(Request("d-4", 1, 1, cards=CardDemand(1, profile="2g.10gb"))).host == "h0"


def test_restoring_takes_what_is_there_and_names_missing_cards() -> None:
    table = a_table(a_card(0))
    assert restore(table, Claim("d-1", "h0", 99000, 1, grants=(Grant("c0"), Grant("c7")))) == ("c7",)
    assert table.cpu_free[0] < 0
    with pytest.raises(InvalidHost):
        restore(table, Claim("d-2", "nowhere", 1, 1))


def test_a_floating_server_is_charged_to_the_emptiest_node_first() -> None:
    nodes = (NumaNode(4000, 4096), NumaNode(8000, 8192))
    table = HostTable([HostFacts("h0", 12000, 12288, numa=nodes)])
    claim(table, Claim("d-1", "h0", 10000, 1024))
    assert table.numa_cpu_free[0].tolist() == [2000, 0]
    release(table, "d-1")
    assert table.numa_cpu_free[0].tolist() == [4000, 8000]


def run_cycles(cycles: int, workers: int) -> HostTable:
    """Let several threads complete ``cycles`` claims and releases; decisions grow old between deciding and claiming."""
    table = a_table(a_card(0), a_card(1), a_card(2), hosts=3)
    failures: list[str] = []
    conflicts: list[str] = []
    held: dict[tuple[str, str], str] = {}
    guard = threading.Lock()

    def work(worker: int) -> None:
        chance = random.Random(worker)
        scheduler = Scheduler(table, make("beamdesk", table))
        decision, done = None, 0
        while done < cycles // workers:
            if decision is None or decision.host is None or chance.random() < 0.05:
                decision = scheduler.decide(Request(f"w{worker}", 1000, 1024, cards=CardDemand(chance.choice([1, 1, 2]))))
                if decision.host is None:
                    continue
            wanted = Claim(f"w{worker}-{done}", decision.host, 1000, 1024, grants=decision.grants)
            try:
                claim(table, wanted)
            except NotFree:
                conflicts.append(wanted.id)
                decision = None
                continue
            mine = [(wanted.host, grant.address) for grant in wanted.grants]
            with guard:
                failures.extend(f"{one} is lent to {held[one]} and {wanted.id}" for one in mine if one in held)
                held.update(dict.fromkeys(mine, wanted.id))
            if chance.random() < 0.02:
                time.sleep(0.0002)  # holds a card while the others run, so that they meet on any machine
            with guard:
                for one in mine:
                    held.pop(one, None)
            release(table, wanted.id, leave=CardState.FREE)
            done += 1

    # Threads change places often, in the middle of things.
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    assert failures == []
    assert conflicts, "no two threads ever wanted one card: this proves nothing"
    return table


def check_all_free(table: HostTable) -> None:
    assert not table.claims
    assert check_invariants(table) == []
    assert int(table.idle.sum()) == 9000


def test_threads_never_share_a_card() -> None:
    check_all_free(run_cycles(4000, 4))


@pytest.mark.slow
def test_a_million_cycles_never_share_a_card() -> None:
    check_all_free(run_cycles(1_000_000, 8))
