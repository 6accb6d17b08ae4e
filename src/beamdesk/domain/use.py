"""How much a desktop is used, and what counts as using it: input, or a computation that needs nobody at the screen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from beamdesk.domain.desktop import Desktop, Phase
from beamdesk.domain.guest import Guest
from beamdesk.domain.lease import LeaseRules
from beamdesk.protocol.guest import HEARTBEAT_S

FRESH_FOR = timedelta(seconds=5 * HEARTBEAT_S)
"""What an agent said longer ago is not how the desktop is used now."""


class Work(StrEnum):
    """What computes."""

    CPU = "cpu"
    GPU = "gpu"


class GpuState(StrEnum):
    """What is known of how a desktop's cards are used."""

    NONE = "none"
    """It has no card."""
    KNOWN = "known"
    UNKNOWN = "unknown"
    """It has a card whose driver does not tell how much it is used."""
    UNUSABLE = "unusable"
    """It was to have a card, and inside there is none that works."""


@dataclass(frozen=True, slots=True)
class Use:
    """How a running desktop is used. ``cpu`` and ``gpu``: 0..1 by the newest report, at ``at``.

    ``gpu``: of its busiest card; None: there is none that works, or it is not known, which counts as use (``gpu_state``).
    ``works``: what keeps it running now. ``used_at``: the last sign of use. ``stops_at``: when it is stopped if there is no other.
    """

    at: datetime
    input_idle_s: float
    cpu: float
    gpu: float | None
    gpu_state: GpuState
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


def gpu_state(desktop: Desktop, guest: Guest) -> GpuState:
    """Return what is known: a size without cards on a machine that has one anyway tells of it when it is used."""
    if guest.gpu is None:
        return GpuState.UNKNOWN
    if guest.gpu < 0:
        return GpuState.UNUSABLE if desktop.resources.gpus else GpuState.NONE
    return GpuState.KNOWN if desktop.resources.gpus or guest.gpu else GpuState.NONE


def use_of(desktop: Desktop, guest: Guest, rules: LeaseRules, now: datetime) -> Use | None:
    """Return how a ready desktop is used; None where that is not known: another phase, or nothing was heard for `FRESH_FOR`."""
    if desktop.phase is not Phase.READY or guest.seen_at is None or not guest.steps or now - guest.seen_at > FRESH_FOR:
        return None
    state = gpu_state(desktop, guest)
    used_at = last_used(desktop, guest)
    warned_at = desktop.idle_warned_at
    stops_at = used_at + rules.idle_after
    if warned_at is not None and warned_at >= used_at:
        stops_at = max(stops_at, warned_at + rules.idle_warn_before)
    return Use(
        at=guest.seen_at,
        input_idle_s=guest.input_idle_s,
        cpu=guest.cpu,
        gpu=guest.gpu if state is GpuState.KNOWN else None,
        gpu_state=state,
        works=works(rules, cpu=guest.cpu, gpu=guest.gpu, vcpus=desktop.resources.vcpus),
        used_at=used_at,
        stops_at=stops_at,
    )
