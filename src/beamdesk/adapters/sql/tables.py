"""What the tables of one transaction share: running statements, and refusing writes where none were announced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import CursorResult, Executable, Table
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert

_Given = Mapping[str, Any] | None


class Tables:
    """Base of all tables. A connection and the right to write, nothing else.

    ``given``: values of the statement's bound parameters. Statements that run with every pass are made once and given values, so
    that SQLAlchemy neither builds them nor derives the key of their compiled form again.
    """

    def __init__(self, connection: AsyncConnection, *, writable: bool) -> None:
        self._connection = connection
        self._writable = writable

    @property
    def _is_sqlite(self) -> bool:
        return self._connection.dialect.name == "sqlite"

    async def _read(self, statement: Executable, given: _Given = None) -> Sequence[RowMapping]:
        return (await self._connection.execute(statement, given)).mappings().all()

    async def _read_one(self, statement: Executable, given: _Given = None) -> RowMapping | None:
        return (await self._connection.execute(statement, given)).mappings().one_or_none()

    async def _write(self, statement: Executable, given: _Given = None) -> CursorResult[Any]:
        if not self._writable:
            raise RuntimeError("a write in a read-only transaction: open it with begin(write=True)")
        result = await self._connection.execute(statement, given)
        assert isinstance(result, CursorResult)  # noqa: S101  # what SQLAlchemy returns for DML; for the type checker
        return result

    async def _write_returning(self, statement: Executable, given: _Given = None) -> Sequence[RowMapping]:
        return (await self._write(statement, given)).mappings().all()

    async def _upsert(self, table: Table, key: str, values: dict[str, Any]) -> None:
        """Insert, or replace the row with the same ``key``."""
        changed = {name: value for name, value in values.items() if name != key}
        make = sqlite_insert if self._is_sqlite else postgres_insert
        await self._write(make(table).values(**values).on_conflict_do_update(index_elements=[key], set_=changed))

    def _insert_or_ignore(self, table: Table, values: dict[str, Any]) -> ReturningInsert[Any]:
        """Return an insert that yields the row, or none when any unique key is taken."""
        make = sqlite_insert if self._is_sqlite else postgres_insert
        return make(table).values(**values).on_conflict_do_nothing().returning(*table.c)
