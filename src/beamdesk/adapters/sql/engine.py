"""Engines: how each database is opened, and how its failures are told.

SQLite: WAL, one writing connection (its pool is the fair queue of this process; other processes wait by ``busy_timeout``) and a few
read-only ones. PostgreSQL: one pool; transactions have time limits, so that a stuck one cannot hold the others for ever.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from beamdesk.adapters.sql.sqlite import SqliteConnection
from beamdesk.domain.errors import ConfigurationError, StoreUnavailable

BUSY_TIMEOUT_MS = 10_000
_POSTGRES_LIMITS = "-c statement_timeout=15000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=15000 -c timezone=UTC"


@dataclass(frozen=True, slots=True)
class Engines:
    """``write`` and ``read`` are the same on PostgreSQL. ``path`` is the database file on SQLite."""

    url: URL
    write: AsyncEngine
    read: AsyncEngine
    path: Path | None

    @property
    def is_sqlite(self) -> bool:
        """Tell which of the two databases this is."""
        return self.path is not None

    async def dispose(self) -> None:
        """Close all connections."""
        await self.read.dispose()
        if self.write is not self.read:
            await self.write.dispose()


def make_engines(url: str) -> Engines:
    """Prepare the engines for a database URL; connects to nothing, but creates an SQLite file (mode 0600) that is not there.

    Raises:
        ConfigurationError: an unknown kind of URL, or a file that cannot be used.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError("The database URL cannot be understood.") from error
    if parsed.drivername == "postgresql+psycopg":
        arguments = {"connect_timeout": 5, "options": _POSTGRES_LIMITS, "application_name": "beamdesk"}
        engine = create_async_engine(
            parsed, pool_size=8, max_overflow=4, pool_timeout=10, pool_pre_ping=True, hide_parameters=True, connect_args=arguments
        )
        return Engines(parsed, engine, engine, None)
    if parsed.drivername != "sqlite+aiosqlite" or not parsed.database or parsed.database == ":memory:":
        raise ConfigurationError("The database URL must be sqlite+aiosqlite:///FILE or postgresql+psycopg://...")
    path = Path(parsed.database)
    _create_file(path)
    write, read = (
        create_async_engine(
            parsed,
            pool_size=size,
            max_overflow=0,
            pool_timeout=30,
            hide_parameters=True,
            async_creator=partial(SqliteConnection, path),
        )
        for size in (1, 4)
    )
    _prepare_sqlite(write, "BEGIN IMMEDIATE", ())
    _prepare_sqlite(read, "BEGIN", ("PRAGMA query_only=ON",))
    return Engines(parsed, write, read, path)


def _create_file(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        if path.stat().st_mode & 0o077 and path.stat().st_uid == os.geteuid():
            path.chmod(0o600)
    except OSError as error:
        raise ConfigurationError(f"Cannot open the database {path}: {error.strerror}.") from error


def _prepare_sqlite(engine: AsyncEngine, begin: str, pragmas: tuple[str, ...]) -> None:
    def on_connect(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        for pragma in (f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}", "PRAGMA foreign_keys=ON", "PRAGMA synchronous=NORMAL", *pragmas):
            cursor.execute(pragma)
        cursor.close()

    def on_begin(connection: Any) -> None:
        # Straight to the driver: by way of a cursor each transaction would change threads twice more.
        connection.connection.dbapi_connection.run_async(lambda driver: driver.execute(begin))

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "begin", on_begin)


_CORRUPT = ("malformed", "not a database", "file is encrypted")


@contextmanager
def translated(path: Path | None = None) -> Iterator[None]:
    """Turn the database's failures into ours; programming errors (constraints, syntax) stay as they are.

    Raises:
        StoreUnavailable: no answer, locked too long, disk full, deadlock. ConfigurationError: the file is damaged.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise StoreUnavailable("The database is too busy. Try again in a moment.") from error
    except DBAPIError as error:
        if path is not None and isinstance(error, DatabaseError) and any(word in str(error.orig) for word in _CORRUPT):
            raise ConfigurationError(
                f"The database {path} is damaged. Restore it from a backup, or move it away to begin with an empty one."
            ) from error
        if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
            raise StoreUnavailable("The database does not answer. Try again in a moment.", cause=str(error.orig)) from error
        raise
    except (sqlite3.OperationalError, ConnectionError) as error:
        raise StoreUnavailable("The database does not answer. Try again in a moment.", cause=str(error)) from error
