"""Who holds this browser's cookie, and how is their desktop: one read transaction, no error when the answer is "nobody".

The cookie is ``<session id>.<secret>``: the id finds a session that has ended, too, so that its person can be told why. Only who
knows the secret is told.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import StrEnum

from beamdesk.app.context import App
from beamdesk.domain.desktop import Desktop, Phase
from beamdesk.domain.ids import DesktopId, SessionId
from beamdesk.domain.lease import can_extend
from beamdesk.domain.person import Person
from beamdesk.domain.policy import Action, allowed_actions
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.session import Session
from beamdesk.ports.store import Transaction


class State(StrEnum):
    """What the page shows."""

    OPEN = "open"
    WAITING = "waiting"
    STOPPED = "stopped"
    ENDED = "ended"
    NONE = "none"


_COMES_BACK = frozenset({Phase.QUEUED, Phase.BUILDING, Phase.BOOTING, Phase.REPAIRING})


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the store found. ``session`` may have ended; ``may_extend``: this person could, and it would gain time."""

    state: State
    session: Session | None = None
    person: Person | None = None
    desktop: Desktop | None = None
    lease_left_s: int = 0
    may_extend: bool = False


NOBODY = Look(State.NONE)


def split_cookie(cookie: str) -> tuple[SessionId, str]:
    """Return session id and secret of a cookie's value; empty where it is none."""
    session_id, _, secret = cookie.partition(".")
    return SessionId(session_id), secret


async def look(app: App, desktop_id: DesktopId, cookie: str) -> Look:
    """Return the state of the session in ``cookie`` on this desktop."""
    session_id, secret = split_cookie(cookie)
    if not session_id or not secret:
        return NOBODY
    async with app.store.begin() as tx:
        session = await _session(app, tx, desktop_id, session_id, secret)
        if session is None:
            return NOBODY
        return await _describe(app, tx, session)


async def _session(app: App, tx: Transaction, desktop_id: DesktopId, session_id: SessionId, secret: str) -> Session | None:
    now, wanted = app.clock.now(), hash_secret(secret)
    session = await tx.sessions.session_by_hash(wanted, desktop_id, now)
    if session is not None:
        return session if session.id == session_id else None
    for ended in await tx.sessions.ended_among((session_id,), now):
        if ended.desktop_id == desktop_id and hmac.compare_digest(ended.secret_hash, wanted):
            return ended
    return None


async def _describe(app: App, tx: Transaction, session: Session) -> Look:
    now = app.clock.now()
    desktop = await tx.desktops.get(session.desktop_id)
    person = await tx.people.person(session.person)
    experiment = await tx.people.experiment(desktop.experiment) if desktop else None
    left, may_extend = 0, False
    if desktop is not None and person is not None and experiment is not None:
        left = max(0, int((desktop.lease_ends_at - now).total_seconds()))
        allowed = Action.EXTEND in allowed_actions(person, desktop, experiment)
        may_extend = allowed and can_extend(app.rules.lease, desktop.lease_ends_at, now)
    over = session.ended_at is not None or session.expires_at <= now
    return Look(_state(desktop, over=over), session, person, desktop, left, may_extend)


def _state(desktop: Desktop | None, *, over: bool) -> State:
    if desktop is None:
        return State.ENDED
    if desktop.phase is Phase.READY:
        return State.ENDED if over else State.OPEN
    return State.WAITING if desktop.phase in _COMES_BACK and not over else State.STOPPED
