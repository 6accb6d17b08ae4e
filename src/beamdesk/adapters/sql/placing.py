"""Placements, decisions and bookings. Rows in, values out; what they mean is decided in `app` and in the scheduling core."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Text, cast, delete, func, insert, literal, or_, select, text, update

from beamdesk.adapters.sql import schema
from beamdesk.adapters.sql.claims import ADMISSION_LOCK, is_waiting
from beamdesk.adapters.sql.rows import desktop_from
from beamdesk.adapters.sql.tables import Tables
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.ids import DesktopId, ExperimentId, PersonId
from beamdesk.domain.placement import BookedPart, Booking, Placement, StoredDecision
from beamdesk.scheduling.claims import Grant

_desktop, _placement, _decision, _booking = schema.desktop.c, schema.placement.c, schema.decision.c, schema.booking.c


class SqlPlacing(Tables):
    """`beamdesk.ports.placing.Placing`."""

    async def lock(self) -> None:
        """Hold back everybody else who decides or books; on SQLite the write lock does."""
        if not self._is_sqlite:
            await self._connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADMISSION_LOCK})

    async def line(self, joining: DesktopId, token: str, now: datetime) -> tuple[Desktop, ...]:
        """Return the waiting line with the claimed desktop in it."""
        since = func.coalesce(_desktop.queued_at, literal(now, schema.UtcTime()))
        joined = update(schema.desktop).where(_desktop.id == joining, _desktop.claim_token == token).values(queued_at=since)
        if not (await self._write(joined)).rowcount:
            raise LookupError("the claim was lost")
        there = or_(is_waiting(), _desktop.id == joining)
        order = (_desktop.queued_at, _desktop.created_at, _desktop.id)
        return tuple(desktop_from(row) for row in await self._read(select(schema.desktop).where(there).order_by(*order)))

    async def waiting(self) -> tuple[Desktop, ...]:
        """Return the waiting line."""
        order = (_desktop.queued_at, _desktop.created_at, _desktop.id)
        return tuple(desktop_from(row) for row in await self._read(select(schema.desktop).where(is_waiting()).order_by(*order)))

    async def place(self, placement: Placement, token: str) -> bool:
        """Admit the claimed desktop and keep its place."""
        proof = _desktop.id == placement.desktop, _desktop.claim_token == token
        if not (await self._write(update(schema.desktop).where(*proof).values(admitted=True))).rowcount:
            return False
        await self.put(placement)
        return True

    async def put(self, placement: Placement) -> None:
        """Keep the place of a desktop that is admitted already."""
        values = {"desktop_id": placement.desktop, "host": placement.host, "cards": [_written(one) for one in placement.grants]}
        await self._upsert(schema.placement, "desktop_id", values | {"node": placement.node, "at": placement.at})

    async def placement(self, desktop_id: DesktopId) -> Placement | None:
        """Return where a desktop is."""
        row = await self._read_one(select(schema.placement).where(_placement.desktop_id == desktop_id))
        return _placement_from(row) if row else None

    async def placements(self) -> tuple[Placement, ...]:
        """Return where all are."""
        return tuple(_placement_from(row) for row in await self._read(select(schema.placement)))

    async def release(self, desktop_id: DesktopId) -> Placement | None:
        """Forget where a desktop was and return it."""
        gone = delete(schema.placement).where(_placement.desktop_id == desktop_id).returning(*_placement)
        rows = await self._write_returning(gone)
        return _placement_from(rows[0]) if rows else None

    async def add_decision(self, decision: StoredDecision, *, keep: int) -> None:
        """Keep a decision and prune the older ones of its desktop."""
        values = {"desktop_id": decision.desktop, "at": decision.at, "document": decision.document}
        await self._write(insert(schema.decision).values(**values, verdicts=dict(decision.verdicts), behind=decision.behind))
        mine = _decision.desktop_id == decision.desktop
        kept = select(_decision.id).where(mine).order_by(_decision.id.desc()).limit(keep)
        await self._write(delete(schema.decision).where(mine, _decision.id.not_in(kept)))

    async def decisions(self, desktop_id: DesktopId, limit: int = 10) -> tuple[StoredDecision, ...]:
        """Return the newest decisions about a desktop, newest first."""
        wanted = select(schema.decision).where(_decision.desktop_id == desktop_id).order_by(_decision.id.desc()).limit(limit)
        return tuple(
            StoredDecision(DesktopId(row["desktop_id"]), row["at"], row["document"], row["verdicts"], row["behind"])
            for row in await self._read(wanted)
        )

    async def marks(self, now: datetime) -> bytes:
        """Digest bookings and the leases of servers, as the database has them."""
        booked = await self._read(select(schema.booking).where(_booking.ends > now).order_by(_booking.id))
        servers = await self._read(
            select(_desktop.server_id, _desktop.experiment, _desktop.vcpus, _desktop.memory_mib, _desktop.lease_ends_at)
            .where(_desktop.admitted, _desktop.server_id.is_not(None))
            .order_by(_desktop.id)
        )
        digest = hashlib.blake2b(digest_size=16)
        for row in booked:
            digest.update(repr((list(row.values()), row["starts"] <= now)).encode())
        for row in servers:
            digest.update(repr((list(row.values()), row["lease_ends_at"] > now)).encode())
        return digest.digest()

    async def line_marks(self) -> bytes:
        """Digest who is admitted, where, and who waits, as the database has it."""
        amounts = (_desktop.vcpus, _desktop.memory_mib, _desktop.disk_gib, _desktop.gpus, cast(_desktop.words, Text))
        rows = await self._read(
            select(_desktop.id, _desktop.admitted, _desktop.queued_at, _desktop.lease_ends_at, _desktop.image_ref, *amounts)
            .where(or_(_desktop.admitted, is_waiting()))
            .order_by(_desktop.id)
        )
        placed = await self._read(
            select(_placement.desktop_id, _placement.host, cast(_placement.cards, Text)).order_by(_placement.desktop_id)
        )
        digest = hashlib.blake2b(digest_size=16)
        for row in (*rows, *placed):
            digest.update(repr(list(row.values())).encode())
        return digest.digest()

    async def put_booking(self, booking: Booking) -> None:
        """Keep a booking."""
        await self._upsert(schema.booking, "id", asdict(booking))

    async def booking(self, booking_id: str) -> Booking | None:
        """Return one booking."""
        row = await self._read_one(select(schema.booking).where(_booking.id == booking_id))
        return _booking_from(row) if row else None

    async def bookings(self, ending_after: datetime) -> tuple[Booking, ...]:
        """Return the bookings that are not over at that time, soonest first."""
        wanted = select(schema.booking).where(_booking.ends > ending_after).order_by(_booking.starts, _booking.id)
        return tuple(_booking_from(row) for row in await self._read(wanted))

    async def remove_booking(self, booking_id: str) -> bool:
        """Remove a booking."""
        return (await self._write(delete(schema.booking).where(_booking.id == booking_id))).rowcount == 1

    async def purge_bookings(self, before: datetime) -> int:
        """Remove bookings that were over before a time."""
        return (await self._write(delete(schema.booking).where(_booking.ends < before))).rowcount


def _written(grant: Grant) -> str | dict[str, Any]:
    """Return a whole card as its address, a part of one with what it is."""
    return grant.address if grant == Grant(grant.address) else asdict(grant)


def _placement_from(row: Mapping[Any, Any]) -> Placement:
    grants = tuple(Grant(one) if isinstance(one, str) else Grant(**one) for one in row["cards"])
    return Placement(DesktopId(row["desktop_id"]), row["host"], grants, row["node"], row["at"])


def _booking_from(row: Mapping[Any, Any]) -> Booking:
    parts = tuple(BookedPart(one["host"], tuple(one["cards"]), one["cpu_milli"], one["memory_mib"]) for one in row["parts"])
    return Booking(
        row["id"],
        ExperimentId(row["experiment"]),
        row["flavor"],
        row["starts"],
        row["ends"],
        parts,
        PersonId(row["created_by"]),
        row["created_at"],
        row["note"],
    )
