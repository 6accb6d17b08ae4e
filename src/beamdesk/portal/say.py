"""Domain values in the reader's words: times, sizes, resources, refusals. Sentences live in the catalogues, never here."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import cache
from pathlib import Path

from beamdesk.domain.catalog import Resources
from beamdesk.domain.errors import BeamdeskError
from beamdesk.domain.text import Text
from beamdesk.portal.i18n import Words

_FOLDER = Path(__file__).parent / "locale"
_SENTENCE_END = re.compile(r"(?<=\.) ")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True)
class Say:
    """Formats values in the language of ``words``; ``now`` is the time of the visit, ``zone`` the reader's if known."""

    words: Words
    now: datetime
    zone: tzinfo | None = None

    def text(self, text: Text) -> str:
        """Return a bilingual text in the reader's language."""
        return text.get(self.words.language)

    def iso(self, at: datetime) -> str:
        """Return a time for a `datetime` attribute."""
        return at.isoformat(timespec="seconds").replace("+00:00", "Z")

    def clock(self, at: datetime) -> str:
        """Return date and time in the reader's zone, in UTC (and saying so) where it is not known."""
        return f"{self.local(at):%Y-%m-%d %H:%M}{'' if self.zone else ' UTC'}"

    def minute(self, at: datetime) -> str:
        """Return the time of day."""
        return f"{self.local(at):%H:%M}"

    def day(self, at: datetime) -> str:
        """Return a date."""
        return f"{self.local(at):%Y-%m-%d}"

    def local(self, at: datetime) -> datetime:
        """Return a time in the reader's zone."""
        return at.astimezone(self.zone) if self.zone else at

    def duration(self, length: timedelta) -> str:
        """Return a length of time in its two largest units."""
        minutes = int(length.total_seconds()) // 60
        days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
        if days:
            return self.words("js.days_hours", d=days, h=hours) if hours else self.words.count("js.days", days)
        if hours:
            return self.words("js.hours_minutes", h=hours, m=minutes) if minutes else self.words.count("js.hours", hours)
        return self.words("js.minutes", m=minutes) if minutes else self.words("js.under_a_minute")

    def left(self, until: datetime) -> str:
        """Return the time left until ``until``."""
        if until <= self.now:
            return self.words("js.over")
        return self.words("js.left", time=self.duration(until - self.now))

    def ago(self, at: datetime) -> str:
        """Return how long ago something was."""
        if self.now - at < timedelta(minutes=1):
            return self.words("js.just_now")
        return self.words("js.ago", time=self.duration(self.now - at))

    def size(self, size: int) -> str:
        """Return a number of bytes in a unit that keeps it short."""
        value, unit = float(size), 0
        while value >= 1024 and unit < len(_UNITS) - 1:
            value, unit = value / 1024, unit + 1
        return f"{size} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"

    def memory(self, mib: int) -> str:
        """Return an amount of memory."""
        return f"{round(mib / 1024, 1):g} GiB" if mib >= 1024 else f"{mib} MiB"

    def resources(self, amount: Resources) -> str:
        """Return what a size has, on one line."""
        parts = [
            self.words.count("resource.cpus", amount.vcpus),
            self.words("resource.memory", amount=self.memory(amount.memory_mib)),
            self.words("resource.disk", amount=f"{amount.disk_gib} GiB"),
        ]
        if amount.gpus:
            parts.append(self.words.count("resource.gpus", amount.gpus))
        return " · ".join(parts)

    def lacking(self, names: Iterable[str]) -> str:
        """Return the names of scarce resources as a phrase."""
        return self.words("list.and").join(self.words(f"lacking.{name}") for name in names)


def error_text(words: Words, error: BeamdeskError) -> str:
    """Return the text of an error in the reader's language.

    Errors carry English sentences. Their translations are in `locale/messages.<language>.toml`, with `{}` where values stand; a
    sentence that is not there falls back to the general one of its code.
    """
    if translated := _translated(words, error.message):
        return translated
    if words.language == "en":
        return error.message
    return words(f"error.{error.code}") if words.has(f"error.{error.code}") else words("error.error")


def remark(words: Words, text: str) -> str:
    """Return English sentences, such as the notes of a preview, in the reader's language; one that nobody translated stays away."""
    if words.language == "en":
        return text
    return "".join(_translated(words, sentence) for sentence in _SENTENCE_END.split(text) if sentence)


def _translated(words: Words, sentence: str) -> str:
    """Return the translation of one sentence, empty where there is none."""
    for pattern, translation in _messages(words.language):
        if match := pattern.fullmatch(sentence):
            return translation.format(*(_term(words, value) for value in match.groups()))
    return ""


def _term(words: Words, value: str) -> str:
    terms = (words.entries.get(f"term.{part.lower().replace(' ', '_')}", part) for part in value.split(" and "))
    return words("list.and").join(terms)


@cache
def _messages(language: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    path = _FOLDER / f"messages.{language}.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return tuple((message_pattern(english), translation) for english, translation in table.items())


def message_pattern(english: str) -> re.Pattern[str]:
    """Return the pattern of a sentence with `{}` where values stand."""
    return re.compile("(.+?)".join(re.escape(part) for part in english.split("{}")))
