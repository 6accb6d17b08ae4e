"""From a click to a viewer session: tickets are issued here by the portal and spent here by the gateway (DESIGN section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.logins import Caller
from beamdesk.domain.desktop import Desktop, Phase
from beamdesk.domain.errors import Conflict, Forbidden, NotFound, TicketRefused
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.ids import DesktopId, SessionId
from beamdesk.domain.person import Person
from beamdesk.domain.policy import allowed_actions, viewer_role
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.session import Session, Ticket, ViewerRole
from beamdesk.ports.store import Transaction

CONSENT_TTL = timedelta(minutes=2)
_REFUSED = "This link has been used already, is too old, or is for another desktop. Press Connect again."


@dataclass(frozen=True, slots=True)
class Connection:
    """A fresh ticket: to be posted once, as form field ``ticket``, to ``url`` (the desktop's own origin) before ``expires_at``."""

    ticket: str = field(repr=False)
    url: str
    expires_at: datetime
    role: ViewerRole


@dataclass(frozen=True, slots=True)
class Held:
    """A ticket that was exchanged for another one, which waits for the person's consent."""

    person: Person
    ticket: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Opened:
    """A viewer session with its secret (for the ``__Host-`` cookie), which is shown once."""

    session: Session
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Attached:
    """Everything the gateway needs to relay: where to, with which secret, and what the bar shows."""

    session: Session
    desktop: Desktop
    person: Person
    address: str
    stream_secret: str = field(repr=False)


async def connect(app: App, caller: Caller, desktop_id: DesktopId) -> Connection:
    """Issue a ticket for a desktop that is ready.

    Raises:
        NotFound, Forbidden: policy. Conflict: the desktop is not ready.
    """
    person, now = caller.person, app.clock.now()
    async with audited(app, "connect", actor=person.id, desktop=desktop_id), app.store.begin(write=True) as tx:
        desktop = await tx.desktops.get(desktop_id)
        experiment = await tx.people.experiment(desktop.experiment) if desktop else None
        if desktop is None or experiment is None or not allowed_actions(person, desktop, experiment):
            raise NotFound("There is no such desktop, or it is not shared with you.")
        role = viewer_role(person, desktop, experiment)
        if role is None:
            raise Forbidden("Only the owner and the experiment's team may open this desktop.")
        if desktop.phase is not Phase.READY:
            raise Conflict("This desktop is not running. Start it, or wait until it is ready.")
        secret, expires_at = app.secrets.token(), now + app.rules.ticket_ttl
        await tx.sessions.insert_ticket(Ticket(hash_secret(secret), desktop_id, person.id, caller.login_id, role, expires_at))
        event = NewEvent(EventKind.TICKET_ISSUED, person.id, desktop_id, desktop.owner, experiment.id, {"role": str(role)})
        await tx.events.add(now, event)
    return Connection(secret, f"{app.desktop_origin(desktop_id)}/open", expires_at, role)


async def hold_ticket(app: App, desktop_id: DesktopId, ticket_secret: str) -> Held:
    """Spend a ticket and give a new one in its place, for the same person and desktop, that lives as long as a person may think.

    Still one use each: of two that hold the same ticket, one wins.

    Raises:
        TicketRefused: as `open_session`.
    """
    now = app.clock.now()
    async with audited(app, "hold_ticket", desktop=desktop_id, kind=EventKind.TICKET_REFUSED):
        async with app.store.begin(write=True) as tx:
            ticket = await tx.sessions.spend_ticket(hash_secret(ticket_secret), desktop_id, now)
        if ticket is None:
            raise TicketRefused(_REFUSED)
        secret, expires_at = app.secrets.token(), now + CONSENT_TTL
        async with app.store.begin(write=True) as tx:
            _, person, _ = await _still_allowed(tx, ticket)
            await tx.sessions.insert_ticket(replace(ticket, hash=hash_secret(secret), expires_at=expires_at))
    return Held(person, secret, expires_at)


async def open_session(app: App, desktop_id: DesktopId, ticket_secret: str) -> Opened:
    """Spend a ticket and open a viewer session.

    Raises:
        TicketRefused: unknown, spent, expired, for another desktop, or the policy changed meanwhile; the text never says which.
    """
    now = app.clock.now()
    async with audited(app, "open_session", desktop=desktop_id, kind=EventKind.TICKET_REFUSED):
        async with app.store.begin(write=True) as tx:
            ticket = await tx.sessions.spend_ticket(hash_secret(ticket_secret), desktop_id, now)
        if ticket is None:
            raise TicketRefused(_REFUSED)
        async with app.store.begin(write=True) as tx:
            desktop, person, role = await _still_allowed(tx, ticket)
            secret = app.secrets.token()
            session = Session(
                SessionId(app.secrets.id()),
                desktop_id,
                person.id,
                ticket.login_id,
                role,
                hash_secret(secret),
                now,
                now + app.rules.session_ttl,
            )
            await tx.sessions.insert_session(session)
            event = NewEvent(
                EventKind.SESSION_OPENED, person.id, desktop_id, desktop.owner, desktop.experiment, {"role": str(role)}
            )
            await tx.events.add(now, event)
    return Opened(session, secret)


async def _still_allowed(tx: Transaction, ticket: Ticket) -> tuple[Desktop, Person, ViewerRole]:
    desktop = await tx.desktops.get(ticket.desktop_id)
    person = await tx.people.person(ticket.person)
    experiment = await tx.people.experiment(desktop.experiment) if desktop else None
    role = viewer_role(person, desktop, experiment) if desktop and person and experiment else None
    if desktop is None or person is None or role is None:
        raise TicketRefused(_REFUSED)
    return desktop, person, role


async def attach(app: App, desktop_id: DesktopId, session_secret: str) -> Attached:
    """Return what the gateway needs for a stream of an open session.

    Raises:
        TicketRefused: no open session of this desktop, or the person may not connect any more. Conflict: the desktop is not ready.
    """
    async with app.store.begin() as tx:
        session = await tx.sessions.session_by_hash(hash_secret(session_secret), desktop_id, app.clock.now())
        desktop = await tx.desktops.get(desktop_id) if session else None
        person = await tx.people.person(session.person) if session else None
        guest = await tx.guests.get(desktop_id) if session else None
        experiment = await tx.people.experiment(desktop.experiment) if desktop else None
    if session is None or desktop is None or person is None or experiment is None:
        raise TicketRefused("Your session on this desktop has ended. Open it again from the portal.")
    if viewer_role(person, desktop, experiment) is not session.role:
        raise TicketRefused("Your session on this desktop has ended. Open it again from the portal.")
    if desktop.phase is not Phase.READY or desktop.address is None or guest is None:
        raise Conflict("This desktop is not running any more. Open the portal to see why.")
    return Attached(session, desktop, person, desktop.address, guest.stream_secret)


async def end_session(app: App, session: Session, reason: str) -> None:
    """End one viewer session (disconnect)."""
    now = app.clock.now()
    async with app.store.begin(write=True) as tx:
        ended = await tx.sessions.end_sessions(now, reason, session=session.id)
        if ended:
            event = NewEvent(EventKind.SESSION_ENDED, session.person, session.desktop_id, session.person, data={"reason": reason})
            await tx.events.add(now, event)
