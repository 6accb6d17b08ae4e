"""What counts as use, and what follows from it for how long a desktop runs on."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.use import Work, last_used, use_of, works
from engine_kit import make_desktop

RULES = LeaseRules()
T0 = datetime(2026, 3, 1, 9, tzinfo=UTC)
GUEST = Guest(DesktopId("desktop01"), None, T0, None, "", seen_at=T0 + timedelta(hours=1), input_idle_s=3600)
DESKTOP = replace(make_desktop(), last_active_at=T0)


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
    assert works(RULES, cpu=1.0, gpu=1.0, vcpus=4) == (Work.CPU, Work.GPU)


def test_the_newest_sign_of_use_counts():
    assert last_used(DESKTOP, None) == T0
    assert last_used(DESKTOP, GUEST) == T0
    assert last_used(DESKTOP, replace(GUEST, input_idle_s=600)) == at(50)
    assert last_used(DESKTOP, replace(GUEST, worked_at=at(58))) == at(58)
    assert last_used(replace(DESKTOP, last_active_at=at(59)), replace(GUEST, worked_at=at(58))) == at(59)


def test_an_unused_desktop_knows_when_it_is_stopped():
    use = use_of(DESKTOP, GUEST, RULES)
    assert use
    assert (use.used_at, use.stops_at, use.works) == (T0, T0 + RULES.idle_after, ())


def test_a_late_warning_leaves_its_time():
    late = T0 + RULES.idle_after + timedelta(hours=1)
    use = use_of(replace(DESKTOP, idle_warned_at=late), GUEST, RULES)
    assert use
    assert use.stops_at == late + RULES.idle_warn_before


def test_a_warning_from_before_the_last_use_is_void():
    use = use_of(replace(DESKTOP, idle_warned_at=at(5)), replace(GUEST, worked_at=at(30), gpu=0.9), RULES)
    assert use
    assert (use.stops_at, use.works) == (at(30) + RULES.idle_after, (Work.GPU,))


def test_of_a_guest_that_never_reported_nothing_is_known():
    assert use_of(DESKTOP, replace(GUEST, seen_at=None), RULES) is None
