"""aiosqlite with fewer changes of threads: one for each statement, and none to undo what nobody did.

A statement by way of SQLAlchemy's cursor is four calls of the driver (open, execute, fetch, close), each of them carried to the
connection's thread and back, which costs more than SQLite's own work on our small rows. Here a cursor runs, fetches all and closes
in one. Results are always fetched whole, as SQLAlchemy does anyway. Only what SQLAlchemy's adapter asks of a cursor is offered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import aiosqlite

Parameters = Iterable[Any]


class SqliteCursor:
    """A cursor whose rows are here once `execute` returns. It is never open: nothing has to be closed."""

    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.arraysize = 1
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Parameters = ()) -> Self:
        """Run one statement and fetch what it gives."""
        return await self._run(sqlite3.Connection.execute, sql, parameters)

    async def executemany(self, sql: str, parameters: Iterable[Parameters]) -> Self:
        """Run one statement for each set of parameters."""
        return await self._run(sqlite3.Connection.executemany, sql, parameters)

    async def fetchall(self) -> list[Any]:
        """Return the rows, once."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Forget the rows that nobody fetched."""
        self._rows = []

    async def _run(self, run: Any, sql: str, parameters: Iterable[Any]) -> Self:
        done, self._rows = await self._connection.in_thread(_run, run, sql, parameters)
        self.description, self.rowcount, self.lastrowid = done.description, done.rowcount, done.lastrowid
        return self


class SqliteConnection(aiosqlite.Connection):
    """A connection with a thread of its own, as any of aiosqlite's, and cursors of one trip."""

    def __init__(self, path: Path) -> None:
        super().__init__(lambda: sqlite3.connect(path), iter_chunk_size=64)
        self._thread.daemon = True  # as SQLAlchemy makes it: a process that ends does not wait for it
        self._asked = 0
        self._done = 0

    def cursor(self) -> Any:
        """Return a cursor, without asking the thread."""
        return SqliteCursor(self)

    async def in_thread(self, work: Any, *arguments: Any) -> Any:
        """Give the thread something to do with the connection."""
        return await self._execute(work, self._conn, *arguments)

    async def rollback(self) -> None:
        """Roll back, where a transaction is open or may be: a pool rolls back whatever is given back to it."""
        if self._asked != self._done or self._conn.in_transaction:
            await super().rollback()

    async def _execute(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self._asked += 1  # by the loop's thread only; the other by the connection's only

        def work() -> Any:
            try:
                return fn(*args, **kwargs)
            finally:
                self._done += 1

        return await super()._execute(work)  # type: ignore[no-untyped-call]


def _run(connection: sqlite3.Connection, run: Any, sql: str, parameters: Iterable[Any]) -> tuple[sqlite3.Cursor, list[Any]]:
    cursor: sqlite3.Cursor = run(connection, sql, parameters)
    rows = cursor.fetchall() if cursor.description else []
    cursor.close()
    return cursor, rows
