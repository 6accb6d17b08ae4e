"""How busy a host and its cards were: curves for operators, from the records of its agent.

Curves are stretched to the width of the screen, letters are not. Where nothing was reported there is a gap, not a zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.responses import Response

from beamdesk.app import srm
from beamdesk.app.srm import HostView
from beamdesk.domain.srm import Mean
from beamdesk.portal.say import Say
from beamdesk.portal.site import Visit, render

HOURS = (24, 168, 336)
"""How far back can be looked."""
WIDE, HIGH = 1000, 100
"""Of a curve, in its own units: time to the right, percent from below."""
_TICKS = {24: timedelta(hours=6), 168: timedelta(days=1), 336: timedelta(days=2)}


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot. ``kind``: cpu, busy, memory, or used (the part of the time in which somebody had the card)."""

    kind: str
    path: str
    last: float | None
    mean: float | None


@dataclass(frozen=True, slots=True)
class Plot:
    """The curves of a host (empty ``address``) or a card."""

    address: str
    model: str
    state: str
    curves: tuple[Curve, ...]
    hottest: int | None


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the axis of time, in percent of its width."""

    x: float
    label: str


async def show(visit: Visit) -> Response:
    """Show one host with its history."""
    name = visit.path("name")
    typed = visit.query("hours")
    hours = int(typed) if typed in {str(one) for one in HOURS} else HOURS[0]
    view = await srm.get_host(visit.app, visit.caller, name)
    points, every = await srm.means(visit.app, visit.caller, name, hours)
    end = visit.app.clock.now()
    start = end - timedelta(hours=hours)
    plots = plots_of(view, points, start, end, every)
    ticks = tuple(_ticks(start, end, hours, visit.say))
    return render(
        visit, "fleet/host.html", nav="hosts", view=view, plots=plots, ticks=ticks, hours=hours, lengths=HOURS, high=HIGH, wide=WIDE
    )


def plots_of(view: HostView, points: Iterable[Mean], start: datetime, end: datetime, every: timedelta) -> tuple[Plot, ...]:
    """Lay out the history of a host and of each of its cards, those that are gone included."""
    of: dict[str, list[Mean]] = {}
    for point in points:
        of.setdefault(point.address, []).append(point)
    facts = view.host.facts

    def curve(kind: str, mine: list[Mean], value: Callable[[Mean], float | None]) -> Iterator[Curve]:
        known = [(one.at, number) for one in mine if (number := value(one)) is not None]
        if known:
            numbers = [number for _, number in known]
            yield Curve(kind, path_of(known, start, end, every), numbers[-1], sum(numbers) / len(numbers))

    def part(total: int | None) -> Callable[[Mean], float | None]:
        return lambda one: None if one.memory_used_mib is None or not total else one.memory_used_mib / total

    own = of.get("", [])
    host = (*curve("cpu", own, lambda one: one.busy), *curve("memory", own, part(facts.memory_mib if facts else None)))
    plots = [Plot("", "", "", host, None)] if host else []
    for device in view.devices:
        mine = of.get(device.address, [])
        curves = (
            *curve("used", mine, lambda one: one.used),
            *curve("busy", mine, lambda one: one.busy),
            *curve("memory", mine, part(device.facts.memory_mib)),
        )
        hottest = max((one.temperature_c for one in mine if one.temperature_c is not None), default=None)
        state = str(device.state) if device.present else "failed"
        plots.append(Plot(device.address, device.facts.model, state, curves, hottest))
    return tuple(plots)


def path_of(known: list[tuple[datetime, float]], start: datetime, end: datetime, every: timedelta) -> str:
    """Return an SVG path through points from 0 to 1, with gaps where more than two stretches are missing."""
    parts, before = [], None
    for at, number in known:
        x = round(WIDE * min(1.0, max(0.0, (at + every / 2 - start) / (end - start))), 1)
        y = round(HIGH * (1 - min(1.0, max(0.0, number))), 1)
        parts.append(f"{'M' if before is None or at - before > 2 * every else 'L'}{x} {y}")
        if before is None or at - before > 2 * every:
            parts.append(f"h{round(WIDE * every / (end - start) / 2, 1)}")  # a point by itself is seen too
        before = at
    return "".join(parts)


def _ticks(start: datetime, end: datetime, hours: int, say: Say) -> Iterator[Tick]:
    every = _TICKS[hours]
    at = say.local(start).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(start.tzinfo)
    while at < end:
        if at >= start:
            label = f"{say.local(at):%H:%M}" if hours == HOURS[0] else f"{say.local(at):%m-%d}"
            yield Tick(round(100 * (at - start) / (end - start), 2), label)
        at += every
