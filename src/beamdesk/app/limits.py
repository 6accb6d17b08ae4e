"""Rate limits in this process: token buckets in bounded memory.

Each process counts for itself: with n portal processes a peer may try n times as often, which changes nothing about guessing
256-bit secrets or scrypt-hashed passwords. It must never wait: it says yes or no, and the time is given.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(slots=True)
class RateLimit:
    """A bucket of ``burst`` tokens per key, refilled at ``per_second``. The ``max_keys`` last used keys are remembered."""

    burst: float
    per_second: float
    max_keys: int = 10_000
    _buckets: OrderedDict[str, tuple[float, datetime]] = field(default_factory=OrderedDict, repr=False)

    def take(self, key: str, now: datetime) -> float:
        """Take one token; return 0.0, or (nothing taken) the seconds until there will be one."""
        level = self._level(key, now)
        if level < 1.0:
            self._keep(key, level, now)
            return (1.0 - level) / self.per_second
        self._keep(key, level - 1.0, now)
        return 0.0

    def give_back(self, key: str, now: datetime) -> None:
        """Return a token that was taken for something that turned out to be no attempt at abuse."""
        self._keep(key, min(self.burst, self._level(key, now) + 1.0), now)

    def _level(self, key: str, now: datetime) -> float:
        level, since = self._buckets.get(key, (self.burst, now))
        return min(self.burst, level + max(0.0, (now - since).total_seconds()) * self.per_second)

    def _keep(self, key: str, level: float, now: datetime) -> None:
        self._buckets[key] = (level, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > self.max_keys:
            self._buckets.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one process. Failed sign-ins count per login name and per address, successful ones do not."""

    sign_in_login: RateLimit = field(default_factory=lambda: RateLimit(burst=10, per_second=0.2))
    sign_in_address: RateLimit = field(default_factory=lambda: RateLimit(burst=30, per_second=1.0))
    enrolment: RateLimit = field(default_factory=lambda: RateLimit(burst=50, per_second=10.0))
    guest_report: RateLimit = field(default_factory=lambda: RateLimit(burst=60, per_second=5.0))
    guest_step: RateLimit = field(default_factory=lambda: RateLimit(burst=60, per_second=1.0))
    srm_stranger: RateLimit = field(default_factory=lambda: RateLimit(burst=30, per_second=0.5))
    srm_report: RateLimit = field(default_factory=lambda: RateLimit(burst=30, per_second=2.0))
    srm_snapshot: RateLimit = field(default_factory=lambda: RateLimit(burst=30, per_second=5.0))
    guest_thumbnail: RateLimit = field(default_factory=lambda: RateLimit(burst=3, per_second=0.5))
