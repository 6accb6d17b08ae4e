from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.adapters.local.helper.idmap import RANGE, choose_base

FIRST, LAST = 0x30000000, 0x30000000 + 8 * RANGE - 1


@given(st.lists(st.text("abc123", min_size=8, max_size=12), min_size=1, max_size=8, unique=True))
def test_ranges_of_running_desktops_never_overlap(names: list[str]) -> None:
    taken: set[int] = set()
    for name in names:
        base = choose_base(name, FIRST, LAST, taken)
        assert FIRST <= base <= LAST - RANGE + 1
        assert all(abs(base - other) >= RANGE for other in taken)
        taken.add(base)


def test_a_desktop_keeps_its_range() -> None:
    assert choose_base("desktop1", FIRST, LAST, ()) == choose_base("desktop1", FIRST, LAST, ())


def test_when_all_ranges_are_taken_it_says_so() -> None:
    with pytest.raises(HelperError, match="uid ranges"):
        choose_base("desktop1", FIRST, LAST, range(FIRST, LAST, RANGE))
