"""Logins, tickets, viewer sessions. Everything that is spent is spent by one atomic statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update

from beamdesk.adapters.sql import schema
from beamdesk.adapters.sql.tables import Tables
from beamdesk.domain.ids import DesktopId, ExperimentId, PersonId, SessionId
from beamdesk.domain.session import Login, Session, Ticket, ViewerRole

_login = schema.login
_ticket = schema.ticket
_session = schema.session
_BATCH = 500


class SqlSessions(Tables):
    """`beamdesk.ports.store.Sessions` on a database."""

    async def insert_login(self, login: Login) -> None:
        """Record a login."""
        await self._write(insert(_login).values(**asdict(login)))

    async def login_by_hash(self, secret_hash: bytes, now: datetime) -> Login | None:
        """Return a login that has not ended."""
        query = select(_login).where(_login.c.secret_hash == secret_hash, _login.c.expires_at > now)
        row = await self._read_one(query)
        return Login(**row) if row else None

    async def end_login(self, login_id: str, now: datetime) -> None:
        """End a login, its tickets and its viewer sessions; absent is fine."""
        await self._write(delete(_login).where(_login.c.id == login_id))
        await self._write(delete(_ticket).where(_ticket.c.login_id == login_id))
        await self.end_sessions(now, "signed_out", login_id=login_id)

    async def insert_ticket(self, ticket: Ticket) -> None:
        """Record a ticket."""
        await self._write(insert(_ticket).values(**asdict(ticket) | {"role": str(ticket.role)}))

    async def spend_ticket(self, ticket_hash: bytes, desktop_id: DesktopId, now: datetime) -> Ticket | None:
        """Spend a ticket for this desktop."""
        mine = and_(_ticket.c.hash == ticket_hash, _ticket.c.desktop_id == desktop_id, _ticket.c.expires_at > now)
        rows = await self._write_returning(delete(_ticket).where(mine).returning(*_ticket.c))
        return Ticket(**{**rows[0], "role": ViewerRole(rows[0]["role"])}) if rows else None

    async def insert_session(self, session: Session) -> None:
        """Record a viewer session."""
        await self._write(insert(_session).values(**asdict(session) | {"role": str(session.role)}))

    async def session_by_hash(self, secret_hash: bytes, desktop_id: DesktopId, now: datetime) -> Session | None:
        """Return an open session of this desktop."""
        mine = and_(_session.c.secret_hash == secret_hash, _session.c.desktop_id == desktop_id)
        row = await self._read_one(select(_session).where(mine, _is_open(now)))
        return _session_from(row) if row else None

    async def ended_among(self, session_ids: tuple[SessionId, ...], now: datetime) -> tuple[Session, ...]:
        """Return those of the given sessions that ended or expired."""
        over = or_(_session.c.ended_at.is_not(None), _session.c.expires_at <= now)
        found: list[Session] = []
        for start in range(0, len(session_ids), _BATCH):
            some = session_ids[start : start + _BATCH]
            found += [_session_from(row) for row in await self._read(select(_session).where(_session.c.id.in_(some), over))]
        return tuple(found)

    async def end_sessions(
        self,
        now: datetime,
        reason: str,
        *,
        session: SessionId | None = None,
        desktop: DesktopId | None = None,
        person: PersonId | None = None,
        experiment: ExperimentId | None = None,
        login_id: str | None = None,
    ) -> int:
        """End the open sessions that match all given keys; returns how many."""
        given = {"id": session, "desktop_id": desktop, "person": person, "login_id": login_id}
        which = [_session.c[name] == value for name, value in given.items() if value is not None]
        if experiment is not None:
            mine = select(schema.desktop.c.id).where(schema.desktop.c.experiment == experiment)
            which.append(_session.c.desktop_id.in_(mine))
        if not which:
            raise ValueError("end_sessions needs at least one key")
        statement = update(_session).where(*which, _session.c.ended_at.is_(None))
        return (await self._write(statement.values(ended_at=now, end_reason=reason))).rowcount

    async def open_sessions(self, desktop_id: DesktopId, now: datetime) -> tuple[Session, ...]:
        """Return the open sessions of a desktop, oldest first."""
        query = select(_session).where(_session.c.desktop_id == desktop_id, _is_open(now)).order_by(_session.c.created_at)
        return tuple(_session_from(row) for row in await self._read(query))

    async def purge(self, before: datetime) -> int:
        """Delete logins, tickets and sessions that ended or expired before ``before``; returns how many."""
        count = 0
        for table in (_login, _ticket):
            count += (await self._write(delete(table).where(table.c.expires_at < before))).rowcount
        over = or_(_session.c.ended_at < before, _session.c.expires_at < before)
        return count + (await self._write(delete(_session).where(over))).rowcount


def _is_open(now: datetime) -> ColumnElement[bool]:
    return and_(_session.c.ended_at.is_(None), _session.c.expires_at > now)


def _session_from(row: Mapping[Any, Any]) -> Session:
    return Session(**{**row, "role": ViewerRole(row["role"])})
