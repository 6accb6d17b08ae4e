"""A rebuild, or another size: the server from before gives way at the next start, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from beamdesk.domain.decision import Decision, Observed, Step, Timings
from beamdesk.domain.desktop import Desired, Desktop, Phase
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.lifecycle import decide
from beamdesk.domain.server import Observation, Server, ServerStatus
from engine_kit import T0, make_desktop

FRESH = Guest(DesktopId("desktop01"), b"n" * 32, T0 + timedelta(minutes=10), None, "secret")
OFF = Server(ServerId("s1"), DesktopId("desktop01"), ServerStatus.SHUTOFF, T0)


def launching(**changes: object) -> Desktop:
    """Return a desktop that was rebuilt by its fifth generation and may run."""
    values = {"phase": Phase.QUEUED, "admitted": True, "generation": 5, "observed_generation": 5, "fresh_generation": 5}
    return make_desktop(**(values | changes))


def look(before: Desktop, *servers: Server, guest: Guest | None = None) -> Decision:
    return decide(before, Observed(Observation(servers), guest), T0, Timings(), LeaseRules(), 1.0)


def test_the_server_from_before_is_deleted_and_a_new_one_made_that_counts_as_the_new() -> None:
    away = look(launching(server_generation=1), OFF)
    assert (away.step, away.target, away.desktop.phase) == (Step.DELETE_SERVER, "s1", Phase.QUEUED)
    leaving = look(away.desktop, replace(OFF, status=ServerStatus.DELETING))
    assert leaving.step is Step.NONE
    made = look(leaving.desktop)
    assert (made.step, made.desktop.phase) == (Step.CREATE, Phase.BUILDING)
    up = look(made.desktop, replace(OFF, status=ServerStatus.ACTIVE), guest=FRESH)
    assert (up.desktop.phase, up.desktop.server_generation, up.desktop.outdated) == (Phase.BOOTING, 5, False)


def test_a_server_from_before_that_a_list_hid_and_the_cloud_found_gives_way_too() -> None:
    building = launching(server_generation=1, phase=Phase.BUILDING)
    repairing = look(replace(building, phase_since=T0 - timedelta(seconds=5)), OFF, guest=FRESH)
    assert (repairing.desktop.phase, repairing.forget_guest) == (Phase.REPAIRING, True)
    assert look(repairing.desktop, OFF).step is Step.DELETE_SERVER


def test_a_server_that_is_good_is_started_again() -> None:
    started = look(launching(server_generation=5), OFF)
    assert (started.step, started.desktop.phase) == (Step.START, Phase.BUILDING)


def test_a_server_that_runs_of_no_use_is_stopped_before_it_is_deleted() -> None:
    stopped = look(launching(server_generation=1), replace(OFF, status=ServerStatus.ACTIVE))
    assert stopped.step is Step.STOP


@pytest.mark.parametrize(("status", "phase"), [(ServerStatus.BUILD, Phase.BUILDING), (ServerStatus.ACTIVE, Phase.BOOTING)])
def test_a_new_server_whose_answer_got_lost_is_kept(status: ServerStatus, phase: Phase) -> None:
    up = look(launching(server_generation=1), replace(OFF, status=status), guest=FRESH)
    assert (up.step, up.desktop.phase, up.desktop.outdated) == (Step.NONE, phase, phase is Phase.BUILDING)


def test_a_server_that_is_off_is_never_taken_for_the_new_one() -> None:
    away = look(launching(server_generation=1), OFF, guest=FRESH)
    assert (away.step, away.forget_guest) == (Step.DELETE_SERVER, True)


def test_nothing_is_deleted_before_the_next_start() -> None:
    stopped = launching(phase=Phase.STOPPED, admitted=False, desired=Desired.STOPPED, server_generation=1)
    resting = look(stopped, OFF)
    assert (resting.step, resting.desktop.phase, resting.desktop.outdated) == (Step.NONE, Phase.STOPPED, True)
