"""The bars that say why a desktop is on its host."""

from __future__ import annotations

import pytest

from beamdesk.app.explain import Explanation, Outcome
from beamdesk.cli.explain import _ranking
from beamdesk.portal.fleet import chart_of
from beamdesk.scheduling.decision import Ranked
from engine_kit import make_desktop

TERM = 0.1 * -0.875
"""A term as its weight makes it. The total, which policies round, is another number in its last bit."""
TOTAL = round(TERM, 9)


@pytest.fixture
def ranked() -> Ranked:
    assert f"{TERM:+.3f}" != f"{TOTAL:+.3f}"
    return Ranked("gpu-01", 0, TOTAL, (("tightness", TERM),))


def test_a_term_that_is_the_total_is_shown_as_the_total(ranked: Ranked) -> None:
    chart = chart_of(Explanation(make_desktop("d"), Outcome.PLACED, ranking=(ranked,)))
    assert chart is not None
    assert chart.bars[0].parts[0].value == chart.bars[0].total


def test_the_command_line_shows_them_alike_too(ranked: Ranked) -> None:
    ((_, total, _, terms),) = _ranking([{"host": ranked.host, "total": ranked.total, "terms": dict(ranked.contributions)}])
    assert terms == f"tightness {total}"
