"""Rules towards a running desktop: line, server, guest, health, lease and idleness. Part of `lifecycle`. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from beamdesk.domain.decision import CUT_OFF, HOST_SILENT, REMAKES, Decision, Situation, Step
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.events import EventKind
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.meanwhile import is_quiet, silence
from beamdesk.domain.server import HostState, Remedy, Server, ServerStatus
from beamdesk.domain.use import last_used
from beamdesk.protocol.guest import StepState

_NOW = timedelta()
_WARNED = timedelta(seconds=60)
"""Who was warned of idleness and works again does not see the warning for longer."""
_GONE_BY_ITSELF = "The server stopped by itself."
_GONE = "The server is no longer there."
_KEY_RAN_OUT = "The desktop's agent did not report before its one-time key ran out."
_NOT_STOPPED = "The cloud does not carry out the order to stop the old server. An operator must look at its host."


def toward_running(s: Situation) -> Decision:  # noqa: PLR0911  # one return a case
    """Decide for a desktop that is wanted running."""
    match s.desktop.phase:
        case Phase.STOPPED | Phase.STOPPING:
            return _begin(s)
        case Phase.FAILED:
            wants_retry = s.desktop.desired_generation > s.desktop.observed_generation
            return _begin(s) if wants_retry else s.stay(s.timings.rest)
        case Phase.QUEUED:
            return _launch(s) if s.desktop.admitted else _line(s)
        case Phase.REPAIRING:
            return _relaunch(s)
        case Phase.BUILDING:
            return _building(s)
        case Phase.BOOTING:
            return _booting(s)
        case _:
            return _ready(s)


def _begin(s: Situation) -> Decision:
    queued = s.move(Phase.QUEUED, _NOW, queued_at=s.now, repairs=0, absent_since=None, idle_warned_at=None)
    return replace(queued, forget_guest=True)


def _line(s: Situation) -> Decision:
    if s.observed.never_fits:
        lacking = ", ".join(s.observed.never_fits)
        return s.fail(Reason.NEVER_FITS, f"More than there is in total: {lacking}.")
    place = s.observed.place
    if place is None:
        return replace(s.stay(_NOW), step=Step.ADMIT)
    return s.stay(s.timings.waiting, queue=place, reason=Reason.WAITING_FOR_CAPACITY)


def _launch(s: Situation) -> Decision:  # noqa: PLR0911  # one return a case
    """Get from "may run" to "a start was accepted", whatever an earlier pass or life left behind.

    A guest row means that a server was, or may have been, started with its nonce; without one, whatever runs is of no use to us,
    and what is off is of use only if no rebuild and no other size was asked for since it was made.
    """
    if s.duplicate:
        return replace(_delete(s, s.duplicate, Step.DELETE_DUPLICATE), forget_guest=True)
    server = s.server
    if server is None:
        return _create(s)
    match server.status:
        case ServerStatus.SHUTOFF if s.desktop.outdated:
            return replace(_delete(s, server, Step.DELETE_SERVER), forget_guest=True)
        case ServerStatus.SHUTOFF:
            return replace(_accepted(s), step=Step.START, target=server.id)
        case ServerStatus.BUILD if s.guest:
            return s.move(Phase.BUILDING, _NOW, reason=s.desktop.reason, detail=s.desktop.detail)
        case ServerStatus.ACTIVE if s.guest:
            return _boots(s, _NOW)
        case ServerStatus.ERROR if s.guest:
            return _broken(s, server)
        case ServerStatus.BUILD | ServerStatus.ERROR:
            return _delete(s, server, Step.DELETE_SERVER)
        case ServerStatus.ACTIVE:
            return _put_off(s, server)
        case _:
            return s.chase(server) or s.stay(s.timings.apart)


def _put_off(s: Situation, server: Server) -> Decision:
    """Get a running server that is of no use out of the way: stop it, or replace it where its host is gone."""
    if server.lost:
        return _delete(s, server, Step.DELETE_SERVER)
    if server.host is HostState.SILENT:
        return s.stay(s.timings.apart, reason=Reason.HOST_LOST, detail=HOST_SILENT)
    stays = s.stay(s.timings.poll)
    if s.in_phase > s.timings.stuck:
        reason = s.desktop.reason if s.desktop.phase is Phase.REPAIRING else Reason.CLOUD_BUSY
        stays = s.stay(s.timings.poll, reason=reason, detail=_NOT_STOPPED)
    return replace(stays, step=Step.STOP, target=server.id)


def _broken(s: Situation, server: Server) -> Decision:
    """Handle a server in ERROR on the way up: what never ran is made anew or waits for room where that helps."""
    if not server.launched and server.remedy is Remedy.AGAIN:
        return s.repair(Reason.SERVER_ERROR, server.fault, most=REMAKES)
    if not server.launched and server.remedy is Remedy.LATER:
        later = (1 + s.desktop.repairs) * s.timings.room
        return s.repair(Reason.SERVER_ERROR, server.fault, most=REMAKES, due_in=later)
    if not server.launched and server.remedy is Remedy.WAIT:
        return s.wait_for_room(server.fault)
    return s.fail(Reason.SERVER_ERROR, server.fault)


def _create(s: Situation) -> Decision:
    if s.enrolled:
        return s.absent() or replace(s.stay(_NOW, absent_since=None), forget_guest=True)
    if not s.complete:
        return s.unsure()
    return replace(_accepted(s), step=Step.CREATE)


def _accepted(s: Situation) -> Decision:
    reason, detail = (s.desktop.reason, s.desktop.detail) if s.desktop.phase is Phase.REPAIRING else (Reason.NONE, "")
    return s.move(Phase.BUILDING, s.news_in(s.timings.build_timeout), reason=reason, detail=detail, absent_since=None)


def _boots(s: Situation, due_in: timedelta) -> Decision:
    """Note that the server runs: what was there before a rebuild would have been deleted, even if it turned up late."""
    good_for = s.desktop.generation
    return s.move(Phase.BOOTING, due_in, reason=s.desktop.reason, detail=s.desktop.detail, server_generation=good_for)


def _delete(s: Situation, server: Server, step: Step) -> Decision:
    return replace(s.stay(s.news_in(s.timings.waiting)), step=step, target=server.id)


def _relaunch(s: Situation) -> Decision:
    if s.in_phase > s.timings.build_timeout:
        return s.fail(s.desktop.reason, s.desktop.detail)
    return _launch(s)


def _down(s: Situation, *, patience: timedelta) -> Decision | None:
    """Handle a server that should be up and is not; None = it is up or on its way. Young absences may be stale lists."""
    server = s.server
    if s.duplicate:
        repairing = s.move(Phase.REPAIRING, _NOW, reason=Reason.DUPLICATE_SERVER)
        return replace(repairing, step=Step.DELETE_DUPLICATE, target=s.duplicate.id, forget_guest=True)
    if server is None:
        return s.absent() or s.repair(Reason.SERVER_LOST, _GONE)
    if server.status is ServerStatus.SHUTOFF:
        return s.repair(Reason.SERVER_ERROR, server.fault or _GONE_BY_ITSELF) if s.in_phase > patience else s.stay(s.timings.poll)
    return None


def _building(s: Situation) -> Decision:
    if s.server is not None and s.server.status is ServerStatus.SHUTOFF and s.server.remedy is Remedy.WAIT:
        return s.wait_for_room(s.server.fault) if s.in_phase > s.timings.apart else s.stay(s.timings.poll)
    if (down := _down(s, patience=s.timings.apart)) or s.server is None:
        return down or s.stay(s.timings.poll)
    if s.server.status is ServerStatus.ERROR:
        return _broken(s, s.server)
    if s.server.status is ServerStatus.ACTIVE:
        due_in = _NOW if s.enrolled else s.news_in(s.timings.boot_timeout)  # its agent's first word wakes it
        return _boots(s, due_in)
    if s.in_phase > s.timings.build_timeout:
        detail = f"The cloud did not bring the server up within {_words(s.timings.build_timeout)}."
        return s.fail(Reason.BUILD_TIMEOUT, detail) if s.server.launched else s.repair(Reason.BUILD_TIMEOUT, detail, most=REMAKES)
    return s.stay(s.news_in(s.timings.build_timeout - s.in_phase))


def _booting(s: Situation) -> Decision:  # noqa: PLR0911  # one return a case
    guest = s.guest
    if (down := _down(s, patience=s.timings.apart)) or s.server is None:
        return down or s.stay(s.timings.poll)
    if s.server.status is ServerStatus.ERROR:
        return s.fail(Reason.SERVER_ERROR, s.server.fault)
    if guest is None:
        return s.repair(Reason.GUEST_SILENT, "")
    if guest.failure:
        return s.fail(Reason.GUEST_FAILED, guest.failure)
    if s.enrolled and s.unheard > s.timings.silent:
        return s.repair(Reason.GUEST_SILENT, silence(s.guest))
    if not s.enrolled and guest.nonce_expires_at <= s.now:  # as after an outage of ours: only a new start brings a new nonce
        return s.repair(Reason.GUEST_SILENT, _KEY_RAN_OUT)
    if guest.ready and s.server.status is ServerStatus.ACTIVE and s.server.address:
        warns = _lease_warning_due(s.desktop, s.lease, s.now)
        due_in = _NOW if warns else _next_look(s, s.now, None)
        return s.move(Phase.READY, due_in, address=s.server.address, last_active_at=s.now, idle_warned_at=None)
    if s.in_phase > s.timings.boot_timeout:
        return s.fail(Reason.BOOT_TIMEOUT, _hanging(s))
    if guest.ready:
        return s.stay(s.timings.poll)  # only its address is still missing
    speaks = s.timings.silent - s.unheard if s.enrolled else guest.nonce_expires_at - s.now
    return s.stay(s.news_in(s.timings.boot_timeout - s.in_phase, speaks))


def _ready(s: Situation) -> Decision:
    guest = s.guest
    if guest is None:
        return s.repair(Reason.GUEST_SILENT, "")
    if guest.failure:
        return s.fail(Reason.GUEST_FAILED, guest.failure)
    if s.unheard > s.timings.late and s.observed.servers is not None:
        # the guest's word outweighs a list: only when it is late does the list count
        return _late(s)
    if s.duplicate:
        return _delete(s, s.duplicate, Step.DELETE_DUPLICATE)
    return _healthy(s)


def _late(s: Situation) -> Decision:
    decision = _down(s, patience=_NOW)
    if decision is None and s.server is not None and s.server.status is ServerStatus.ERROR:
        decision = s.repair(Reason.SERVER_ERROR, s.server.fault)
    if decision is None and s.unheard > s.timings.silent:
        decision = _out_of_reach(s) or s.repair(Reason.GUEST_SILENT, silence(s.guest))
    decision = decision or s.stay(s.timings.poll)
    unexplained = decision.desktop.phase is Phase.READY and decision.desktop.reason is not Reason.HOST_LOST
    if unexplained and is_quiet(s.desktop, s.guest, s.now, s.timings):
        told = replace(decision.desktop, reason=Reason.GUEST_SILENT, detail=silence(s.guest))
        return replace(decision, desktop=told)
    return decision


def _out_of_reach(s: Situation) -> Decision | None:
    """Give a host that is silent too some time to come back: a restart costs people what they have not saved."""
    if s.server is None or s.server.host is not HostState.SILENT or s.unheard > s.timings.cut_off:
        return None
    return s.stay(s.timings.apart, reason=Reason.HOST_LOST, detail=CUT_OFF)


def _healthy(s: Situation) -> Decision:
    before, lease = s.desktop, s.lease
    active_at = last_used(before, s.guest)
    changes: dict[str, object] = {"last_active_at": active_at}
    if s.server is not None and s.server.status is ServerStatus.ACTIVE and s.server.address:
        changes["address"] = s.server.address
    if before.repairs and s.in_phase > s.timings.forgive:
        changes["repairs"] = 0
    warnings: list[EventKind] = []
    warned_at = before.idle_warned_at if before.idle_warned_at and before.idle_warned_at >= active_at else None
    if warned_at and s.now >= warned_at + lease.idle_warn_before and s.now >= active_at + lease.idle_after:
        return replace(s.stay(_NOW, **changes), intend=(Desired.STOPPED, Reason.IDLE))
    if warned_at is None and s.now >= active_at + lease.idle_after - lease.idle_warn_before:
        warned_at = s.now
        warnings.append(EventKind.IDLE_WARNING)
    changes["idle_warned_at"] = warned_at
    if _lease_warning_due(before, lease, s.now):
        changes["lease_warned_at"] = s.now
        warnings.append(EventKind.LEASE_WARNING)
    return replace(s.stay(_next_look(s, active_at, warned_at), **changes), warnings=tuple(warnings))


def _next_look(s: Situation, active_at: datetime, warned_at: datetime | None) -> timedelta:
    """Return when a healthy desktop needs the next look, if nothing happens before."""
    date = _next_date(s.desktop, s.lease, active_at, warned_at, s.now)
    rest = s.timings.healthy if warned_at is None else min(s.timings.healthy, _WARNED)
    return max(timedelta(milliseconds=100), min(rest, date - s.now))


def _lease_warning_due(desktop: Desktop, lease: LeaseRules, now: datetime) -> bool:
    from_when = desktop.lease_ends_at - lease.warn_before
    return now >= from_when and (desktop.lease_warned_at is None or desktop.lease_warned_at < from_when)


def _next_date(desktop: Desktop, lease: LeaseRules, active_at: datetime, warned_at: datetime | None, now: datetime) -> datetime:
    idle_end = active_at + lease.idle_after
    dates = [idle_end - lease.idle_warn_before, desktop.lease_ends_at - lease.warn_before, desktop.lease_ends_at]
    dates.append(max(idle_end, warned_at + lease.idle_warn_before) if warned_at else idle_end)
    return min((date for date in dates if date > now), default=desktop.lease_ends_at)


def _hanging(s: Situation) -> str:
    within = f"within {_words(s.timings.boot_timeout)}"
    guest = s.guest
    if guest is None or not s.enrolled:
        return f"The desktop's agent did not report {within}."
    pending = next((step for step in guest.steps if step.state is not StepState.DONE), None)
    told = f" ({pending.detail})" if pending and pending.detail else ""
    return f"The step {pending.name}{told} was not done {within}." if pending else f"The desktop was not ready {within}."


def _words(duration: timedelta) -> str:
    seconds = round(duration.total_seconds())
    return f"{seconds // 60} min" if seconds >= 60 and seconds % 60 == 0 else f"{seconds} s"
