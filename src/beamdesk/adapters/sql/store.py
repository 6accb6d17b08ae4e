"""The store: opens the database, runs its migrations, hands out transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from beamdesk.adapters.sql.desktops import SqlDesktops
from beamdesk.adapters.sql.engine import Engines, make_engines, translated
from beamdesk.adapters.sql.events import SqlEvents
from beamdesk.adapters.sql.guests import SqlGuests
from beamdesk.adapters.sql.migrate import migrate
from beamdesk.adapters.sql.people import SqlPeople
from beamdesk.adapters.sql.placing import SqlPlacing
from beamdesk.adapters.sql.sessions import SqlSessions
from beamdesk.adapters.sql.srm import SqlSrm
from beamdesk.adapters.sql.watch import watches
from beamdesk.domain.ids import EventId


class SqlTransaction:
    """One open transaction: the tables."""

    def __init__(self, connection: AsyncConnection, *, writable: bool) -> None:
        self.desktops = SqlDesktops(connection, writable=writable)
        self.guests = SqlGuests(connection, writable=writable)
        self.sessions = SqlSessions(connection, writable=writable)
        self.events = SqlEvents(connection, writable=writable)
        self.people = SqlPeople(connection, writable=writable)
        self.srm = SqlSrm(connection, writable=writable)
        self.placing = SqlPlacing(connection, writable=writable)


class SqlStore:
    """`beamdesk.ports.store.Store` on SQLite or PostgreSQL."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._event_watch, self._work_watch = watches(engines.url, engines.path)
        self._work_seen = 0
        self._newest = (-1, EventId(0))

    @classmethod
    async def open(cls, url: str) -> SqlStore:
        """Open the database and bring it to the newest schema; several processes may do so at once.

        Raises:
            ConfigurationError: a wrong URL, a damaged database, or one of a newer program. StoreUnavailable: no answer.
        """
        engines = make_engines(url)
        try:
            await migrate(engines)
        except BaseException:
            await engines.dispose()
            raise
        return cls(engines)

    @asynccontextmanager
    async def begin(self, *, write: bool = False) -> AsyncIterator[SqlTransaction]:
        """Open a transaction; leaving the block commits, an exception rolls back. Only ``write`` may write."""
        engine = self._engines.write if write else self._engines.read
        with translated(self._engines.path):
            async with engine.connect() as connection:
                if not write and not self._engines.is_sqlite:
                    await connection.execution_options(postgresql_readonly=True)
                async with connection.begin():
                    transaction = SqlTransaction(connection, writable=write)
                    yield transaction
                    await transaction.events.flush()
        if write:
            self._event_watch.poke()

    async def wait_for_events(self, after: EventId, timeout_s: float) -> None:
        """Return when there are events newer than ``after``, or at the timeout."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        seen = await self._event_watch.wait(-1, 0.0)
        while await self._newest_event(seen) <= after and (left := deadline - loop.time()) > 0:
            seen = await self._event_watch.wait(seen, left)

    async def _newest_event(self, seen: int) -> EventId:
        """Ask the database once for each change that the watcher saw, however many wait."""
        if self._newest[0] != seen:
            async with self.begin() as transaction:
                self._newest = (seen, await transaction.events.last_id())
        return self._newest[1]

    async def may_be_due(self, now: datetime) -> bool:
        """Tell whether a row may be due that nobody holds. On PostgreSQL, which tells when something becomes due, always."""
        return self._work_watch.due(now)

    async def wait_for_work(self, timeout_s: float) -> None:
        """Return when a row may have become due since the last call, or at the timeout."""
        self._work_seen = await self._work_watch.wait(self._work_seen, timeout_s)

    async def close(self) -> None:
        """Close all connections."""
        await self._event_watch.close()
        await self._work_watch.close()
        await self._engines.dispose()
