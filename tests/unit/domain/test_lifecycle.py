"""The rules, one by one. Times are counted from T0."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from beamdesk.domain.decision import Decision, Observed, Step, Timings
from beamdesk.domain.desktop import Desired, Desktop, Phase, QueuePlace, Reason
from beamdesk.domain.errors import CloudError, CloudFull, CloudRefused, CloudUnavailable
from beamdesk.domain.events import EventKind
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.lifecycle import act_failed, decide
from beamdesk.domain.server import Observation, Server, ServerStatus
from beamdesk.pace import reconcile_rules
from beamdesk.protocol.guest import Step as GuestStep
from beamdesk.protocol.guest import StepName, StepState
from beamdesk.settings import Settings
from engine_kit import T0, make_desktop

TIMINGS, LEASE = Timings(), LeaseRules()
ABSENT = Observation(())
DONE = tuple(GuestStep(name, StepState.DONE) for name in StepName)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def server(status: ServerStatus = ServerStatus.ACTIVE, number: int = 1, **changes: Any) -> Server:
    address = "unix:/run/s.sock" if status is ServerStatus.ACTIVE else None
    base = Server(ServerId(f"server-{number}"), DesktopId("desktop01"), status, at(number), address)
    return replace(base, **changes)


def seen(*servers: Server, complete: bool = True) -> Observation:
    return Observation(servers, complete)


def guest(**changes: Any) -> Guest:
    """An enrolled guest with all steps done, heard of at T0."""
    base = Guest(DesktopId("desktop01"), None, at(60), b"t" * 32, "secret", enrolled_at=T0, seen_at=T0, steps=DONE)
    return replace(base, **changes)


FRESH = guest(nonce_hash=b"n" * 32, token_hash=None, enrolled_at=None, seen_at=None, steps=())


def look(
    desktop: Desktop, servers: Observation | None = ABSENT, of: Guest | None = None, now: datetime = T0, **observed: Any
) -> Decision:
    return decide(desktop, Observed(servers, of, **observed), now, TIMINGS, LEASE, 1.0)


def in_phase(phase: Phase, **changes: Any) -> Desktop:
    admitted = phase not in (Phase.STOPPED, Phase.DELETING)
    return make_desktop(**{"phase": phase, "admitted": admitted, "observed_generation": 1, **changes})


def test_a_new_desktop_asks_for_its_share_first() -> None:
    assert look(make_desktop()).step is Step.ADMIT


def test_a_desktop_that_must_wait_shows_its_place() -> None:
    place = QueuePlace(2, ("gpus",), at(60))
    decision = look(make_desktop(), place=place)
    assert (decision.step, decision.desktop.queue, decision.desktop.reason) == (Step.NONE, place, Reason.WAITING_FOR_CAPACITY)


def test_a_desktop_that_never_fits_fails_at_once_and_holds_nothing() -> None:
    decision = look(make_desktop(), never_fits=("gpus",))
    assert (decision.desktop.phase, decision.desktop.reason) == (Phase.FAILED, Reason.NEVER_FITS)
    assert "gpus" in decision.desktop.detail
    assert not decision.desktop.admitted


def test_an_admitted_desktop_is_created_only_on_a_complete_answer() -> None:
    assert look(in_phase(Phase.QUEUED)).step is Step.CREATE
    assert look(in_phase(Phase.QUEUED), seen(complete=False)).step is Step.NONE


def test_a_server_whose_creation_was_not_answered_is_taken_over() -> None:
    assert look(in_phase(Phase.QUEUED), seen(server(ServerStatus.BUILD)), FRESH).desktop.phase is Phase.BUILDING
    assert look(in_phase(Phase.QUEUED), seen(server()), FRESH).desktop.phase is Phase.BOOTING


def test_an_enrolled_guest_proves_a_server_that_the_list_does_not_show() -> None:
    decision = look(in_phase(Phase.QUEUED), ABSENT, guest())
    assert (decision.step, decision.desktop.absent_since) == (Step.NONE, T0)


def test_a_server_that_runs_without_an_identity_from_us_is_stopped_before_the_start() -> None:
    assert look(in_phase(Phase.QUEUED), seen(server())).step is Step.STOP
    assert look(in_phase(Phase.QUEUED), seen(server(ServerStatus.SHUTOFF))).step is Step.START
    assert look(in_phase(Phase.QUEUED), seen(server(ServerStatus.ERROR))).step is Step.DELETE_SERVER


def test_a_build_error_fails_with_the_clouds_cause() -> None:
    decision = look(in_phase(Phase.BUILDING), seen(server(ServerStatus.ERROR, fault="No valid host was found.")), FRESH)
    assert (decision.desktop.phase, decision.desktop.reason) == (Phase.FAILED, Reason.SERVER_ERROR)
    assert decision.desktop.detail == "No valid host was found."
    assert decision.desktop.admitted, "the broken server still has its share"


def test_building_and_booting_have_time_limits() -> None:
    late = look(in_phase(Phase.BUILDING), seen(server(ServerStatus.BUILD)), FRESH, at(601))
    assert late.desktop.reason is Reason.BUILD_TIMEOUT
    stuck = guest(steps=(*DONE[:3], GuestStep(StepName.DISPLAY, StepState.RUNNING, "starting X")), seen_at=at(180))
    late = look(in_phase(Phase.BOOTING), seen(server()), stuck, at(181))
    assert (late.desktop.reason, late.desktop.phase) == (Reason.BOOT_TIMEOUT, Phase.FAILED)
    assert "display" in late.desktop.detail
    assert "starting X" in late.desktop.detail


def test_a_guest_whose_one_time_key_ran_out_unspent_gets_another_by_a_restart() -> None:
    booting = in_phase(Phase.BOOTING, phase_since=at(59))
    assert look(booting, seen(server()), FRESH, at(59)).desktop.phase is Phase.BOOTING
    late = look(booting, seen(server()), FRESH, at(60))
    assert (late.desktop.phase, late.desktop.reason, late.forget_guest) == (Phase.REPAIRING, Reason.GUEST_SILENT, True)
    assert look(booting, seen(server()), guest(seen_at=at(60)), at(60)).desktop.phase is Phase.READY, "a spent key does not run out"


def test_ready_needs_a_running_server_with_an_address_and_a_guest_that_is_done() -> None:
    booting = in_phase(Phase.BOOTING)
    ready = look(booting, seen(server()), guest())
    assert (ready.desktop.phase, ready.desktop.address) == (Phase.READY, "unix:/run/s.sock")
    assert look(booting, seen(server(address=None)), guest()).desktop.phase is Phase.BOOTING
    assert (
        look(booting, seen(server()), guest(steps=(*DONE[:-1], GuestStep(StepName.STREAM, StepState.RUNNING)))).desktop.phase
        is Phase.BOOTING
    )
    assert look(booting, seen(server()), FRESH).desktop.phase is Phase.BOOTING


@pytest.mark.parametrize("phase", [Phase.BOOTING, Phase.READY])
def test_a_guest_that_gave_up_fails_the_desktop_with_its_cause(phase: Phase) -> None:
    decision = look(in_phase(phase), seen(server()), guest(failure="The X server ended."))
    assert (decision.desktop.phase, decision.desktop.reason) == (Phase.FAILED, Reason.GUEST_FAILED)
    assert decision.desktop.detail == "The X server ended."
    assert decision.desktop.address is None


def test_a_silent_guest_is_repaired_once_and_then_failed() -> None:
    ready = in_phase(Phase.READY, address="unix:/run/s.sock")
    assert look(ready, seen(server()), guest(), at(5.9)).desktop.phase is Phase.READY
    first = look(ready, seen(server()), guest(), at(6.1))
    assert (first.desktop.phase, first.desktop.reason, first.forget_guest) == (Phase.REPAIRING, Reason.GUEST_SILENT, True)
    assert first.desktop.address is None
    again = look(replace(ready, repairs=1), seen(server()), guest(), at(6.1))
    assert (again.desktop.phase, again.desktop.reason) == (Phase.FAILED, Reason.GUEST_SILENT)


def test_a_repair_stops_and_starts_the_server() -> None:
    repairing = in_phase(Phase.REPAIRING, reason=Reason.GUEST_SILENT, repairs=1)
    assert look(repairing, seen(server())).step is Step.STOP
    started = look(repairing, seen(server(ServerStatus.SHUTOFF)))
    assert (started.step, started.desktop.phase, started.desktop.reason) == (Step.START, Phase.BUILDING, Reason.GUEST_SILENT)


def test_repairs_are_forgotten_after_good_health() -> None:
    ready = in_phase(Phase.READY, repairs=1)
    assert look(ready, seen(server()), guest(seen_at=at(500)), at(500)).desktop.repairs == 1
    assert look(ready, seen(server()), guest(seen_at=at(601)), at(601)).desktop.repairs == 0


def test_a_lost_server_counts_only_when_complete_and_seen_missing_twice_apart() -> None:
    ready = in_phase(Phase.READY)
    first = look(ready, ABSENT, guest(), at(4))
    assert (first.desktop.phase, first.desktop.absent_since) == (Phase.READY, at(4))
    assert look(first.desktop, ABSENT, guest(), at(4.5)).desktop.phase is Phase.READY, "too soon"
    assert look(first.desktop, seen(complete=False), guest(), at(5.5)).desktop.phase is Phase.READY, "incomplete"
    assert look(first.desktop, seen(server()), guest(), at(5.5)).desktop.absent_since is None, "there again"
    lost = look(first.desktop, ABSENT, guest(), at(5.1))
    assert (lost.desktop.phase, lost.desktop.reason) == (Phase.REPAIRING, Reason.SERVER_LOST)


def test_a_heartbeat_outweighs_a_list() -> None:
    for observation in (ABSENT, seen(server(ServerStatus.SHUTOFF)), None):
        decision = look(in_phase(Phase.READY), observation, guest(seen_at=at(10)), at(11))
        assert (decision.desktop.phase, decision.step) == (Phase.READY, Step.NONE)


def test_a_second_server_is_removed_and_it_is_the_younger_one() -> None:
    both = seen(server(number=2), server(number=1))
    booting = look(in_phase(Phase.BOOTING, server_id="server-2"), both, guest())
    assert (booting.step, booting.target, booting.desktop.phase) == (Step.DELETE_DUPLICATE, "server-2", Phase.REPAIRING)
    ready = look(in_phase(Phase.READY), both, guest())
    assert (ready.step, ready.target, ready.desktop.phase) == (Step.DELETE_DUPLICATE, "server-2", Phase.READY)


def test_the_end_of_the_lease_stops_and_never_deletes() -> None:
    ended = look(in_phase(Phase.READY, lease_ends_at=at(10)), seen(server()), guest(seen_at=at(10)), at(10))
    assert ended.intend == (Desired.STOPPED, Reason.LEASE_ENDED)
    assert ended.desktop.phase is Phase.READY, "the next pass stops it"


def test_a_waiting_desktop_does_not_lose_its_lease() -> None:
    assert look(make_desktop(lease_ends_at=at(10)), now=at(20)).step is Step.ADMIT


def test_the_end_of_the_lease_is_announced_once_for_each_end() -> None:
    ends = T0 + timedelta(hours=8)
    when = ends - timedelta(minutes=29)
    alive = guest(seen_at=when)
    ready = in_phase(Phase.READY, lease_ends_at=ends, last_active_at=when)
    warned = look(ready, seen(server()), alive, when)
    assert warned.warnings == (EventKind.LEASE_WARNING,)
    assert look(warned.desktop, seen(server()), alive, when).warnings == ()
    later = ends + timedelta(hours=3, minutes=31)
    extended = replace(warned.desktop, lease_ends_at=ends + timedelta(hours=4), last_active_at=later)
    assert look(extended, seen(server()), guest(seen_at=later), later).warnings == (EventKind.LEASE_WARNING,)


def test_a_healthy_desktop_is_looked_at_seldom_in_a_cloud_and_soon_while_it_says_a_warning() -> None:
    cloud = reconcile_rules(Settings(cloud="openstack")).timings
    day, soon = T0 + timedelta(days=1), T0 + LEASE.idle_after - LEASE.idle_warn_before
    ready = in_phase(Phase.READY, lease_ends_at=day, last_active_at=T0)

    def due_in(desktop: Desktop, now: datetime, **used: Any) -> timedelta:
        observed = Observed(seen(server()), guest(seen_at=now, **used))
        return decide(desktop, observed, now, cloud, LEASE, 0.5).desktop.due_at - now

    assert due_in(ready, T0) == timedelta(minutes=10)
    assert due_in(replace(ready, idle_warned_at=soon), soon, input_idle_s=(soon - T0).total_seconds()) <= timedelta(minutes=1)


def test_an_unused_desktop_is_warned_and_then_stopped() -> None:
    def idle(now: datetime, **changes: Any) -> Guest:
        return guest(seen_at=now, input_idle_s=(now - T0).total_seconds(), **changes)

    ready = in_phase(Phase.READY, lease_ends_at=T0 + timedelta(days=1), last_active_at=T0)
    soon = T0 + LEASE.idle_after - LEASE.idle_warn_before
    warned = look(ready, seen(server()), idle(soon), soon)
    assert warned.warnings == (EventKind.IDLE_WARNING,)
    assert warned.desktop.due_at <= T0 + LEASE.idle_after
    end = T0 + LEASE.idle_after
    assert look(warned.desktop, seen(server()), idle(end), end).intend == (Desired.STOPPED, Reason.IDLE)
    unwarned = look(ready, seen(server()), idle(end), end)
    assert (unwarned.intend, unwarned.warnings) == (None, (EventKind.IDLE_WARNING,)), "never without a warning"
    busy = look(warned.desktop, seen(server()), idle(end, worked_at=end), end)
    assert (busy.intend, busy.desktop.last_active_at, busy.desktop.idle_warned_at) == (None, end, None)
    paused = look(ready, seen(server()), idle(end, worked_at=soon), end)
    assert (paused.intend, paused.warnings) == (None, ()), "a computation between two looks counts when it was"
    assert look(warned.desktop, seen(server()), guest(seen_at=end, input_idle_s=1), end).intend is None


def test_stopping_keeps_the_home_and_frees_the_capacity() -> None:
    leaving = look(in_phase(Phase.READY, desired=Desired.STOPPED), seen(server()), guest())
    assert (leaving.desktop.phase, leaving.forget_guest, leaving.desktop.address) == (Phase.STOPPING, True, None)
    assert look(leaving.desktop, seen(server())).step is Step.STOP
    off = look(leaving.desktop, seen(server(ServerStatus.SHUTOFF)))
    assert (off.desktop.phase, off.desktop.admitted, off.desktop.reason) == (Phase.STOPPED, False, Reason.USER)


def test_a_stopped_desktop_found_running_is_stopped_again() -> None:
    stopped = in_phase(Phase.STOPPED, desired=Desired.STOPPED)
    assert look(stopped, seen(server())).desktop.phase is Phase.STOPPING
    assert look(stopped, seen(server(ServerStatus.SHUTOFF))).desktop.phase is Phase.STOPPED


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.DELETING])
def test_deleting_wins_over_everything(phase: Phase) -> None:
    decision = look(in_phase(phase, desired=Desired.DELETED, lease_ends_at=T0), seen(server()), guest(failure="x"), at(1000))
    assert (decision.desktop.phase, decision.forget_guest) == (Phase.DELETING, True)


def test_deleting_removes_servers_then_proves_absence_then_the_home_and_the_row_last() -> None:
    deleting = in_phase(Phase.DELETING, desired=Desired.DELETED)
    assert look(deleting, seen(server(), server(number=2))).step is Step.DELETE_SERVER
    assert look(deleting, seen(server(ServerStatus.DELETING))).step is Step.NONE
    once = look(deleting)
    assert (once.step, once.remove) == (Step.NONE, False)
    assert look(once.desktop, seen(complete=False), now=at(5)).step is Step.NONE
    twice = look(once.desktop, now=at(1.1))
    assert (twice.step, twice.remove) == (Step.DELETE_HOME, True)


def test_failed_stays_until_somebody_acts() -> None:
    failed = in_phase(
        Phase.FAILED, reason=Reason.BOOT_TIMEOUT, detail="why", generation=3, observed_generation=2, desired_generation=1
    )
    renamed = look(failed, seen(server()))
    assert (renamed.desktop.phase, renamed.desktop.reason, renamed.desktop.detail) == (Phase.FAILED, Reason.BOOT_TIMEOUT, "why")
    retried = look(replace(failed, desired_generation=3), seen(server()))
    assert (retried.desktop.phase, retried.forget_guest, retried.desktop.repairs) == (Phase.QUEUED, True, 0)
    assert look(replace(failed, desired=Desired.STOPPED), seen(server())).desktop.phase is Phase.STOPPING


def test_an_unanswering_cloud_is_told_and_asked_again_ever_later() -> None:
    desktop, delays = in_phase(Phase.BUILDING), []
    for _ in range(10):
        decision = look(desktop, None, FRESH, cloud_error="No connection.")
        assert (decision.desktop.phase, decision.desktop.reason) == (Phase.BUILDING, Reason.CLOUD_UNAVAILABLE)
        assert decision.desktop.detail == "No connection."
        delays.append((decision.desktop.due_at - T0).total_seconds())
        desktop = decision.desktop
    assert delays[:4] == [0.5, 1, 2, 4]
    assert delays[-1] == 6
    well = look(desktop, seen(server(ServerStatus.BUILD)), FRESH)
    assert (well.desktop.attempts, well.desktop.reason, well.desktop.detail) == (0, Reason.NONE, "")


def fail(desktop: Desktop, servers: Observation, error: CloudError) -> Decision:
    observed = Observed(servers, None)
    decision = decide(desktop, observed, T0, TIMINGS, LEASE)
    return act_failed(desktop, decision, observed, error, now=T0, timings=TIMINGS, lease=LEASE, jitter=0.0)


def test_a_lost_answer_is_tried_again_and_a_refusal_fails() -> None:
    again = fail(in_phase(Phase.QUEUED), ABSENT, CloudUnavailable("why"))
    assert (again.desktop.phase, again.desktop.attempts, again.desktop.reason) == (Phase.QUEUED, 1, Reason.CLOUD_UNAVAILABLE)
    assert again.desktop.due_at == at(0.25), "jitter halves it at most"
    busy = fail(in_phase(Phase.QUEUED), ABSENT, CloudError("The port is in use."))
    assert (busy.desktop.reason, busy.desktop.detail) == (Reason.CLOUD_BUSY, "The port is in use.")
    refused = fail(in_phase(Phase.QUEUED), ABSENT, CloudRefused("why"))
    assert (refused.desktop.phase, refused.desktop.reason, refused.desktop.detail) == (Phase.FAILED, Reason.CLOUD_REFUSED, "why")
    assert not refused.desktop.admitted, "nothing was made, so nothing is held"


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.REPAIRING])
def test_a_full_cloud_is_waited_for_in_the_line(phase: Phase) -> None:
    waiting = fail(in_phase(phase), ABSENT, CloudFull("The quota is used up."))
    assert (waiting.desktop.phase, waiting.desktop.reason) == (Phase.QUEUED, Reason.WAITING_FOR_CAPACITY)
    assert (waiting.desktop.detail, waiting.desktop.due_at, waiting.forget_guest) == ("The quota is used up.", at(15), True)
    assert waiting.desktop.admitted, "its lease runs, so that the attempts have an end"


@pytest.mark.parametrize("desired", [Desired.STOPPED, Desired.DELETED])
def test_stopping_and_deleting_never_give_up(desired: Desired) -> None:
    phase = Phase.STOPPING if desired is Desired.STOPPED else Phase.DELETING
    refused = fail(in_phase(phase, desired=desired), seen(server()), CloudRefused("why"))
    assert (refused.desktop.phase, refused.desktop.reason, refused.remove) == (phase, Reason.CLOUD_REFUSED, False)
    assert refused.desktop.admitted == (phase is Phase.STOPPING)
