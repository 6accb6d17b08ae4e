"""Checks of single values that came from outside. NaN, infinities, negative numbers and booleans are never amounts."""

from __future__ import annotations

import math

from beamdesk.scheduling.errors import SchedulingError

LARGEST = 1 << 50
"""No amount is larger: sums of thousands of them still fit into 64 bits."""


def amount(error: type[SchedulingError], field: str, value: object, *, least: int = 0, most: int = LARGEST) -> None:
    """Raise ``error`` unless ``value`` is an int (not a bool) within bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise error(f"{field} must be a whole number, not {value!r}.", field=field)
    if not least <= value <= most:
        raise error(f"{field} must be from {least} to {most}, not {value}.", field=field)


def moment(error: type[SchedulingError], field: str, value: object) -> None:
    """Raise ``error`` unless ``value`` is a finite number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise error(f"{field} must be a finite number of seconds, not {value!r}.", field=field)


def word(error: type[SchedulingError], field: str, value: object, *, empty: bool = False) -> None:
    """Raise ``error`` unless ``value`` is a printable text of at most 255 characters."""
    if not isinstance(value, str) or len(value) > 255 or not value.isprintable() or not (value or empty):
        raise error(f"{field} must be a printable text of 1 to 255 characters, not {value!r}.", field=field)
