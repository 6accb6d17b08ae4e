"""The picture of who has which card when: tracks laid out in percent of its width, so that it fits every screen.

Text is never scaled: bars are SVG with percentages, rows and letters have fixed sizes. The table beside it says the same in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from beamdesk.app.timeline import Span, Track
from beamdesk.portal.say import Say

TOP, ROW = 26, 50
"""Height of the axis and of a row."""
MOST_TRACKS = 60
LENGTHS = (1, 7, 14, 31)
"""Days that can be looked at."""
_EVERY = {1: timedelta(hours=6), 7: timedelta(days=1), 14: timedelta(days=2), 31: timedelta(days=5)}


@dataclass(frozen=True, slots=True)
class Bar:
    """A piece of a track, in percent of the width. ``open``: it goes on beyond the right edge without a known end."""

    x: float
    width: float
    span: Span
    open: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One card with its bars; ``y`` is the row's upper edge."""

    track: Track
    y: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the axis."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Picture:
    """The whole. ``now``: where the present is, None where it is not shown; ``hidden``: cards that were left out."""

    start: datetime
    days: int
    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]
    now: float | None
    height: int
    hidden: int

    @property
    def end(self) -> datetime:
        """Return the end of what is shown."""
        return self.start + timedelta(days=self.days)

    @property
    def earlier(self) -> datetime:
        """Return where the stretch before this one begins."""
        return self.start - timedelta(days=self.days)


def draw(tracks: Iterable[Track], start: datetime, days: int, say: Say) -> Picture:
    """Lay out tracks from ``start`` on."""
    every = list(tracks)
    shown, end = every[:MOST_TRACKS], start + timedelta(days=days)
    lines = tuple(Line(track, TOP + number * ROW, tuple(_bars(track, start, end))) for number, track in enumerate(shown))
    now = _percent(say.now, start, end) if start <= say.now < end else None
    height = TOP + len(lines) * ROW
    return Picture(start, days, lines, tuple(_ticks(start, end, days, say)), now, height, len(every) - len(shown))


def midnight(at: datetime, say: Say) -> datetime:
    """Return the beginning of the reader's day."""
    return say.local(at).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(at.tzinfo)


def _percent(at: datetime, start: datetime, end: datetime) -> float:
    return round(100 * (at - start) / (end - start), 3)


def _bars(track: Track, start: datetime, end: datetime) -> Iterator[Bar]:
    for span in track.spans:
        left, right = max(span.start, start), min(span.end or end, end)
        if left < right:
            x = _percent(left, start, end)
            yield Bar(x, max(0.4, round(_percent(right, start, end) - x, 3)), span, span.end is None)


def _ticks(start: datetime, end: datetime, days: int, say: Say) -> Iterator[Tick]:
    at, every = start, _EVERY[days]
    while at < end:
        label = f"{say.local(at):%H:%M}" if days == 1 else f"{say.local(at):%m-%d}"
        yield Tick(_percent(at, start, end), label)
        at += every
