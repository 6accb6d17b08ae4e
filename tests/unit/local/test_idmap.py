from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.adapters.local.helper.idmap import RANGE, choose_base, person_lines

FIRST, LAST = 0x30000000, 0x30000000 + 9 * RANGE - 1


@given(st.lists(st.text("abc123", min_size=8, max_size=12), min_size=1, max_size=8, unique=True))
def test_ranges_of_running_desktops_never_overlap(names: list[str]) -> None:
    taken: set[int] = set()
    for name in names:
        base = choose_base(name, FIRST, LAST, taken)
        assert FIRST + RANGE <= base <= LAST - RANGE + 1
        assert all(abs(base - other) >= RANGE for other in taken)
        taken.add(base)


@given(st.sets(st.integers(0, RANGE - 1), max_size=33))
def test_on_shared_data_only_own_ids_reach_the_container(own: set[int]) -> None:
    base, quarantine = 10 * RANGE, 5 * RANGE
    mapped: dict[int, int] = {}
    for disk, host, count in person_lines(base, quarantine, own):
        assert count > 0
        mapped |= dict(zip(range(disk, disk + count), range(host, host + count), strict=True))
    assert mapped == {number: (base if number in own else quarantine) + number for number in range(RANGE)}


def test_a_desktop_keeps_its_range() -> None:
    assert choose_base("desktop1", FIRST, LAST, ()) == choose_base("desktop1", FIRST, LAST, ())


def test_when_all_ranges_are_taken_it_says_so() -> None:
    with pytest.raises(HelperError, match="uid ranges"):
        choose_base("desktop1", FIRST, LAST, range(FIRST, LAST, RANGE))
