"""What a cloud that places servers itself is told."""

from __future__ import annotations

from datetime import timedelta

from beamdesk.domain.ids import PersonId
from beamdesk.domain.placement import Booking
from beamdesk.reconcile.hints import hints_of
from beamdesk.scheduling.vocabulary import BOOKING, MOST_BOOKINGS
from engine_kit import EXPERIMENT, T0, make_desktop


def test_no_more_bookings_are_named_than_a_scheduler_takes_and_those_the_soonest() -> None:
    hour = timedelta(hours=1)
    many = [
        Booking(f"b{number}", EXPERIMENT.id, "gpu", T0 + number * hour, T0 + (number + 1) * hour, (), PersonId("p-ada"), T0)
        for number in range(MOST_BOOKINGS + 5)
    ]
    named = hints_of(make_desktop("desktop01", T0), many)[BOOKING].split("|")
    assert named == [f"b{number}" for number in range(MOST_BOOKINGS)]
