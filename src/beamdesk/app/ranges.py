"""Ranges and validators of HTTP downloads, RFC 9110 sections 8.8, 13 and 14: pure functions over header texts.

One range is served; several in one request are answered with the whole file, which the RFC permits. Malformed headers are
ignored, as it asks. No reading here.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final

_RANGE = re.compile(r"\s*(\d{0,19})\s*-\s*(\d{0,19})\s*\Z", re.ASCII)
_SETTLED: Final = timedelta(seconds=2)
"""A file changed less long ago may change again within the resolution of its time: its ETag is weak until then."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``first`` to ``last``, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.last - self.first + 1


class Unsatisfiable(ValueError):
    """The range begins behind the end of the file: status 416."""


def parse_range(header: str | None, size: int) -> Span | None:
    """Return the bytes that a Range header asks of a file of ``size`` bytes; None = all of it.

    Raises:
        Unsatisfiable: well-formed, and not one byte of it exists.
    """
    unit, _, ranges = (header or "").partition("=")
    match = _RANGE.match(ranges)
    if unit.strip().lower() != "bytes" or match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first and last and int(last) < int(first):
        return None
    if not first:
        first, last = str(max(0, size - int(last))) if int(last) else str(size), ""
    if int(first) >= size:
        raise Unsatisfiable
    return Span(int(first), min(int(last), size - 1) if last else size - 1)


def entity_tag(facts: os.stat_result, now: datetime) -> str:
    """Return the ETag of a file: strong once the file has rested, weak before."""
    identity = f"{facts.st_dev}:{facts.st_ino}:{facts.st_size}:{facts.st_mtime_ns}".encode()
    tag = f'"{hashlib.blake2b(identity, digest_size=12).hexdigest()}"'
    return tag if now - datetime.fromtimestamp(facts.st_mtime, UTC) > _SETTLED else f"W/{tag}"


def http_date(moment: datetime) -> str:
    """Return an HTTP-date, whole seconds."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)


def range_still_valid(if_range: str | None, tag: str, modified: datetime) -> bool:
    """Tell whether a Range may be served: no If-Range, or its strong validator matches (RFC 9110, 13.1.5)."""
    if if_range is None:
        return True
    if if_range.startswith(('"', "W/")):
        return if_range == tag and not tag.startswith("W/")
    try:
        asked = parsedate_to_datetime(if_range)
    except ValueError:
        return False
    return not tag.startswith("W/") and asked.tzinfo is not None and asked == modified.replace(microsecond=0)


def not_modified(if_none_match: str | None, tag: str) -> bool:
    """Tell whether If-None-Match names the present state (weak comparison)."""
    if if_none_match is None:
        return False
    opaque = tag.removeprefix("W/")
    return if_none_match.strip() == "*" or opaque in (part.strip().removeprefix("W/") for part in if_none_match.split(","))
