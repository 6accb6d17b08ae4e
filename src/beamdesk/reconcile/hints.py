"""What a cloud that places servers itself is told of a desktop: hints for our plugins in its scheduler; others ignore them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from beamdesk.domain.desktop import Desktop
from beamdesk.domain.placement import Booking
from beamdesk.scheduling.vocabulary import BOOKING, MOST_BOOKINGS, UNTIL, write


def hints_of(desktop: Desktop, bookings: Iterable[Booking]) -> dict[str, str]:
    """Return the words of size and image, the end of the lease, and the bookings of the desktop's experiment, soonest first.

    The number of cards is left out: the cloud's own flavor brings them, and an operator may have changed it since.
    ``bookings``: those that are not over, soonest first.
    """
    own = [one.id for one in bookings if one.experiment == desktop.experiment][:MOST_BOOKINGS]
    hints = write(replace(desktop.words, gpus=None), "_") | {UNTIL: str(int(desktop.lease_ends_at.timestamp()))}
    return hints | ({BOOKING: "|".join(own)} if own else {})
