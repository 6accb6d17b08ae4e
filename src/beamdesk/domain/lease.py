"""How long a desktop may live, when its owner is warned, and when an unused one is stopped. Pure arithmetic on given times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class LeaseRules:
    """Site rules. At its end a desktop is stopped (home kept), never deleted.

    ``busy_cpu``, ``busy_gpu``: the share from which a computation counts as use; ``busy_cores``: CPUs from which it does anyway.
    """

    initial: timedelta = timedelta(hours=8)
    extension: timedelta = timedelta(hours=4)
    maximum_ahead: timedelta = timedelta(days=7)
    warn_before: timedelta = timedelta(minutes=30)
    idle_after: timedelta = timedelta(hours=2)
    idle_warn_before: timedelta = timedelta(minutes=15)
    busy_cpu: float = 0.10
    busy_cores: float = 0.5
    busy_gpu: float = 0.05


def extended(rules: LeaseRules, ends_at: datetime, now: datetime) -> datetime:
    """Return the new end after one extension: from the present end (or from now when that has passed), capped ahead of now."""
    return min(max(ends_at, now) + rules.extension, now + rules.maximum_ahead)


SHORT_WAIT = timedelta(minutes=1)


def after_the_wait(ends_at: datetime, queued_at: datetime | None, now: datetime) -> datetime:
    """Return a lease's end if its desktop started now: waiting for a place must not eat up the time in it."""
    waited = now - (queued_at or now)
    return max(ends_at, now) + waited if waited > SHORT_WAIT else ends_at


def can_extend(rules: LeaseRules, ends_at: datetime, now: datetime) -> bool:
    """Tell whether an extension would gain at least a minute."""
    return extended(rules, ends_at, now) - ends_at >= timedelta(minutes=1)
