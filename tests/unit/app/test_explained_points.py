"""The points of a host as people see them."""

from __future__ import annotations

from beamdesk.app.explain import _shown
from beamdesk.scheduling.decision import Ranked

TERM = 0.1 * -0.875
"""A term as its weight makes it. The total, which policies round, is another number in its last bit."""
TOTAL = round(TERM, 9)


def test_a_term_that_is_the_total_is_shown_as_the_total() -> None:
    assert f"{TERM:+.3f}" != f"{TOTAL:+.3f}"
    shown = _shown(Ranked("gpu-01", 0, TOTAL, (("tightness", TERM),)))
    assert dict(shown.contributions) == {"tightness": shown.total}
