"""What counts as using a desktop: input, or a computation that needs nobody at the screen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from beamdesk.domain.desktop import Desktop
from beamdesk.domain.guest import Guest
from beamdesk.domain.lease import LeaseRules


class Work(StrEnum):
    """What computes."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Use:
    """How a running desktop is used. ``cpu`` and ``gpu``: 0..1 by the newest report, at ``at``.

    ``gpu``: of its busiest card; None: not known, which counts as use. ``works``: what keeps it running now. ``used_at``: the last
    sign of use. ``stops_at``: when it is stopped if there is no other.
    """

    at: datetime
    input_idle_s: float
    cpu: float
    gpu: float | None
    works: tuple[Work, ...]
    used_at: datetime
    stops_at: datetime


def works(rules: LeaseRules, *, cpu: float, gpu: float | None, vcpus: int) -> tuple[Work, ...]:
    """Return what computes so much that it counts; of many CPUs one that is half busy is enough."""
    found = (Work.CPU,) if cpu >= min(rules.busy_cpu, rules.busy_cores / max(vcpus, 1)) else ()
    return (*found, Work.GPU) if gpu is None or gpu >= rules.busy_gpu else found


def last_used(desktop: Desktop, guest: Guest | None) -> datetime:
    """Return the newest sign of use that is known."""
    if guest is None or guest.seen_at is None:
        return desktop.last_active_at
    last_input = guest.seen_at - timedelta(seconds=min(max(guest.input_idle_s, 0.0), 1e9))
    return max(desktop.last_active_at, last_input, guest.worked_at or last_input)


def use_of(desktop: Desktop, guest: Guest, rules: LeaseRules) -> Use | None:
    """Return how a desktop is used; None while its guest was never heard of."""
    if guest.seen_at is None:
        return None
    used_at = last_used(desktop, guest)
    warned_at = desktop.idle_warned_at
    stops_at = used_at + rules.idle_after
    if warned_at is not None and warned_at >= used_at:
        stops_at = max(stops_at, warned_at + rules.idle_warn_before)
    return Use(
        at=guest.seen_at,
        input_idle_s=guest.input_idle_s,
        cpu=guest.cpu,
        gpu=guest.gpu,
        works=works(rules, cpu=guest.cpu, gpu=guest.gpu, vcpus=desktop.resources.vcpus),
        used_at=used_at,
        stops_at=stops_at,
    )
