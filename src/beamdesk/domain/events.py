"""One table of events, four uses: audit log, live updates (SSE), mail outbox, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from beamdesk.domain.ids import DesktopId, EventId, ExperimentId, PersonId


class EventKind(StrEnum):
    """What happened. Values are stable: they are shown, filtered on and counted."""

    SIGNED_IN = "login.created"
    SIGN_IN_REFUSED = "login.refused"
    SIGNED_OUT = "login.ended"
    REFUSED = "refused"
    DESKTOP_CREATED = "desktop.created"
    DESKTOP_INTENT = "desktop.intent"
    DESKTOP_PHASE = "desktop.phase"
    DESKTOP_STEP = "desktop.step"
    DESKTOP_EXTENDED = "desktop.extended"
    DESKTOP_RENAMED = "desktop.renamed"
    DESKTOP_REBUILT = "desktop.rebuilt"
    DESKTOP_RESIZED = "desktop.resized"
    DESKTOP_DELETED = "desktop.deleted"
    LEASE_WARNING = "lease.warning"
    IDLE_WARNING = "idle.warning"
    TICKET_ISSUED = "ticket.issued"
    TICKET_REFUSED = "ticket.refused"
    SESSION_OPENED = "session.opened"
    SESSION_ENDED = "session.ended"
    SCREEN_OPENED = "screen.opened"
    GUEST_ENROLLED = "guest.enrolled"
    GUEST_REFUSED = "guest.refused"
    TEAM_CHANGED = "experiment.team"
    DATA_READ = "data.read"
    SWEEPER_REMOVED = "sweeper.removed"
    SWEEPER_ALARM = "sweeper.alarm"
    SRM_ENROLLED = "srm.enrolled"
    SRM_REFUSED = "srm.refused"
    SRM_HOST = "srm.host"
    SRM_DEVICE = "srm.device"
    SRM_ALARM = "srm.alarm"
    BOOKING_MADE = "booking.made"
    BOOKING_CANCELLED = "booking.cancelled"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be written in the same transaction as the change it tells of. ``data``: small JSON values, never a secret."""

    kind: EventKind
    actor: PersonId | None = None
    desktop_id: DesktopId | None = None
    owner: PersonId | None = None
    experiment: ExperimentId | None = None
    data: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """A stored event. ``id`` grows in commit order and is the SSE ``Last-Event-ID``."""

    id: EventId
    at: datetime
    kind: EventKind
    actor: PersonId | None
    desktop_id: DesktopId | None
    owner: PersonId | None
    experiment: ExperimentId | None
    data: Mapping[str, str | int | float | bool | None]
