"""The waiting line: by example, and what holds for every line."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from beamdesk.scheduling.admission import Holder, Waiting, never_fits, place_of, walk
from engine_kit import T0

TOTAL = {"vcpus": 8, "memory_mib": 16, "gpus": 1}
GPU = {"vcpus": 4, "memory_mib": 4, "gpus": 1}
SMALL = {"vcpus": 1, "memory_mib": 1, "gpus": 0}
LARGE = {"vcpus": 6, "memory_mib": 6, "gpus": 0}


def line(**requests: dict[str, int]) -> list[Waiting]:
    return [Waiting(name, amounts) for name, amounts in requests.items()]


def test_what_fits_is_admitted() -> None:
    assert walk(TOTAL, [], line(a=GPU, b=SMALL)) == {"a": (), "b": ()}


def test_a_wait_for_a_gpu_does_not_hold_up_a_cpu_request() -> None:
    assert walk(TOTAL, [Holder(GPU)], line(a=GPU, b=SMALL)) == {"a": ("gpus",), "b": ()}


def test_a_small_request_does_not_overtake_a_large_one() -> None:
    assert walk(TOTAL, [Holder(GPU)], line(a=LARGE, b=SMALL)) == {"a": ("vcpus",), "b": ("vcpus",)}


def test_what_never_fits_holds_up_nobody() -> None:
    huge = {"vcpus": 99, "memory_mib": 1, "gpus": 0}
    assert never_fits(TOTAL, huge) == ("vcpus",)
    assert walk(TOTAL, [], line(a=huge, b=SMALL)) == {"a": ("vcpus",), "b": ()}


def test_the_place_counts_those_who_wait_for_the_same() -> None:
    waiting = line(a=GPU, b=GPU, c=LARGE, d=GPU)
    holders = [Holder(GPU, T0 + timedelta(hours=1))]
    assert place_of(TOTAL, holders, waiting, "a", T0).place == 1
    assert place_of(TOTAL, holders, waiting, "b", T0).place == 2
    assert place_of(TOTAL, holders, waiting, "d", T0).place == 4, "short of CPUs too, as c is"


def test_the_expected_time_is_when_enough_leases_end() -> None:
    holders = [Holder({"vcpus": 3}, T0 + timedelta(hours=2)), Holder({"vcpus": 3}, T0 + timedelta(hours=1)), Holder({"vcpus": 2})]
    place = place_of(TOTAL, holders, line(a=LARGE), "a", T0)
    assert (place.place, place.lacking, place.expected_at) == (1, ("vcpus",), T0 + timedelta(hours=2))
    assert place_of(TOTAL, holders, line(a=LARGE, b=SMALL), "b", T0).expected_at is None, "nobody knows when a ends"
    assert place_of(TOTAL, holders, line(a=LARGE), "a", T0 + timedelta(hours=3)).expected_at == T0 + timedelta(hours=3)


AMOUNTS = st.fixed_dictionaries({"vcpus": st.integers(1, 8), "memory_mib": st.integers(1, 16), "gpus": st.integers(0, 1)})
LINES = st.lists(AMOUNTS, max_size=12).map(lambda many: [Waiting(f"w{number}", one) for number, one in enumerate(many)])
HOLDERS = st.lists(st.builds(Holder, AMOUNTS), max_size=6)


@given(HOLDERS, LINES)
def test_nobody_gets_what_is_not_there(holders: list[Holder], waiting: list[Waiting]) -> None:
    lacking = walk(TOTAL, holders, waiting)
    admitted = [one for one in waiting if not lacking[one.id]]
    for kind, amount in TOTAL.items():
        held = sum(one.amounts[kind] for one in holders)
        assert sum(one.amounts[kind] for one in admitted) <= max(0, amount - held)


@given(HOLDERS, LINES)
def test_per_kind_the_order_of_arrival_is_strict(holders: list[Holder], waiting: list[Waiting]) -> None:
    lacking = walk(TOTAL, holders, waiting)
    for position, first in enumerate(waiting):
        for later in waiting[position + 1 :]:
            if not lacking[later.id]:
                assert not any(later.amounts[kind] for kind in lacking[first.id]), "overtook somebody who waits for the same"


@given(HOLDERS, LINES)
def test_somebody_waits_only_for_a_reason(holders: list[Holder], waiting: list[Waiting]) -> None:
    lacking = walk(TOTAL, holders, waiting)
    taken = [holder.amounts for holder in holders] + [one.amounts for one in waiting if not lacking[one.id]]
    for position, one in enumerate(waiting):
        before = {kind for earlier in waiting[:position] for kind in lacking[earlier.id]}
        for kind in lacking[one.id]:
            free = TOTAL[kind] - sum(amounts[kind] for amounts in taken)
            assert kind in before or one.amounts[kind] > free


@given(LINES, st.randoms(use_true_random=False), st.lists(AMOUNTS, max_size=30))
def test_nobody_starves(waiting: list[Waiting], random: object, newcomers: list[dict[str, int]]) -> None:
    """Holders end one after another, in any order, while newcomers keep arriving: whoever waited at the start gets in."""
    first = {one.id for one in waiting}
    arriving = [Waiting(f"n{number}", amounts) for number, amounts in enumerate(newcomers)]
    holders: list[Holder] = [Holder(TOTAL)]
    for _ in range(2 * len(waiting) + len(newcomers) + 2):
        if arriving:
            waiting = [*waiting, arriving.pop(0)]
        lacking = walk(TOTAL, holders, waiting)
        holders += [Holder(one.amounts) for one in waiting if not lacking[one.id]]
        waiting = [one for one in waiting if lacking[one.id]]
        if holders:
            holders.pop(random.randrange(len(holders)))
    assert not first & {one.id for one in waiting}


@given(HOLDERS, LINES)
def test_a_place_is_given_exactly_to_those_who_wait(holders: list[Holder], waiting: list[Waiting]) -> None:
    lacking = walk(TOTAL, holders, waiting)
    for one in waiting:
        place = place_of(TOTAL, holders, waiting, one.id, T0)
        assert (place is None) == (not lacking[one.id])
        if place is not None:
            assert 1 <= place.place <= len(waiting)
