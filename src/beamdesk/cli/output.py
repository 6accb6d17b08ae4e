"""What people read: tables, colours, times. What programs read: JSON. Text from elsewhere never reaches the terminal raw."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TextIO

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_COLOURS = {"ready": "32", "failed": "31", "queued": "33", "building": "36", "booting": "36", "repairing": "33"}


def clean(text: object) -> str:
    """Return text without control, direction-changing or invisible characters: a desktop's name must not drive a terminal."""
    return "".join("\ufffd" if unicodedata.category(one) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} else one for one in str(text))


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not _is_utf8(sys.stdout)) + "\n")


def _is_utf8(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows in columns; ``empty`` is said (on standard error) when there are none."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if not cells:
        say(empty)
        return
    widths = [max(map(_width, column)) for column in zip(heads, *cells, strict=True)]
    for row in [list(heads), *cells]:
        padded = [_paint(cell) + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        _write(sys.stdout, "  ".join(padded).rstrip())


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one a line; empty values are left out."""
    shown = [(name, clean(value)) for name, value in fields if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        _write(sys.stdout, f"{name.ljust(width)}  {_paint(value)}")


def say(text: str) -> None:
    """Tell people something that is not the result: on standard error."""
    _write(sys.stderr, clean(text))


def _write(stream: TextIO, line: str) -> None:
    encoding = stream.encoding or "ascii"
    stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(one) in {"W", "F"} for one in text)
    return len(text) + wide - sum(unicodedata.combining(one) > 0 for one in text)


def uses_colour(stream: TextIO) -> bool:
    """Tell whether to colour: a terminal, and nobody said no (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _paint(cell: str) -> str:
    colour = _COLOURS.get(cell)
    return f"\033[{colour}m{cell}\033[0m" if colour and uses_colour(sys.stdout) else cell


def moment(text: str | None) -> str:
    """Return a time of the API in local time, or nothing."""
    return _parsed(text).astimezone().strftime("%Y-%m-%d %H:%M") if text else ""


def left_until(text: str, now: datetime | None = None) -> str:
    """Return how long it is until a time of the API, in the largest unit that says enough."""
    minutes = int((_parsed(text) - (now or datetime.now(UTC))).total_seconds() // 60)
    if minutes <= 0:
        return "ended"
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} d"


def _parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)


def size(count: int | None) -> str:
    """Return a number of bytes in binary units."""
    if count is None:
        return ""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{count} B" if units[0] == "B" else f"{value:.1f} {units[0]}"
