"""The desktop: the user's machine as a resource. It outlives its server.

Two halves with one writer each: the *intent* (desired, generation, lease, name, shape) is written by the use cases, the *state*
(phase, reason, server, attempts) by the reconciler that holds the claim. Neither overwrites the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from beamdesk.domain.catalog import Resources
from beamdesk.domain.ids import DesktopId, ExperimentId, FlavorId, ImageId, PersonId, ServerId
from beamdesk.scheduling.vocabulary import NOTHING, Words


class Desired(StrEnum):
    """What is wanted of a desktop."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


class Phase(StrEnum):
    """Where a desktop is. Transitions: `lifecycle.TRANSITIONS`."""

    QUEUED = "queued"
    BUILDING = "building"
    BOOTING = "booting"
    READY = "ready"
    REPAIRING = "repairing"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DELETING = "deleting"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a desktop is where it is: a stable code; pages and CLI have the words for it."""

    NONE = ""
    WAITING_FOR_CAPACITY = "waiting_for_capacity"
    NEVER_FITS = "never_fits"
    LEASE_ENDED = "lease_ended"
    IDLE = "idle"
    USER = "user"
    OPERATOR = "operator"
    CLOUD_UNAVAILABLE = "cloud_unavailable"
    CLOUD_BUSY = "cloud_busy"
    CLOUD_REFUSED = "cloud_refused"
    BUILD_TIMEOUT = "build_timeout"
    BOOT_TIMEOUT = "boot_timeout"
    SERVER_ERROR = "server_error"
    SERVER_LOST = "server_lost"
    HOST_LOST = "host_lost"
    GUEST_FAILED = "guest_failed"
    GUEST_SILENT = "guest_silent"
    DUPLICATE_SERVER = "duplicate_server"


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Place in the line: 1 = next. ``lacking`` names the resources; ``expected_at`` is estimated from lease ends where possible."""

    place: int
    lacking: tuple[str, ...]
    expected_at: datetime | None


@dataclass(frozen=True, slots=True)
class Shape:
    """What a desktop's server is made of: the intent of a rebuild or a resize. ``image_ref``: the driver's name of the image."""

    image_ref: str
    flavor: FlavorId
    resources: Resources
    words: Words


@dataclass(frozen=True, slots=True)
class Desktop:
    """A row of the desktop table. Times are UTC. ``version`` grows with every change (ETag); ``generation`` with every intent."""

    id: DesktopId
    name: str
    owner: PersonId
    experiment: ExperimentId
    image: ImageId
    image_ref: str
    flavor: FlavorId
    resources: Resources
    # intent
    desired: Desired
    desired_reason: Reason
    generation: int
    lease_ends_at: datetime
    # state
    phase: Phase
    phase_since: datetime
    reason: Reason
    detail: str
    observed_generation: int
    admitted: bool
    server_id: ServerId | None
    address: str | None
    attempts: int
    queued_at: datetime | None
    queue: QueuePlace | None
    # bookkeeping
    created_at: datetime
    due_at: datetime
    version: int
    last_active_at: datetime
    idle_warned_at: datetime | None = None
    lease_warned_at: datetime | None = None
    desired_generation: int = 0
    """The generation that last wrote ``desired``: a later one than observed means start again, even from failed."""
    repairs: int = 0
    """Restarts since the last start intent; forgotten after a while of good health."""
    absent_since: datetime | None = None
    """When a complete observation first did not show the server; one absence is never proof."""
    words: Words = NOTHING
    """What its size and image asked of a host and its cards when it was applied for, rebuilt or resized last."""
    fresh_generation: int = 0
    """The generation that last asked for a server made anew: a rebuild or another size. Intent."""
    server_generation: int = 0
    """The newest generation that its server is good for. State."""

    @property
    def resizable(self) -> bool:
        """Tell whether its size can be another from the next start on: it holds no share of capacity and is given none."""
        stopped = self.phase is Phase.STOPPED and self.desired is Desired.STOPPED
        return stopped or (self.phase is Phase.FAILED and self.desired is not Desired.DELETED and not self.admitted)

    @property
    def outdated(self) -> bool:
        """Tell whether a server from before must give way to a new one at the next start."""
        return self.fresh_generation > self.server_generation

    @property
    def untouched(self) -> bool:
        """Tell whether it still waits for its first start: no start was ever tried. Its guest row is the proof, this the hint."""
        waits = self.phase is Phase.QUEUED and self.phase_since == self.created_at
        return waits and self.server_id is None and not self.attempts and not self.detail
