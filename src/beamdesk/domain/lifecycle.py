"""The life of a desktop: transitions as data, and one pure function that decides what to do next.

`decide` looks at one desktop, what was observed of it, and the time; the reconciler only executes. The rules are in `bring_up` and
`take_down`, what they share in `decision`. The diagram in docs/explanation/lifecycle.md is drawn from `TRANSITIONS`; a test checks
that `decide` makes no other, and that it makes each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from beamdesk.domain.bring_up import toward_running
from beamdesk.domain.decision import Decision, Observed, Situation, Step, Timings
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.errors import CloudError, CloudFull, CloudUnavailable
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.server import Server
from beamdesk.domain.take_down import toward_deleted, toward_stopped

__all__ = ["TRANSITIONS", "Decision", "Observed", "Step", "Timings", "Transition", "act_failed", "acted", "decide"]


@dataclass(frozen=True, slots=True)
class Transition:
    """One way a desktop can go. ``to`` None = its row is gone."""

    source: Phase
    to: Phase | None
    when: str


TRANSITIONS = (
    Transition(Phase.QUEUED, Phase.BUILDING, "It has its share of capacity and the cloud accepted the server."),
    Transition(Phase.QUEUED, Phase.BOOTING, "A start whose answer got lost turns out to have worked."),
    Transition(Phase.QUEUED, Phase.REPAIRING, "A server whose creation got no answer turns out to have failed before it ever ran."),
    Transition(Phase.QUEUED, Phase.FAILED, "It asks for more than there is at all, or the cloud refused it for good."),
    Transition(Phase.QUEUED, Phase.STOPPING, "It is no longer wanted running, and something may have been started for it."),
    Transition(Phase.QUEUED, Phase.STOPPED, "It is no longer wanted running, and nothing was started for it."),
    Transition(Phase.QUEUED, Phase.DELETING, "Its owner deletes it."),
    Transition(Phase.BUILDING, Phase.BOOTING, "The server runs."),
    Transition(
        Phase.BUILDING, Phase.REPAIRING, "The server vanished, went off or failed before it ever ran, or a second one turned up."
    ),
    Transition(Phase.BUILDING, Phase.QUEUED, "The cloud turns out to have no room for it; it is tried again until its lease ends."),
    Transition(Phase.BUILDING, Phase.FAILED, "The cloud reports an error that repeats or that only a person can mend."),
    Transition(Phase.BUILDING, Phase.STOPPING, "It is no longer wanted running, or its lease ended."),
    Transition(Phase.BUILDING, Phase.DELETING, "Its owner deletes it."),
    Transition(Phase.BOOTING, Phase.READY, "The guest reports every step done."),
    Transition(Phase.BOOTING, Phase.REPAIRING, "The server vanished or went off, or the guest fell silent."),
    Transition(Phase.BOOTING, Phase.FAILED, "The guest gave up with a cause, it takes too long, or the repair did not help."),
    Transition(Phase.BOOTING, Phase.STOPPING, "It is no longer wanted running, or its lease ended."),
    Transition(Phase.BOOTING, Phase.DELETING, "Its owner deletes it."),
    Transition(
        Phase.READY, Phase.REPAIRING, "The guest fell silent (three missed heartbeats), or the server vanished or went off."
    ),
    Transition(Phase.READY, Phase.FAILED, "The guest gave up with a cause, or it fell silent again soon after a repair."),
    Transition(
        Phase.READY, Phase.STOPPING, "It is stopped by a person, by the end of its lease, or because nobody and nothing uses it."
    ),
    Transition(Phase.READY, Phase.DELETING, "Its owner deletes it."),
    Transition(Phase.REPAIRING, Phase.BUILDING, "The cloud accepted the restart."),
    Transition(Phase.REPAIRING, Phase.BOOTING, "A restart whose answer got lost turns out to have worked."),
    Transition(Phase.REPAIRING, Phase.QUEUED, "The cloud has no room to make the server anew."),
    Transition(Phase.REPAIRING, Phase.FAILED, "The restart was refused or takes too long."),
    Transition(Phase.REPAIRING, Phase.STOPPING, "It is no longer wanted running, or its lease ended."),
    Transition(Phase.REPAIRING, Phase.DELETING, "Its owner deletes it."),
    Transition(Phase.STOPPING, Phase.STOPPED, "No server runs any more; the home is kept and the capacity free."),
    Transition(Phase.STOPPING, Phase.QUEUED, "It is started again before it had stopped."),
    Transition(Phase.STOPPING, Phase.DELETING, "Its owner deletes it."),
    Transition(Phase.STOPPED, Phase.QUEUED, "It is started again."),
    Transition(Phase.STOPPED, Phase.STOPPING, "A server of it is found running."),
    Transition(Phase.STOPPED, Phase.DELETING, "Its owner deletes it."),
    Transition(Phase.FAILED, Phase.QUEUED, "Its owner starts it again."),
    Transition(Phase.FAILED, Phase.STOPPING, "It is stopped by a person or by the end of its lease."),
    Transition(Phase.FAILED, Phase.DELETING, "Its owner deletes it."),
    Transition(Phase.DELETING, None, "Servers and home are gone; the row goes last."),
)


def decide(
    desktop: Desktop, observed: Observed, now: datetime, timings: Timings, lease: LeaseRules, jitter: float = 1.0
) -> Decision:
    """Decide what to do for ``desktop`` now: at most one write to the cloud. Deleting wins over everything and is one way."""
    situation = Situation(desktop, observed, now, timings, lease)
    if observed.servers is None and not _can_do_without_cloud(situation):
        return situation.back_off(Reason.CLOUD_UNAVAILABLE, observed.cloud_error, jitter)
    if desktop.desired is Desired.DELETED or desktop.phase is Phase.DELETING:
        return toward_deleted(situation)
    if desktop.desired is Desired.STOPPED:
        return toward_stopped(situation)
    if desktop.admitted and now >= desktop.lease_ends_at:
        return replace(situation.stay(timedelta()), intend=(Desired.STOPPED, Reason.LEASE_ENDED))
    return toward_running(situation)


def _can_do_without_cloud(s: Situation) -> bool:
    """Tell whether the guest's word is enough: a healthy desktop does not suffer from a cloud that does not answer."""
    healthy = s.guest is not None and s.unheard <= s.timings.late and not s.guest.failure
    return s.desktop.phase is Phase.READY and s.desktop.desired is Desired.RUNNING and healthy


def acted(decision: Decision, server: Server | None) -> Decision:
    """Complete a decision whose step succeeded."""
    if server is None:
        return decision
    return replace(decision, desktop=replace(decision.desktop, server_id=server.id))


def act_failed(
    before: Desktop,
    decision: Decision,
    observed: Observed,
    error: CloudError,
    *,
    now: datetime,
    timings: Timings,
    lease: LeaseRules,
    jitter: float,
) -> Decision:
    """Decide after the step failed: try again later; on the way up wait for room, or on a definite no fail with the cause.

    Stopping and deleting are tried for ever: a server that may still run must not be forgotten.
    """
    situation = Situation(before, observed, now, timings, lease)
    on_the_way_up = before.desired is Desired.RUNNING and before.phase is not Phase.DELETING
    if on_the_way_up and decision.step is not Step.DELETE_DUPLICATE:
        if not error.retryable:
            return situation.fail(Reason.CLOUD_REFUSED, error.message)
        if isinstance(error, CloudFull):
            return situation.wait_for_room(error.message, jitter)
    return situation.back_off(_reason(error), error.message, jitter)


def _reason(error: CloudError) -> Reason:
    if isinstance(error, CloudUnavailable):
        return Reason.CLOUD_UNAVAILABLE
    return Reason.CLOUD_BUSY if error.retryable else Reason.CLOUD_REFUSED
