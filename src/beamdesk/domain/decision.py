"""What the lifecycle is told and what it answers, and the small moves that all its rules are made of. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from beamdesk.domain.desktop import Desired, Desktop, Phase, QueuePlace, Reason
from beamdesk.domain.events import EventKind
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import ServerId
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.server import HostState, Observation, Server, ServerStatus
from beamdesk.protocol.guest import HEARTBEAT_S


class Step(StrEnum):
    """The one thing to do in a pass. All but NONE and ADMIT are a write to the cloud."""

    NONE = "none"
    ADMIT = "admit"
    CREATE = "create"
    START = "start"
    STOP = "stop"
    DELETE_SERVER = "delete_server"
    DELETE_DUPLICATE = "delete_duplicate"
    DELETE_HOME = "delete_home"


@dataclass(frozen=True, slots=True)
class Timings:
    """How long is how long.

    ``poll``: while something moves. ``apart``: between two absences that count. ``late``: a heartbeat is missed: look. ``quiet``:
    say that the guest is silent. ``silent``: do something about it. ``cut_off``: the same where its host is silent too: the desktop
    may go on there, only not be reached. ``patience``: so long people wait without a word.

    ``calm``: while something moves of which news comes by itself; None = it does not.
    ``room``: between two attempts to get into a full cloud. ``stuck``: an order that is not carried out by then is given again.
    ``blind``: the longest pause between two looks at a cloud that does not answer; ``backoff_most``: at one that says no for now.
    """

    poll: timedelta = timedelta(milliseconds=200)
    apart: timedelta = timedelta(seconds=1)
    waiting: timedelta = timedelta(seconds=10)
    healthy: timedelta = timedelta(seconds=60)
    rest: timedelta = timedelta(hours=1)
    build_timeout: timedelta = timedelta(minutes=10)
    boot_timeout: timedelta = timedelta(minutes=3)
    late: timedelta = timedelta(seconds=1.5 * HEARTBEAT_S)
    quiet: timedelta = timedelta(seconds=2.5 * HEARTBEAT_S)
    silent: timedelta = timedelta(seconds=3 * HEARTBEAT_S)
    cut_off: timedelta = timedelta(minutes=3)
    patience: timedelta = timedelta(seconds=5)
    forgive: timedelta = timedelta(minutes=10)
    room: timedelta = timedelta(seconds=30)
    stuck: timedelta = timedelta(minutes=2)
    blind: timedelta = timedelta(seconds=6)
    calm: timedelta | None = None
    backoff_first: timedelta = timedelta(milliseconds=500)
    backoff_most: timedelta = timedelta(seconds=15)


RESTARTS = 1
"""How often a server is started again by itself before the desktop fails with the cause."""
REMAKES = 2
"""How often a server that never ran is made anew by itself."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen in this pass. ``servers`` None = the cloud did not answer, ``cloud_error`` says why.

    ``place``: where in the waiting line, once asked. ``never_fits``: kinds of which the desktop asks more than there is at all.
    """

    servers: Observation | None
    guest: Guest | None
    place: QueuePlace | None = None
    never_fits: tuple[str, ...] = ()
    cloud_error: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and how the desktop looks when it is done.

    ``desktop`` has its state half replaced, ``due_at`` included. ``intend``: the rules change the intent (lease end, idle).
    ``forget_guest``: nonces and identity are worthless from now on. ``remove``: the row goes, after the step succeeded.
    """

    desktop: Desktop
    step: Step = Step.NONE
    target: ServerId | None = None
    intend: tuple[Desired, Reason] | None = None
    warnings: tuple[EventKind, ...] = ()
    forget_guest: bool = False
    remove: bool = False


HOST_SILENT = (
    "The machine that it runs on does not answer, and its home is in use there. "
    "It goes on by itself when the machine is back or an operator has taken it out of service."
)
CUT_OFF = (
    "The machine that it runs on does not answer. Programs may still run there, so Beamdesk waits some minutes before it gives "
    "them up. To start anew without waiting, stop the desktop and start it."
)
_PART = "A part of the cloud does not answer, so nobody can tell whether the desktop has a server there. Beamdesk looks again."
_REPAIR_REASONS = frozenset(
    {
        Reason.GUEST_SILENT,
        Reason.SERVER_LOST,
        Reason.SERVER_ERROR,
        Reason.HOST_LOST,
        Reason.BUILD_TIMEOUT,
        Reason.DUPLICATE_SERVER,
    }
)
_COMING_UP = frozenset({Phase.REPAIRING, Phase.BUILDING, Phase.BOOTING})


@dataclass(frozen=True, slots=True)
class Situation:
    """One desktop, what was seen of it, the time and the rules: the argument of every rule."""

    desktop: Desktop
    observed: Observed
    now: datetime
    timings: Timings
    lease: LeaseRules

    @property
    def guest(self) -> Guest | None:
        """The guest."""
        return self.observed.guest

    @property
    def enrolled(self) -> bool:
        """Tell whether a guest enrolled: proof that a server runs or ran, whatever a list says."""
        return self.guest is not None and self.guest.enrolled_at is not None

    @property
    def complete(self) -> bool:
        """Tell whether absence in this observation means anything at all."""
        return self.observed.servers is not None and self.observed.servers.complete

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers seen, the one to keep first: the oldest, by every reconciler's reckoning."""
        seen = self.observed.servers.servers if self.observed.servers else ()
        return tuple(sorted(seen, key=lambda server: (server.status is ServerStatus.DELETING, server.created_at, server.id)))

    @property
    def server(self) -> Server | None:
        """The server to keep."""
        return self.servers[0] if self.servers else None

    @property
    def duplicate(self) -> Server | None:
        """The youngest surplus server."""
        alive = [server for server in self.servers if server.status is not ServerStatus.DELETING]
        return alive[-1] if len(alive) > 1 else None

    @property
    def in_phase(self) -> timedelta:
        """How long the desktop has been in its phase."""
        return self.now - self.desktop.phase_since

    @property
    def unheard(self) -> timedelta:
        """How long the guest has not been heard of; zero for one that never enrolled."""
        seen = self.guest.seen_at if self.guest else None
        return self.now - seen if seen else timedelta()

    def _base(self, due_in: timedelta) -> dict[str, Any]:
        due_at = self.now + due_in
        if self.desktop.desired is Desired.RUNNING and self.desktop.admitted and self.desktop.lease_ends_at > self.now:
            due_at = min(due_at, self.desktop.lease_ends_at)
        return {
            "observed_generation": self.desktop.generation,
            "attempts": 0,
            "absent_since": None if self.servers else self.desktop.absent_since,
            "server_id": self.server.id if self.server else self.desktop.server_id,
            "due_at": due_at,
        }

    def stay(self, due_in: timedelta, **changes: Any) -> Decision:
        """Stay in the phase and look again after ``due_in``. A passing reason is over unless given again."""
        state = self._base(due_in)
        desktop = self.desktop
        keeps = desktop.phase in _COMING_UP and desktop.reason in _REPAIR_REASONS
        if not keeps and desktop.phase not in (Phase.FAILED, Phase.STOPPED, Phase.STOPPING):
            state |= {"reason": Reason.NONE, "detail": ""}
        return Decision(replace(desktop, **(state | changes)))

    def news_in(self, *until: timedelta) -> timedelta:
        """Return when to look again at what news will tell of; ``until``: what is left until something else must be decided."""
        if self.timings.calm is None:
            return self.timings.poll
        return max(self.timings.poll, min((self.timings.calm, *(left for left in until if left > timedelta()))))

    def move(self, phase: Phase, due_in: timedelta, *, reason: Reason = Reason.NONE, detail: str = "", **changes: Any) -> Decision:
        """Go to another phase. Only a ready desktop has an address; only a waiting one a place."""
        state = self._base(due_in) | {"phase": phase, "phase_since": self.now, "reason": reason, "detail": detail}
        state |= {"address": None, "queue": None}
        return Decision(replace(self.desktop, **(state | changes)))

    def fail(self, reason: Reason, detail: str) -> Decision:
        """Give up with the cause. It keeps what it has: home, server, and the server's share of capacity."""
        holds = self.desktop.admitted and self.server is not None
        return self.move(Phase.FAILED, self.timings.rest, reason=reason, detail=detail, admitted=holds)

    def repair(self, reason: Reason, detail: str, *, most: int = RESTARTS, due_in: timedelta | None = None) -> Decision:
        """Start the server again, or make it anew, ``most`` times; then give up with the cause.

        Unless ``due_in`` says when, at once and then ever later.
        """
        before = self.desktop.repairs
        if before >= most:
            return self.fail(reason, detail)
        due_in = before * self.timings.waiting if due_in is None else due_in
        repairing = self.move(Phase.REPAIRING, due_in, reason=reason, detail=detail, repairs=before + 1, absent_since=None)
        return replace(repairing, forget_guest=True)

    def wait_for_room(self, detail: str, jitter: float = 1.0) -> Decision:
        """Try again later, from the beginning. It keeps its share and its lease runs: so the attempts have an end."""
        due_in = self.timings.room * (0.5 + jitter / 2)
        since = self.desktop.phase_since if self.desktop.phase is Phase.QUEUED else self.now
        reason = Reason.WAITING_FOR_CAPACITY
        waiting = self.move(Phase.QUEUED, due_in, reason=reason, detail=detail, phase_since=since, absent_since=None)
        return replace(waiting, forget_guest=True)

    def chase(self, server: Server) -> Decision | None:
        """Ask again for a deletion that does not come to an end: Nova finishes it itself once it knows that the host is gone."""
        if server.status is not ServerStatus.DELETING or (server.host is HostState.UP and self.in_phase <= self.timings.stuck):
            return None
        return replace(self.stay(self.timings.waiting), step=Step.DELETE_SERVER, target=server.id)

    def unsure(self) -> Decision:
        """Look again, because a part of the cloud does not tell, and nothing can be concluded from what is missing."""
        return self.stay(self.timings.apart, reason=Reason.CLOUD_UNAVAILABLE, detail=_PART)

    def absent(self) -> Decision | None:
        """Return None when the absence is proven (complete and seen twice apart), else the decision to look again."""
        since = self.desktop.absent_since
        if not self.complete:
            return self.unsure()
        if since is None:
            return self.stay(self.timings.apart, absent_since=self.now)
        left = self.timings.apart - (self.now - since)
        return self.stay(left) if left > timedelta() else None

    def back_off(self, reason: Reason, detail: str, jitter: float) -> Decision:
        """Stay as it was and try again later: twice as late each time, with jitter (0..1), the reason told."""
        before = self.desktop
        most = self.timings.blind if reason is Reason.CLOUD_UNAVAILABLE else self.timings.backoff_most
        delay = min(most, self.timings.backoff_first * 2 ** min(before.attempts, 16)) * (0.5 + jitter / 2)
        quiet = before.phase in (Phase.FAILED, Phase.STOPPED)  # they have a reason that matters more
        told: dict[str, Any] = {} if quiet else {"reason": reason, "detail": detail}
        return Decision(replace(before, attempts=before.attempts + 1, due_at=self.now + delay, **told))
