"""What counts as use, and what follows from it for how long a desktop runs on."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from beamdesk.domain.desktop import Phase
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.use import FRESH_FOR, GpuState, Work, last_used, use_of, works
from beamdesk.protocol.guest import NO_CARD_WORKS, Step, StepName, StepState
from engine_kit import make_desktop

RULES = LeaseRules()
T0 = datetime(2026, 3, 1, 9, tzinfo=UTC)
NOW = T0 + timedelta(hours=1)
STEPS = (Step(StepName.ENROL, StepState.DONE),)
GUEST = Guest(DesktopId("desktop01"), None, T0, None, "", seen_at=NOW, steps=STEPS, input_idle_s=3600)
DESKTOP = replace(make_desktop(), phase=Phase.READY, last_active_at=T0)


def at(minutes):
    return T0 + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("cpu", "vcpus", "counts"),
    [
        (0.10, 1, True),
        (0.09, 1, False),
        (0.10, 4, True),
        (0.0625, 16, True),
        (0.03, 16, False),
        (0.5 / 64, 64, True),
        (0.05, 0, False),
    ],
)
def test_one_cpu_that_is_half_busy_counts_however_many_there_are(cpu, vcpus, counts):
    assert (works(RULES, cpu=cpu, gpu=0.0, vcpus=vcpus) == (Work.CPU,)) is counts


def test_a_busy_card_counts_and_so_does_one_that_does_not_tell():
    assert works(RULES, cpu=0.0, gpu=0.05, vcpus=4) == (Work.GPU,)
    assert works(RULES, cpu=0.0, gpu=0.04, vcpus=4) == ()
    assert works(RULES, cpu=0.0, gpu=None, vcpus=4) == (Work.GPU,)
    assert works(RULES, cpu=0.0, gpu=NO_CARD_WORKS, vcpus=4) == ()
    assert works(RULES, cpu=1.0, gpu=1.0, vcpus=4) == (Work.CPU, Work.GPU)


def test_the_newest_sign_of_use_counts():
    assert last_used(DESKTOP, None) == T0
    assert last_used(DESKTOP, GUEST) == T0
    assert last_used(DESKTOP, replace(GUEST, input_idle_s=600)) == at(50)
    assert last_used(DESKTOP, replace(GUEST, worked_at=at(58))) == at(58)
    assert last_used(replace(DESKTOP, last_active_at=at(59)), replace(GUEST, worked_at=at(58))) == at(59)


def test_an_unused_desktop_knows_when_it_is_stopped():
    use = use_of(DESKTOP, GUEST, RULES, NOW)
    assert use
    assert (use.used_at, use.stops_at, use.works) == (T0, T0 + RULES.idle_after, ())


def test_a_late_warning_leaves_its_time():
    late = T0 + RULES.idle_after + timedelta(hours=1)
    use = use_of(replace(DESKTOP, idle_warned_at=late), GUEST, RULES, NOW)
    assert use
    assert use.stops_at == late + RULES.idle_warn_before


def test_a_warning_from_before_the_last_use_is_void():
    use = use_of(replace(DESKTOP, idle_warned_at=at(5)), replace(GUEST, worked_at=at(30), gpu=0.9), RULES, NOW)
    assert use
    assert (use.stops_at, use.works) == (at(30) + RULES.idle_after, (Work.GPU,))


@pytest.mark.parametrize(
    ("desktop", "guest", "now"),
    [
        (DESKTOP, replace(GUEST, seen_at=None), NOW),
        (DESKTOP, replace(GUEST, steps=()), NOW),
        (DESKTOP, GUEST, NOW + FRESH_FOR + timedelta(seconds=1)),
        (replace(DESKTOP, phase=Phase.STOPPED), GUEST, NOW),
        (replace(DESKTOP, phase=Phase.BOOTING), GUEST, NOW),
    ],
    ids=["never heard of", "enrolled only", "silent", "stopped", "on its way"],
)
def test_what_nobody_told_lately_is_not_known(desktop, guest, now):
    assert use_of(desktop, guest, RULES, now) is None


@pytest.mark.parametrize(
    ("gpus", "said", "state", "share"),
    [
        (0, 0.0, GpuState.NONE, None),
        (0, 0.5, GpuState.KNOWN, 0.5),
        (0, None, GpuState.UNKNOWN, None),
        (0, NO_CARD_WORKS, GpuState.NONE, None),
        (1, NO_CARD_WORKS, GpuState.UNUSABLE, None),
        (1, 0.0, GpuState.KNOWN, 0.0),
        (1, 0.9, GpuState.KNOWN, 0.9),
        (2, None, GpuState.UNKNOWN, None),
    ],
)
def test_no_card_an_idle_one_and_one_that_does_not_tell_are_three_things(gpus, said, state, share):
    desktop = replace(DESKTOP, resources=replace(DESKTOP.resources, gpus=gpus))
    use = use_of(desktop, replace(GUEST, gpu=said), RULES, NOW)
    assert use
    assert (use.gpu_state, use.gpu) == (state, share)
