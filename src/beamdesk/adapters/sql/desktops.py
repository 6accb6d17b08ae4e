"""The desktop table: the intent half, reading, quotas. The reconciler's half is in `claims`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal, or_, select, text, tuple_, update

from beamdesk.adapters.sql import schema
from beamdesk.adapters.sql.claims import Claims
from beamdesk.adapters.sql.rows import desktop_from, desktop_from_removed, desktop_values, shape_values
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason, Shape
from beamdesk.domain.errors import NotFound, StaleWrite
from beamdesk.domain.ids import DesktopId, ExperimentId, PersonId
from beamdesk.domain.policy import Usage

_table = schema.desktop
_columns = _table.c
_removed = schema.removed_desktop
_OWNER_LOCKS, _EXPERIMENT_LOCKS = 0x6265_0001, 0x6265_0002
"""Spaces of advisory locks: one lock a person, one an experiment."""
_BATCH = 500


class SqlDesktops(Claims):
    """`beamdesk.ports.store.Desktops` on a database."""

    async def get(self, desktop_id: DesktopId) -> Desktop | None:
        """Return one desktop."""
        row = await self._read_one(select(_table).where(_columns.id == desktop_id))
        return desktop_from(row) if row else None

    async def ready_addresses(self, desktop_ids: frozenset[DesktopId]) -> dict[DesktopId, str]:
        """Return where those of the given desktops that are ready are reached."""
        found: dict[DesktopId, str] = {}
        ordered = sorted(desktop_ids)
        for start in range(0, len(ordered), _BATCH):
            query = select(_columns.id, _columns.address).where(
                _columns.id.in_(ordered[start : start + _BATCH]), _columns.phase == str(Phase.READY), _columns.address.is_not(None)
            )
            found |= {row["id"]: row["address"] for row in await self._read(query)}
        return found

    async def insert(self, desktop: Desktop, *, idempotency_key: str | None = None) -> Desktop:
        """Insert; with a key that the owner used before, return that desktop instead."""
        if idempotency_key is not None and (earlier := await self.find_by_key(desktop.owner, idempotency_key)):
            return earlier
        values = desktop_values(desktop) | {"idempotency_key": idempotency_key, "woken": False}
        if idempotency_key is None:
            await self._write(_table.insert().values(**values))
        elif not await self._write_returning(self._insert_or_ignore(_table, values)):
            earlier = await self.find_by_key(desktop.owner, idempotency_key)
            if earlier is None:
                raise ValueError("a desktop with this id exists")
            return earlier
        await self._notify_work()
        return desktop

    async def find_by_key(self, owner: PersonId, idempotency_key: str) -> Desktop | None:
        """Return the desktop that the owner created with this key, removed ones as they were last."""
        mine = (_columns.owner == owner, _columns.idempotency_key == idempotency_key)
        row = await self._read_one(select(_table).where(*mine))
        if row:
            return desktop_from(row)
        gone = select(_removed.c.row).where(_removed.c.owner == owner, _removed.c.idempotency_key == idempotency_key)
        row = await self._read_one(gone.order_by(_removed.c.removed_at.desc()).limit(1))
        return desktop_from_removed(row["row"]) if row else None

    async def page(
        self,
        *,
        owner: PersonId | None = None,
        experiments: tuple[ExperimentId, ...] | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[Desktop, ...]:
        """Return desktops owned by ``owner`` or in ``experiments``, newest first, after the last id seen."""
        query = select(_table).order_by(_columns.created_at.desc(), _columns.id.desc()).limit(limit)
        wanted: list[ColumnElement[bool]] = []
        if owner is not None:
            wanted.append(_columns.owner == owner)
        if experiments is not None:
            wanted.append(_columns.experiment.in_(experiments))
        if wanted:
            query = query.where(or_(*wanted))
        if after is not None:
            if (created_at := await self._created_at(after)) is None:
                return ()
            query = query.where(tuple_(_columns.created_at, _columns.id) < tuple_(created_at, after))
        return tuple(desktop_from(row) for row in await self._read(query))

    async def _created_at(self, desktop_id: str) -> Any:
        for table in (_table, _removed):
            row = await self._read_one(select(table.c.created_at).where(table.c.id == desktop_id))
            if row:
                return literal(row["created_at"], schema.UtcTime())  # a row comparison would guess another type
        return None

    async def lock_usage(self, owner: PersonId, experiment: ExperimentId) -> None:
        """Take the advisory locks of both, always in this order; on SQLite the write lock is held already."""
        if not self._is_sqlite:
            for space, name in ((_OWNER_LOCKS, owner), (_EXPERIMENT_LOCKS, experiment)):
                lock = text("SELECT pg_advisory_xact_lock(:space, hashtext(:name))")
                await self._connection.execute(lock, {"space": space, "name": name})

    async def usage(self, *, owner: PersonId | None = None, experiment: ExperimentId | None = None) -> Usage:
        """Count rows not wanted deleted, and sum the resources of those wanted running."""
        kept = select(func.count()).select_from(_table).where(_columns.desired != Desired.DELETED)
        running = _sum_of_resources().where(_columns.desired == Desired.RUNNING)
        if owner is not None:
            kept, running = kept.where(_columns.owner == owner), running.where(_columns.owner == owner)
        if experiment is not None:
            kept, running = kept.where(_columns.experiment == experiment), running.where(_columns.experiment == experiment)
        count = (await self._connection.execute(kept)).scalar_one()
        return Usage(count, await self._sum(running))

    async def admitted_total(self) -> Resources:
        """Sum the resources of all admitted rows."""
        return await self._sum(_sum_of_resources().where(_columns.admitted.is_(True)))

    async def _sum(self, query: Select[Any]) -> Resources:
        row = await self._read_one(query)
        return Resources(**{name: int(value or 0) for name, value in row.items()}) if row else Resources()

    async def change_intent(
        self,
        desktop_id: DesktopId,
        *,
        now: datetime,
        desired: Desired | None = None,
        reason: Reason = Reason.USER,
        lease_ends_at: datetime | None = None,
        name: str | None = None,
        shape: Shape | None = None,
        expected_version: int | None = None,
    ) -> Desktop:
        """Write the intent half. A desktop wanted deleted stays so."""
        changes: dict[str, Any] = {
            "generation": _columns.generation + 1,
            "version": _columns.version + 1,
            "due_at": now,
        }
        if desired is not None:
            deleted = _columns.desired == Desired.DELETED
            changes["desired"] = case((deleted, _columns.desired), else_=str(desired))
            changes["desired_reason"] = case((deleted, _columns.desired_reason), else_=str(reason))
            changes["desired_generation"] = _columns.generation + 1
        if lease_ends_at is not None:
            changes["lease_ends_at"] = lease_ends_at
        if name is not None:
            changes["name"] = name
        if shape is not None:
            changes |= shape_values(shape) | {"fresh_generation": _columns.generation + 1}
        statement = update(_table).where(_columns.id == desktop_id).values(**changes).returning(*_columns)
        if expected_version is not None:
            statement = statement.where(_columns.version == expected_version)
        rows = await self._write_returning(statement)
        if not rows:
            if expected_version is not None and await self.get(desktop_id):
                raise StaleWrite("Somebody changed this desktop meanwhile. Look at it again and repeat.")
            raise NotFound("There is no such desktop.")
        await self._notify_work()
        return desktop_from(rows[0])


def _sum_of_resources() -> Select[Any]:
    names = ("vcpus", "memory_mib", "disk_gib", "gpus")
    return select(*(func.sum(_columns[name]).label(name) for name in names))
