"""Servers that failed before they ever ran, and servers whose host is gone: what a desktop does by itself, and when it stops."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from beamdesk.domain.decision import REMAKES, Decision, Observed, Step, Timings
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.lifecycle import decide
from beamdesk.domain.meanwhile import SLOW, meanwhile
from beamdesk.domain.server import HostState, Observation, Remedy, Server, ServerStatus
from engine_kit import T0, make_desktop

TIMINGS = Timings(silent=timedelta(seconds=30))
FRESH = Guest(DesktopId("desktop01"), b"n" * 32, T0 + timedelta(minutes=10), None, "secret")
ALIVE = replace(FRESH, token_hash=b"t" * 32, enrolled_at=T0, seen_at=T0)
BROKEN = Server(ServerId("s1"), DesktopId("desktop01"), ServerStatus.ERROR, T0, fault="The host failed.", launched=False)
RUNS = Server(ServerId("s1"), DesktopId("desktop01"), ServerStatus.ACTIVE, T0, "tcp:10.0.0.4:8082", tied=True)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def desktop(phase: Phase, **changes: object) -> Desktop:
    return make_desktop(**{"phase": phase, "admitted": True, "observed_generation": 1, **changes})


def look(before: Desktop, server: Server, of: Guest | None = None, now: datetime = T0) -> Decision:
    return decide(before, Observed(Observation((server,)), of), now, TIMINGS, LeaseRules(), 1.0)


def test_a_server_that_never_ran_is_made_anew_a_few_times_and_then_the_desktop_fails_with_the_cause() -> None:
    building, broken = desktop(Phase.BUILDING), replace(BROKEN, remedy=Remedy.AGAIN)
    for number in range(REMAKES):
        repairing = look(building, broken, FRESH)
        assert (repairing.desktop.phase, repairing.desktop.reason) == (Phase.REPAIRING, Reason.SERVER_ERROR)
        assert (repairing.desktop.detail, repairing.desktop.repairs) == ("The host failed.", number + 1)
        assert repairing.desktop.due_at == at(10 * number), "at once, and then later"
        assert repairing.forget_guest, "the old nonce is worth nothing any more"
        gone = look(repairing.desktop, broken)
        assert gone.step is Step.DELETE_SERVER
        building = replace(building, repairs=gone.desktop.repairs)
    given_up = look(building, broken, FRESH)
    assert (given_up.desktop.phase, given_up.desktop.detail) == (Phase.FAILED, "The host failed.")


def test_a_server_that_no_host_took_is_made_anew_when_an_outage_may_be_over() -> None:
    building, broken = desktop(Phase.BUILDING), replace(BROKEN, remedy=Remedy.LATER, fault="No host can take it.")
    for wait_s in (30, 60):
        later = look(building, broken, FRESH)
        assert (later.desktop.phase, later.desktop.detail) == (Phase.REPAIRING, "No host can take it.")
        assert later.desktop.due_at == at(wait_s)
        assert look(later.desktop, broken, now=at(wait_s)).step is Step.DELETE_SERVER
        building = replace(building, repairs=later.desktop.repairs)
    given_up = look(building, broken, FRESH)
    assert (given_up.desktop.phase, given_up.desktop.detail) == (Phase.FAILED, "No host can take it.")


def test_a_server_that_has_run_is_never_thrown_away_for_an_error() -> None:
    decision = look(desktop(Phase.BUILDING), replace(BROKEN, remedy=Remedy.AGAIN, launched=True), FRESH)
    assert (decision.desktop.phase, decision.step) == (Phase.FAILED, Step.NONE)


def test_what_only_a_person_can_mend_fails_at_once() -> None:
    assert look(desktop(Phase.BUILDING), replace(BROKEN, remedy=Remedy.PERSON), FRESH).desktop.phase is Phase.FAILED


def test_a_server_for_which_there_was_no_room_after_all_waits_in_the_line_and_tries_again() -> None:
    full = replace(BROKEN, remedy=Remedy.WAIT, fault="The quota is used up.")
    waiting = look(desktop(Phase.BUILDING), full, FRESH)
    assert (waiting.desktop.phase, waiting.desktop.reason) == (Phase.QUEUED, Reason.WAITING_FOR_CAPACITY)
    assert (waiting.desktop.detail, waiting.desktop.due_at) == ("The quota is used up.", at(30))
    assert look(waiting.desktop, full, now=at(30)).step is Step.DELETE_SERVER


def test_a_build_that_gets_lost_is_made_anew() -> None:
    lost = replace(BROKEN, status=ServerStatus.BUILD, fault="")
    decision = look(desktop(Phase.BUILDING), lost, FRESH, at(601))
    assert (decision.desktop.phase, decision.desktop.reason) == (Phase.REPAIRING, Reason.BUILD_TIMEOUT)
    assert look(desktop(Phase.BUILDING), replace(lost, launched=True), FRESH, at(601)).desktop.phase is Phase.FAILED


def test_a_silent_guest_is_told_before_anything_is_done_about_it_and_told_once() -> None:
    ready = desktop(Phase.READY, address=RUNS.address)
    quiet = look(ready, RUNS, ALIVE, at(5.1))
    assert (quiet.desktop.phase, quiet.desktop.reason) == (Phase.READY, Reason.GUEST_SILENT)
    assert quiet.desktop.detail.startswith("The desktop's agent was last heard of at ")
    assert look(quiet.desktop, RUNS, ALIVE, at(9)).desktop.detail == quiet.desktop.detail
    back = look(quiet.desktop, RUNS, replace(ALIVE, seen_at=at(10)), at(10))
    assert (back.desktop.phase, back.desktop.reason, back.desktop.detail) == (Phase.READY, Reason.NONE, "")
    assert look(quiet.desktop, RUNS, ALIVE, at(30.1)).desktop.phase is Phase.REPAIRING


@pytest.mark.parametrize("tied", [False, True])
def test_a_desktop_that_may_go_on_where_nobody_sees_it_is_given_time_to_come_back_with_its_programs(tied: bool) -> None:
    ready, stranded = desktop(Phase.READY, address=RUNS.address), replace(RUNS, host=HostState.SILENT, tied=tied)
    waits = look(ready, stranded, ALIVE, at(31))
    assert (waits.desktop.phase, waits.desktop.reason, waits.forget_guest) == (Phase.READY, Reason.HOST_LOST, False)
    assert "may still run" in waits.desktop.detail
    assert look(waits.desktop, stranded, ALIVE, at(170)).desktop == replace(waits.desktop, due_at=at(171))
    back = look(waits.desktop, RUNS, replace(ALIVE, seen_at=at(100)), at(100))
    assert (back.desktop.phase, back.desktop.reason, back.step) == (Phase.READY, Reason.NONE, Step.NONE)
    assert look(waits.desktop, stranded, ALIVE, at(181)).desktop.phase is Phase.REPAIRING
    assert look(waits.desktop, RUNS, ALIVE, at(31)).desktop.phase is Phase.REPAIRING, "the host speaks, the desktop does not"
    down = replace(stranded, host=HostState.DOWN)
    assert look(waits.desktop, down, ALIVE, at(31)).desktop.phase is Phase.REPAIRING, "an operator says that it is off"


@pytest.mark.parametrize(("host", "tied"), [(HostState.DOWN, True), (HostState.DOWN, False), (HostState.SILENT, False)])
def test_a_server_on_a_lost_host_is_replaced_where_nothing_can_write_to_its_home(host: HostState, tied: bool) -> None:
    stranded = replace(RUNS, host=host, tied=tied)
    for phase in (Phase.REPAIRING, Phase.QUEUED):
        decision = look(desktop(phase), stranded)
        assert (decision.step, decision.target, decision.desktop.phase) == (Step.DELETE_SERVER, "s1", phase)


def test_a_server_whose_host_nobody_knows_of_is_waited_for_while_its_home_hangs_there() -> None:
    stranded = replace(RUNS, host=HostState.SILENT)
    repairing = desktop(Phase.REPAIRING, reason=Reason.GUEST_SILENT)
    waits = look(repairing, stranded)
    assert (waits.step, waits.desktop.phase, waits.desktop.reason) == (Step.NONE, Phase.REPAIRING, Reason.HOST_LOST)
    assert "operator" in waits.desktop.detail
    assert look(waits.desktop, RUNS).step is Step.STOP, "the host is back"
    given_up = look(waits.desktop, stranded, now=at(601))
    assert (given_up.desktop.phase, given_up.desktop.reason) == (Phase.FAILED, Reason.HOST_LOST)
    assert given_up.desktop.detail == waits.desktop.detail
    again = look(desktop(Phase.QUEUED), stranded, now=at(4000))
    assert (again.step, again.desktop.reason) == (Step.NONE, Reason.HOST_LOST)


def test_an_order_to_stop_that_is_not_carried_out_is_told() -> None:
    for phase, reason in ((Phase.REPAIRING, Reason.GUEST_SILENT), (Phase.QUEUED, Reason.CLOUD_BUSY)):
        before = desktop(phase, reason=Reason.GUEST_SILENT)
        assert "order to stop" not in look(before, RUNS, now=at(100)).desktop.detail
        told = look(before, RUNS, now=at(121))
        assert (told.step, told.desktop.reason) == (Step.STOP, reason)
        assert "order to stop" in told.desktop.detail


def test_stopping_on_a_lost_host_says_so_and_goes_on() -> None:
    stopping = desktop(Phase.STOPPING, desired=Desired.STOPPED)
    silent = look(stopping, replace(RUNS, host=HostState.SILENT))
    assert (silent.step, silent.desktop.reason) == (Step.STOP, Reason.HOST_LOST)
    assert look(stopping, replace(RUNS, host=HostState.DOWN)).step is Step.DELETE_SERVER


@pytest.mark.parametrize("phase", [Phase.DELETING, Phase.STOPPING, Phase.QUEUED])
def test_a_deletion_that_hangs_is_asked_for_again(phase: Phase) -> None:
    desired = {Phase.DELETING: Desired.DELETED, Phase.STOPPING: Desired.STOPPED}.get(phase, Desired.RUNNING)
    before, going = desktop(phase, desired=desired), replace(RUNS, status=ServerStatus.DELETING)
    assert look(before, going, now=at(100)).step is Step.NONE
    assert look(before, going, now=at(121)).step is Step.DELETE_SERVER
    assert look(before, replace(going, host=HostState.SILENT), now=at(1)).step is Step.DELETE_SERVER


def test_a_pass_that_waits_says_so_in_time_and_only_where_it_is_news() -> None:
    def said(phase: Phase, waited: float, guest: Guest | None = None, now: float = 0, desired: Desired = Desired.RUNNING) -> object:
        before = desktop(phase, desired=desired)
        return meanwhile(before, guest, at(now), TIMINGS, timedelta(seconds=waited))

    assert said(Phase.QUEUED, 4.9) is None
    assert said(Phase.QUEUED, 5) == (Reason.CLOUD_BUSY, SLOW)
    assert said(Phase.READY, 60, ALIVE, 1) is None, "a healthy desktop does not suffer from a slow cloud"
    assert said(Phase.READY, 0, ALIVE, 5.1) is not None
    assert said(Phase.READY, 5, ALIVE, 5.1, Desired.STOPPED) == (Reason.CLOUD_BUSY, SLOW)
    assert said(Phase.FAILED, 60) is None


def test_a_part_of_the_cloud_that_does_not_answer_is_told() -> None:
    part = Observation((), complete=False)
    for before, guest in ((desktop(Phase.QUEUED), None), (desktop(Phase.DELETING, desired=Desired.DELETED), None)):
        decision = decide(before, Observed(part, guest), T0, TIMINGS, LeaseRules(), 1.0)
        assert (decision.step, decision.desktop.reason) == (Step.NONE, Reason.CLOUD_UNAVAILABLE)
        assert "part of the cloud" in decision.desktop.detail


def test_a_server_without_a_host_that_finds_none_waits_for_room_and_is_started_again() -> None:
    shelved = replace(RUNS, status=ServerStatus.SHUTOFF, remedy=Remedy.WAIT, fault="No host has room.")
    building = desktop(Phase.BUILDING)
    assert look(building, shelved, FRESH, at(0.5)).desktop.phase is Phase.BUILDING, "the list may be older than the order"
    waiting = look(building, shelved, FRESH, at(1.5))
    assert (waiting.desktop.phase, waiting.desktop.reason) == (Phase.QUEUED, Reason.WAITING_FOR_CAPACITY)
    assert waiting.desktop.detail == "No host has room."
    assert look(waiting.desktop, shelved, now=at(40)).step is Step.START
    assert look(desktop(Phase.READY), shelved, ALIVE, at(4)).desktop.phase is Phase.REPAIRING, "somebody else shelved it"
