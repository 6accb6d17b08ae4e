"""Write a decision down: state, guest, sessions, intent and events in one transaction, under the claim, or nothing of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import structlog

from beamdesk.app.placements import release
from beamdesk.domain import lease as leases
from beamdesk.domain.decision import Decision
from beamdesk.domain.desktop import Desktop, Phase, Reason
from beamdesk.domain.errors import StaleWrite
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.ports.store import Claimed, Outcome, Store, Transaction

log = structlog.get_logger("beamdesk.reconcile")


class ClaimLost(Exception):
    """Somebody else holds the desktop now; the transaction is rolled back."""


def outcome_of(desktop: Desktop) -> Outcome:
    """Return the state half of a desktop."""
    names = Outcome.__dataclass_fields__
    return Outcome(**{name: getattr(desktop, name) for name in names})


async def apply_decision(store: Store, claimed: Claimed, decision: Decision, now: datetime) -> datetime | None:
    """Apply under the claim; return when the desktop is due again, None when its row is gone.

    Raises:
        ClaimLost: nothing was written.
    """
    before, after = claimed.desktop, decision.desktop
    async with store.begin(write=True) as tx:
        if decision.forget_guest:
            await tx.guests.remove(before.id)
        await _intend(tx, before, decision, now)
        if before.admitted and (decision.remove or not after.admitted):
            await release(tx, before.id, now)
        if decision.remove:
            applied = await tx.desktops.remove(claimed, now)
        else:
            applied = await tx.desktops.apply(claimed, outcome_of(after), now)
        if not applied:
            raise ClaimLost
        if before.phase is Phase.READY and after.phase is not Phase.READY:
            await tx.sessions.end_sessions(now, str(after.reason or after.phase), desktop=before.id)
        await tx.events.add(now, *_events(before, decision))
        if before.admitted and (decision.remove or not after.admitted):
            await tx.desktops.wake_waiting(now)
    _tell(before, decision)
    return None if decision.remove else (now if decision.intend else after.due_at)


async def tell(store: Store, claimed: Claimed, reason: Reason, detail: str, now: datetime) -> Claimed:
    """Write why the desktop is where it is, while its pass goes on; return the claim on what is stored now.

    Raises:
        ClaimLost: nothing was written.
    """
    before = claimed.desktop
    if (before.reason, before.detail) == (reason, detail):
        return claimed
    after = replace(before, reason=reason, detail=detail, version=before.version + 1)
    async with store.begin(write=True) as tx:
        if not await tx.desktops.tell(claimed, reason, detail):
            raise ClaimLost
        await tx.events.add(now, *_events(before, Decision(after)))
    return replace(claimed, desktop=after)


async def _intend(tx: Transaction, before: Desktop, decision: Decision, now: datetime) -> None:
    if decision.intend is None:
        return
    desired, reason = decision.intend
    try:
        await tx.desktops.change_intent(before.id, now=now, desired=desired, reason=reason, expected_version=before.version)
    except StaleWrite:
        return  # a person was quicker, with an extension perhaps: the next pass looks again
    data = {"desired": str(desired), "reason": str(reason), "name": before.name}
    await tx.events.add(now, NewEvent(EventKind.DESKTOP_INTENT, None, before.id, before.owner, before.experiment, data))


def after_the_wait(desktop: Desktop, now: datetime) -> datetime:
    """Return the lease's end if the desktop started now: waiting for a place must not eat up the time in it."""
    return leases.after_the_wait(desktop.lease_ends_at, desktop.queued_at, now)


async def follow_the_wait(tx: Transaction, desktop: Desktop, now: datetime) -> None:
    """Move the lease by the time spent in the waiting line."""
    ends_at = after_the_wait(desktop, now)
    if ends_at != desktop.lease_ends_at:
        await tx.desktops.change_intent(desktop.id, now=now, lease_ends_at=ends_at)


def _events(before: Desktop, decision: Decision) -> list[NewEvent]:
    after = decision.desktop

    def event(kind: EventKind, **data: str | int | None) -> NewEvent:
        return NewEvent(kind, None, before.id, before.owner, before.experiment, {"name": before.name, **data})

    events = []
    if decision.remove:
        return [event(EventKind.DESKTOP_DELETED)]
    told = {"phase": str(after.phase), "reason": str(after.reason), "detail": after.detail}
    if after.phase is not before.phase:
        events.append(event(EventKind.DESKTOP_PHASE, **{"from": str(before.phase)}, **told))
    elif (after.reason, after.detail, after.queue) != (before.reason, before.detail, before.queue):
        events.append(event(EventKind.DESKTOP_STEP, place=after.queue.place if after.queue else None, **told))
    return events + [event(warning, ends_at=before.lease_ends_at.isoformat()) for warning in decision.warnings]


def _tell(before: Desktop, decision: Decision) -> None:
    after = decision.desktop
    if decision.remove:
        log.info("desktop.deleted", desktop=before.id)
    elif after.phase is not before.phase:
        log.info("desktop.phase", desktop=before.id, source=str(before.phase), phase=str(after.phase), reason=str(after.reason))
    elif after.attempts > before.attempts:
        log.warning("desktop.retry", desktop=before.id, phase=str(after.phase), attempts=after.attempts, detail=after.detail)
