"""What a desktop's state says while nobody knows better yet: its guest is silent, or the cloud takes long. Pure.

People are told within seconds; what is done about it may take longer, because a restart costs them their unsaved work.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from beamdesk.domain.decision import Timings
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.guest import Guest

SLOW = "The cloud is slow to answer. Beamdesk waits for it."
_RESTING = (Phase.FAILED, Phase.STOPPED)


def silence(guest: Guest | None) -> str:
    """Say when the guest was last heard of; the same text as long as it stays silent."""
    seen = guest.seen_at if guest else None
    return f"The desktop's agent was last heard of at {seen.astimezone(UTC):%H:%M:%S} UTC." if seen else ""


def is_quiet(desktop: Desktop, guest: Guest | None, now: datetime, timings: Timings) -> bool:
    """Tell whether a ready desktop has been silent for so long that people should know."""
    seen = guest.seen_at if guest else None
    wanted = desktop.phase is Phase.READY and desktop.desired is Desired.RUNNING
    return wanted and seen is not None and now - seen > timings.quiet


def meanwhile(
    desktop: Desktop, guest: Guest | None, now: datetime, timings: Timings, waited: timedelta
) -> tuple[Reason, str] | None:
    """Return what to tell of a desktop whose pass has waited for the cloud for so long; None = nothing new."""
    if is_quiet(desktop, guest, now, timings):
        if desktop.reason is Reason.HOST_LOST:
            return None  # more is known already
        return Reason.GUEST_SILENT, silence(guest)
    healthy = desktop.phase is Phase.READY and desktop.desired is Desired.RUNNING
    if healthy or desktop.phase in _RESTING or waited < timings.patience:
        return None
    return Reason.CLOUD_BUSY, SLOW
