"""The reconciler's half of the desktop table: claims, the waiting line, apply, remove.

A claim is a token and an expiry on the row. Whoever writes the state half proves the token in the same statement: zero rows = the
claim was lost to somebody else, and nothing is written.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    Integer,
    and_,
    bindparam,
    case,
    delete,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    tuple_,
    update,
)

from beamdesk.adapters.sql import schema
from beamdesk.adapters.sql.rows import desktop_from, is_visible_change, outcome_values, removed_json
from beamdesk.adapters.sql.tables import Tables
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Desktop, Phase, QueuePlace, Reason
from beamdesk.domain.ids import DesktopId
from beamdesk.ports.store import Claimed, Outcome
from beamdesk.scheduling.admission import Holder, Waiting, place_of

_table = schema.desktop
_columns = _table.c
ADMISSION_LOCK = 0x6265616D_00000002
"""Serialises all decisions about capacity on PostgreSQL; on SQLite the write lock does."""
WORK_CHANNEL = "beamdesk_work"


def is_waiting() -> ColumnElement[bool]:
    """Return the condition of standing in the waiting line."""
    return and_(_columns.phase == Phase.QUEUED, _columns.desired == Desired.RUNNING, _columns.admitted.is_(False))


_MOVING = (Phase.BUILDING, Phase.BOOTING, Phase.REPAIRING, Phase.STOPPING, Phase.DELETING)
_RESTING = (Phase.READY, Phase.STOPPED, Phase.FAILED)
_BATCH = 500


def _is_moving() -> ColumnElement[bool]:
    held = and_(_columns.claim_until.is_not(None), _columns.phase.not_in(_RESTING))
    return or_(_columns.phase.in_(_MOVING), held)


_NOW = bindparam("moment", type_=schema.UtcTime())
_PROOF = (_columns.id == bindparam("held_id"), _columns.claim_token == bindparam("held_token"))
_MOVES = select(_columns.id).where(_is_moving()).limit(1)
_RENEW = update(_table).where(*_PROOF).values(claim_until=bindparam("held_until", type_=schema.UtcTime()))


def _silent() -> ColumnElement[bool]:
    ready = and_(_columns.phase == Phase.READY, _columns.due_at > _NOW)
    guest = schema.guest.c
    seen_before = bindparam("seen_before", type_=schema.UtcTime())
    return and_(ready, _columns.id.in_(select(guest.desktop_id).where(guest.seen_at < seen_before)))


_FREE = or_(_columns.claim_until.is_(None), _columns.claim_until <= _NOW)
DUE = select(_columns.id).where(_columns.due_at <= _NOW, _FREE)
"""The rows that are due at a ``moment`` and that nobody holds."""
_SILENT = select(_columns.id).where(_silent()).limit(1)


@cache
def _claim(*, locked: bool, woken_only: bool) -> Executable:
    """Return the statement that claims; ``locked``: rows that somebody else claims at this moment are passed over."""
    due = DUE.order_by(_columns.woken.desc(), _columns.due_at)
    due = due.limit(bindparam("most", type_=Integer()))
    if woken_only:
        due = due.where(_columns.woken)
    if locked:
        due = due.with_for_update(skip_locked=True)
    chosen = due.cte("chosen")  # a CTE with a row lock is evaluated once; a plain subquery may be twice
    until = bindparam("held_until", type_=schema.UtcTime())
    values = {"claim_token": bindparam("held_token"), "claim_until": until, "woken": False}
    return update(_table).where(_columns.id.in_(select(chosen.c.id))).values(**values).returning(*_columns)


@cache
def _apply(*, visible: bool) -> Executable:
    """Return the statement that writes the state half and releases; its other columns come with the values given."""
    missed = or_(_columns.generation != bindparam("known_generation"), _columns.woken)
    due_at = case((missed, _NOW), else_=bindparam("next_due_at", type_=schema.UtcTime()))
    values: dict[str, Any] = {"due_at": due_at, "claim_token": None, "claim_until": None, "woken": False}
    if visible:
        values["version"] = _columns.version + 1
    return update(_table).where(*_PROOF).values(**values)


class Claims(Tables):
    """Claimed rows. Part of `SqlDesktops`."""

    async def _notify_work(self) -> None:
        if not self._is_sqlite:
            await self._connection.execute(select(func.pg_notify(WORK_CHANNEL, "")))

    async def wake(self, desktop_id: DesktopId, now: datetime) -> None:
        """Make the desktop due now; absent is fine."""
        await self._wake(_columns.id == desktop_id, now)

    async def wake_waiting(self, now: datetime) -> int:
        """Make all rows in the waiting line due now."""
        return await self._wake(is_waiting(), now)

    async def wake_silent(self, seen_before: datetime, now: datetime) -> int:
        """Make ready rows due whose guest was last seen before ``seen_before``."""
        given = {"seen_before": seen_before, "moment": now}
        return await self._make_due(_silent(), now, given) if await self._read(_SILENT, given) else 0

    async def moves(self) -> bool:
        """Tell whether any desktop is on its way and waits for its server, or somebody is about to send one there."""
        return bool(await self._read(_MOVES))

    async def wake_moving(self, now: datetime, among: frozenset[DesktopId] | None) -> int:
        """Make rows on their way due now; one that is claimed may be on its way before its row says so."""
        if among is None:
            return await self._wake(_is_moving(), now)
        ordered, count = sorted(among), 0
        for start in range(0, len(ordered), _BATCH):
            named = _columns.id.in_(ordered[start : start + _BATCH])
            count += await self._wake(and_(named, _columns.phase.not_in(_RESTING)), now)
        return count

    async def _wake(self, which: ColumnElement[bool], now: datetime) -> int:
        if not await self._read(select(_columns.id).where(which).limit(1)):
            return 0  # most calls: no write lock taken, no page dirtied
        return await self._make_due(which, now)

    async def _make_due(self, which: ColumnElement[bool], now: datetime, given: dict[str, Any] | None = None) -> int:
        count = (await self._write(update(_table).where(which).values(due_at=now, woken=True), given)).rowcount
        if count:
            await self._notify_work()
        return count

    async def claim(
        self, *, token: str, now: datetime, until: datetime, limit: int, woken_only: bool = False
    ) -> tuple[Claimed, ...]:
        """Claim due rows that nobody holds, woken ones first, then the oldest due, by one statement."""
        given = {"moment": now, "most": limit, "held_token": token, "held_until": until}
        rows = await self._write_returning(_claim(locked=not self._is_sqlite, woken_only=woken_only), given)
        claimed = [Claimed(desktop_from(row), token, until) for row in rows]
        return tuple(sorted(claimed, key=lambda one: one.desktop.due_at))

    async def renew(self, claimed: Claimed, until: datetime) -> bool:
        """Hold on to a claim until later and lock its row to the end of the transaction."""
        return (await self._write(_RENEW, _held(claimed) | {"held_until": until})).rowcount == 1

    async def renew_all(self, claimed: tuple[Claimed, ...], until: datetime) -> frozenset[DesktopId]:
        """Hold on to claims until later; return which are still held."""
        held: set[DesktopId] = set()
        for start in range(0, len(claimed), _BATCH // 2):
            pairs = [(one.desktop.id, one.token) for one in claimed[start : start + _BATCH // 2]]
            mine = tuple_(_columns.id, _columns.claim_token).in_(sorted(pairs))  # rows are locked in one order by everybody
            rows = await self._write_returning(update(_table).where(mine).values(claim_until=until).returning(_columns.id))
            held |= {DesktopId(row["id"]) for row in rows}
        return frozenset(held)

    async def tell(self, claimed: Claimed, reason: Reason, detail: str) -> bool:
        """Write reason and detail under the claim."""
        values: dict[str, Any] = {"reason": str(reason), "detail": detail, "version": _columns.version + 1}
        return (await self._write(update(_table).where(*_PROOF).values(**values), _held(claimed))).rowcount == 1

    async def apply(self, claimed: Claimed, outcome: Outcome, now: datetime) -> bool:
        """Write the state half and release, WHERE id AND token."""
        before = claimed.desktop
        given = outcome_values(outcome) | _held(claimed)
        given |= {"known_generation": before.generation, "moment": now, "next_due_at": outcome.due_at}
        return (await self._write(_apply(visible=is_visible_change(before, outcome)), given)).rowcount == 1

    async def admit(self, claimed: Claimed, total: Resources, now: datetime) -> QueuePlace | None:
        """Give the desktop its share if it fits and nobody is before it in line, else return its place.

        Raises:
            LookupError: the claim was lost.
        """
        if not self._is_sqlite:  # SQLite: the write lock serialises
            await self._connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADMISSION_LOCK})
        desktop = claimed.desktop
        values: dict[str, Any] = {"queued_at": func.coalesce(_columns.queued_at, _time(now))}
        if not (await self._write(update(_table).where(*_PROOF).values(**values), _held(claimed))).rowcount:
            raise LookupError("the claim was lost")
        mine = or_(is_waiting(), _columns.id == desktop.id)
        line = await self._read(select(_table).where(mine).order_by(_columns.queued_at, _columns.created_at, _columns.id))
        holders = [Holder(_amounts(one.resources), one.lease_ends_at) for one in await self.holders() if one.id != desktop.id]
        waiting = [Waiting(row["id"], _amounts(desktop_from(row).resources)) for row in line]
        place = place_of(_amounts(total), holders, waiting, desktop.id, now)
        if place is None:
            await self._write(update(_table).where(*_PROOF).values(admitted=True), _held(claimed))
            return None
        return QueuePlace(place.place, place.lacking, place.expected_at)

    async def holders(self) -> tuple[Desktop, ...]:
        """Return all admitted rows, soonest lease end first."""
        rows = await self._read(select(_table).where(_columns.admitted.is_(True)).order_by(_columns.lease_ends_at))
        return tuple(desktop_from(row) for row in rows)

    async def remove(self, claimed: Claimed, now: datetime) -> bool:
        """Delete the row under the claim; guest, nonces, tickets and thumbnail go with it, open sessions end."""
        rows = await self._write_returning(delete(_table).where(*_PROOF).returning(*_columns), _held(claimed))
        if not rows:
            return False
        row = rows[0]
        tombstone = {"id": row["id"], "owner": row["owner"], "idempotency_key": row["idempotency_key"]}
        tombstone |= {"created_at": row["created_at"], "removed_at": now, "row": removed_json(row)}
        await self._write(insert(schema.removed_desktop).values(**tombstone))
        sessions = schema.session.c
        ended = update(schema.session).where(sessions.desktop_id == row["id"], sessions.ended_at.is_(None))
        await self._write(ended.values(ended_at=now, end_reason="deleted"))
        return True

    async def phases(self) -> dict[DesktopId, Phase]:
        """Return the phase of every row."""
        rows = await self._read(select(_columns.id, _columns.phase))
        return {DesktopId(row["id"]): Phase(row["phase"]) for row in rows}

    async def known_ids(self) -> frozenset[DesktopId]:
        """Return the ids of all rows."""
        return frozenset(DesktopId(row["id"]) for row in await self._read(select(_columns.id)))

    async def removed_among(self, desktop_ids: frozenset[DesktopId]) -> frozenset[DesktopId]:
        """Return those whose row was removed here."""
        gone = schema.removed_desktop.c.id
        wanted = select(gone).where(gone.in_(desktop_ids) if desktop_ids else false())
        return frozenset(DesktopId(row["id"]) for row in await self._read(wanted))

    async def due_count(self, now: datetime) -> int:
        """Count due rows."""
        query = select(func.count()).select_from(_table).where(_columns.due_at <= now)
        return int((await self._connection.execute(query)).scalar_one())


def _time(value: datetime) -> BindParameter[datetime]:
    """Bind a time as our own type where SQLAlchemy would guess another."""
    return literal(value, schema.UtcTime())


def _held(claimed: Claimed) -> dict[str, Any]:
    """Return the values of `_PROOF`: who holds the row."""
    return {"held_id": claimed.desktop.id, "held_token": claimed.token}


def _amounts(resources: Resources) -> dict[str, int]:
    names = ("vcpus", "memory_mib", "disk_gib", "gpus")
    return {name: getattr(resources, name) for name in names}
