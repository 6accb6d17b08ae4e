"""Bring a database to the newest schema, under a lock, so that several processes may start at once.

A database of a newer program, of another program, or a damaged file is refused; nothing in it is touched.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from beamdesk.adapters.sql.engine import BUSY_TIMEOUT_MS, Engines, translated
from beamdesk.adapters.sql.schema import HEAD
from beamdesk.domain.errors import ConfigurationError, StoreUnavailable

_LOCK = 0x6265616D_00000001
"""Key of the advisory lock ("beam", 1)."""


async def migrate(engines: Engines) -> None:
    """Run the missing migrations in one transaction.

    Raises:
        ConfigurationError: newer, foreign or damaged. StoreUnavailable: no answer.
    """
    with translated(engines.path):
        if engines.path is not None:
            await _switch_to_wal(engines.path)
        async with engines.read.connect() as connection:
            if await connection.run_sync(_version) == HEAD:
                return
        async with engines.write.begin() as connection:
            await _lock(connection, engines)
            await connection.run_sync(_to_head)


async def _switch_to_wal(path: Path) -> None:
    """Set WAL, which the file then remembers. The busy handler does not cover this switch: two that start at once need patience."""
    for attempt in range(BUSY_TIMEOUT_MS // 50):
        try:
            connection = sqlite3.connect(path, timeout=1)
            try:
                connection.execute("PRAGMA journal_mode=WAL").fetchone()
                return
            finally:
                connection.close()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt * 50 > BUSY_TIMEOUT_MS:
                raise StoreUnavailable(f"Cannot open the database {path}: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(
                f"The database {path} is damaged. Restore it from a backup, or move it away to begin with an empty one."
            ) from error
        await asyncio.sleep(0.05)


async def _lock(connection: AsyncConnection, engines: Engines) -> None:
    if not engines.is_sqlite:  # SQLite: BEGIN IMMEDIATE is the lock
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        if inspect(connection).get_table_names():
            raise ConfigurationError("The database belongs to another program: it has tables but no schema version.")
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _to_head(connection: Connection) -> None:
    version = _version(connection)
    if version == HEAD:
        return
    from alembic import command  # late: 0.2 s that only a migration needs
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise ConfigurationError(
            f"The database has schema {version}, which is newer than this program knows ({HEAD}). Install the newer version again."
        )
    command.upgrade(config, "head")
