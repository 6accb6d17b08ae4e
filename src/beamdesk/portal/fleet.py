"""Two pages about hosts: why a desktop is where it is (for whoever may see it), and the map of hosts and cards (for operators)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from starlette.responses import Response

from beamdesk.app.explain import Explanation, explain
from beamdesk.app.fleet import CARD_STATES, FleetHost, see_fleet
from beamdesk.domain.ids import DesktopId
from beamdesk.portal.live import newest_event
from beamdesk.portal.site import Visit, render
from beamdesk.scheduling.decision import Ranked

_WIDTH, _ROW = 100.0, 38
"""Of the chart: percent of its width, and pixels."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar: what one term adds (to the right) or takes away (to the left)."""

    term: str
    x: float
    width: float
    value: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One host of the chart."""

    host: str
    total: float
    y: int
    parts: tuple[Part, ...]
    chosen: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars for the hosts that could take the desktop, in percent of the width. ``zero`` is where nothing is added."""

    bars: tuple[Bar, ...]
    terms: tuple[str, ...]
    zero: float
    height: int


def chart_of(explanation: Explanation) -> Chart | None:
    """Lay out a ranking as bars; None when there is none."""
    ranking = tuple(map(_that_count(explanation.ranking), explanation.ranking))
    if not ranking:
        return None
    right = max(sum(value for _, value in one.contributions if value > 0) for one in ranking)
    left = max(sum(-value for _, value in one.contributions if value < 0) for one in ranking)
    scale = _WIDTH / ((left + right) or 1.0)
    zero = left * scale
    bars = []
    for number, one in enumerate(ranking):
        ends, parts = [zero, zero], []
        for term, value in one.contributions:
            width = abs(value) * scale
            side = int(value > 0)
            x = ends[1] if side else ends[0] - width
            ends[side] += width if side else -width
            parts.append(Part(term, round(x, 2), round(width, 2), value))
        chosen = explanation.placement is not None and one.host == explanation.placement.host
        bars.append(Bar(one.host, one.total, number * _ROW, tuple(parts), chosen))
    terms = tuple(term for term, _ in ranking[0].contributions)
    return Chart(tuple(bars), terms, round(zero, 2), len(ranking) * _ROW)


def _that_count(ranking: tuple[Ranked, ...]) -> Callable[[Ranked], Ranked]:
    """Return what leaves out the terms that are nothing for every host: they explain nothing."""
    names = {term for one in ranking for term, value in one.contributions if value}
    return lambda one: replace(one, contributions=tuple(part for part in one.contributions if part[0] in names))


async def show_why(visit: Visit) -> Response:
    """Say why this host, why not that one, and when the desktop could run."""
    position = await newest_event(visit.app)
    found = await explain(visit.app, visit.caller, DesktopId(visit.path("id")))
    template = "fleet/why_live.html" if visit.partial else "fleet/why.html"
    return render(visit, template, nav="desktops", why=found, chart=chart_of(found), position=position)


async def show_hosts(visit: Visit) -> Response:
    """Show hosts and cards with their states and who has what; a filter by state and by words."""
    position = await newest_event(visit.app)
    hosts = await see_fleet(visit.app, visit.caller)
    state, words = visit.query("state"), visit.query("q")[:80]
    shown = [host for host in hosts if (not state or state in host.states) and _matches(host, words.casefold())]
    counts = Counter(card.state for host in hosts for card in host.cards)
    return render(
        visit,
        "fleet/hosts_live.html" if visit.partial else "fleet/hosts.html",
        nav="hosts",
        hosts=shown,
        total=len(hosts),
        counts=[(name, counts[name]) for name in CARD_STATES],
        state=state if state in CARD_STATES else "",
        words=words,
        query=visit.request.url.query,
        position=position,
    )


def _matches(host: FleetHost, words: str) -> bool:
    held = [card.holder for card in host.cards if card.holder is not None] + list(host.holders)
    texts = [host.name, *host.aggregates, *(card.model for card in host.cards), *(card.address for card in host.cards)]
    texts += [text for one in held for text in (one.name, one.owner)]
    return any(words in text.casefold() for text in texts)
