"""The event table. Ids grow in commit order, so that a reader who follows by id misses nothing.

SQLite has one writer at a time, so it is so by itself. PostgreSQL hands out sequence numbers before the commit; there the events
of a transaction are held back to its very end and written under one advisory lock, released after the commit became visible.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from beamdesk.adapters.sql import schema
from beamdesk.adapters.sql.tables import Tables
from beamdesk.domain.events import Event, EventKind, NewEvent
from beamdesk.domain.ids import DesktopId, EventId, ExperimentId, PersonId

_table = schema.event
_columns = _table.c
_ORDER_LOCK = 0x6265616D_00000003
EVENT_CHANNEL = "beamdesk_event"
_INSERT = insert(_table)


class SqlEvents(Tables):
    """`beamdesk.ports.store.Events` on a database."""

    def __init__(self, connection: AsyncConnection, *, writable: bool) -> None:
        super().__init__(connection, writable=writable)
        self._pending: list[dict[str, Any]] = []

    async def add(self, now: datetime, *events: NewEvent) -> None:
        """Write events in this transaction (at its end)."""
        if not self._writable:
            raise RuntimeError("a write in a read-only transaction: open it with begin(write=True)")
        for event in events:
            values = {"at": now, "kind": str(event.kind), "data": dict(event.data)}
            names = ("actor", "desktop_id", "owner", "experiment")
            self._pending.append(values | {name: getattr(event, name) for name in names})

    async def flush(self) -> None:
        """Write what is pending. Called right before the commit: the order lock is the last lock that a transaction takes."""
        if not self._pending:
            return
        rows, self._pending = self._pending, []
        if not self._is_sqlite:
            await self._connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ORDER_LOCK})
        for row in rows:  # one by one: the order within a transaction is the order of adding
            await self._write(_INSERT, row)
        if not self._is_sqlite:
            await self._connection.execute(select(func.pg_notify(EVENT_CHANNEL, "")))

    async def page(
        self,
        *,
        owner: PersonId | None = None,
        actor: PersonId | None = None,
        experiments: tuple[ExperimentId, ...] | None = None,
        desktop_id: DesktopId | None = None,
        after: EventId | None = None,
        before: EventId | None = None,
        limit: int = 50,
        newest_first: bool = True,
    ) -> tuple[Event, ...]:
        """Return events that match ``desktop_id`` and any of owner, actor, experiments (all None = everything)."""
        await self.flush()
        query = select(_table).order_by(_columns.id.desc() if newest_first else _columns.id).limit(limit)
        wanted: list[ColumnElement[bool]] = []
        if owner is not None:
            wanted.append(_columns.owner == owner)
        if actor is not None:
            wanted.append(_columns.actor == actor)
        if experiments is not None:
            wanted.append(_columns.experiment.in_(experiments))
        if wanted:
            query = query.where(or_(*wanted))
        if desktop_id is not None:
            query = query.where(_columns.desktop_id == desktop_id)
        if after is not None:
            query = query.where(_columns.id > after)
        if before is not None:
            query = query.where(_columns.id < before)
        return tuple(_event_from(row) for row in await self._read(query))

    async def last_id(self) -> EventId:
        """Return the newest event's id, 0 when there is none."""
        await self.flush()
        return EventId((await self._connection.execute(select(func.max(_columns.id)))).scalar_one() or 0)

    async def purge(self, before: datetime, *, most: int = 1000) -> int:
        """Remove the oldest events from before a time; see ``ports.store``."""
        oldest = select(_columns.id).order_by(_columns.id).limit(most)
        newest = select(func.max(_columns.id)).scalar_subquery()  # it keeps the ids growing
        gone = delete(_table).where(_columns.id.in_(oldest), _columns.at < before, _columns.id < newest)
        return int((await self._write(gone)).rowcount)


def _event_from(row: Mapping[Any, Any]) -> Event:
    return Event(**{**row, "kind": EventKind(row["kind"])})
