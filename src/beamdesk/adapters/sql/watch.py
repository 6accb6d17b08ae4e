"""Hints that the database changed: LISTEN/NOTIFY on PostgreSQL, ``PRAGMA data_version`` on SQLite. Never the truth, only a wake-up.

One watcher a store serves all waiters, so that a hundred followers of events cost what one costs. It runs while somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Protocol

import psycopg
from sqlalchemy import URL, select
from sqlalchemy.dialects import sqlite

from beamdesk.adapters.sql.claims import DUE, WORK_CHANNEL
from beamdesk.adapters.sql.events import EVENT_CHANNEL
from beamdesk.adapters.sql.schema import UtcTime

POLL_S = 0.1
_DIALECT = sqlite.dialect()
_AS_STORED = UtcTime().dialect_impl(_DIALECT).bind_processor(_DIALECT)
_DUE = str(select(DUE.exists()).compile(dialect=_DIALECT))


class Watch(Protocol):
    """A counter that grows when the database changed in a way that matters."""

    def poke(self) -> None:
        """Say that this process just committed."""

    async def wait(self, seen: int, timeout_s: float) -> int:
        """Return the counter when it is another than ``seen``, or at the timeout."""

    def due(self, now: datetime, /) -> bool:
        """Tell whether a claim could take a row; true where asking costs as much as claiming."""

    async def close(self) -> None:
        """Stop watching."""


class _Counter:
    """Waiters on a number that grows."""

    def __init__(self) -> None:
        self.value = 0
        self._changed = asyncio.Event()

    def grow(self) -> None:
        self.value += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, seen: int, timeout_s: float) -> int:
        if self.value == seen:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
        return self.value


class SqliteWatch:
    """Looks at ``data_version`` ten times a second: no lock, no disk; waking up for it costs more than it does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counter = _Counter()
        self._connection: sqlite3.Connection | None = None
        self._version = -1
        self._waiters = 0
        self._task: asyncio.Task[None] | None = None

    def poke(self) -> None:
        """Look now instead of at the next poll."""
        self._look()

    def _look(self) -> None:
        try:
            version = int(self._connect().execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            return  # only a hint: the timeouts of the waiters go on without it
        if version != self._version:
            self._version = version
            self._counter.grow()

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=0)
        return self._connection

    def due(self, now: datetime) -> bool:
        """Look for one row: tens of microseconds by the index, where an empty claim is a transaction in another thread."""
        moment = _AS_STORED(now) if _AS_STORED is not None else now
        try:
            return bool(self._connect().execute(_DUE, (moment, moment)).fetchone()[0])
        except sqlite3.Error:
            return True

    async def wait(self, seen: int, timeout_s: float) -> int:
        """Return the counter when it is another than ``seen``, or at the timeout."""
        self._look()
        self._waiters += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll(), name="store-watch")
        try:
            return await self._counter.wait(seen, timeout_s)
        finally:
            self._waiters -= 1

    async def _poll(self) -> None:
        idle = 0
        while idle < 20:  # a while longer than the last waiter: most come back at once
            await asyncio.sleep(POLL_S)
            idle = 0 if self._waiters else idle + 1
            self._look()

    async def close(self) -> None:
        """Stop watching."""
        await _stop(self._task)
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresWatch:
    """Listens on one channel with a connection of its own; reconnects by itself."""

    def __init__(self, url: URL, channel: str) -> None:
        self._conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._channel = channel
        self._counter = _Counter()
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def poke(self) -> None:
        """Nothing to do: the database tells this process too."""

    def due(self, _now: datetime) -> bool:
        """Return true: the database tells when rows become due, so few claims are empty, and asking costs as much."""
        return True

    async def wait(self, seen: int, timeout_s: float) -> int:
        """Return the counter when it is another than ``seen``, or at the timeout."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen(), name=f"store-watch-{self._channel}")
        if not self._listening.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._listening.wait(), min(1.0, timeout_s))
        return await self._counter.wait(seen, timeout_s)

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, connect_timeout=5) as connection:
                    await connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(self._channel)))
                    self._listening.set()
                    self._counter.grow()
                    async for _ in connection.notifies():
                        self._counter.grow()
            except psycopg.Error:
                await asyncio.sleep(0.5)
            finally:
                self._listening.clear()

    async def close(self) -> None:
        """Stop listening."""
        await _stop(self._task)


async def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def watches(url: URL, path: Path | None) -> tuple[Watch, Watch]:
    """Return the watchers of events and of work for a database."""
    if path is None:
        return PostgresWatch(url, EVENT_CHANNEL), PostgresWatch(url, WORK_CHANNEL)
    both = SqliteWatch(path)
    return both, both
