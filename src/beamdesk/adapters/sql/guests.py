"""The guest table: one guest a desktop, and the nonces with which it may enrol."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import bindparam, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from beamdesk.adapters.sql import schema
from beamdesk.adapters.sql.rows import gpu_columns, guest_from, steps_json
from beamdesk.adapters.sql.tables import Tables
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId
from beamdesk.protocol.guest import Step

_guest = schema.guest
_nonce = schema.guest_nonce
_thumbnail = schema.thumbnail


_GUEST = select(_guest).where(_guest.c.desktop_id == bindparam("of"))


class SqlGuests(Tables):
    """`beamdesk.ports.store.Guests` on a database."""

    async def put(self, guest: Guest) -> None:
        """Insert or replace the guest of a desktop; unspent nonces of earlier ones stay.

        Raises:
            LookupError: there is no such desktop; the transaction is of no use any more.
        """
        names = (
            "desktop_id", "nonce_hash", "nonce_expires_at", "token_hash", "stream_secret", "enrolled_at", "seen_at", "failure",
            "input_idle_s", "cpu", "worked_at",
        )  # fmt: skip
        values = {name: getattr(guest, name) for name in names} | gpu_columns(guest.gpu) | {"steps": steps_json(guest.steps)}
        try:
            await self._upsert(_guest, "desktop_id", values)
        except IntegrityError as error:  # its only foreign key
            raise LookupError(f"no desktop {guest.desktop_id}") from error
        if guest.nonce_hash is not None:
            nonce = {"hash": guest.nonce_hash, "desktop_id": guest.desktop_id, "expires_at": guest.nonce_expires_at}
            await self._write(insert(_nonce).values(**nonce))

    async def remove(self, desktop_id: DesktopId) -> None:
        """Forget the guest and its nonces; absent is fine."""
        for table in (_guest, _nonce, _thumbnail):  # guest first, as when a nonce is spent: no deadlock
            await self._write(delete(table).where(table.c.desktop_id == desktop_id))

    async def get(self, desktop_id: DesktopId) -> Guest | None:
        """Return the guest of a desktop."""
        row = await self._read_one(_GUEST, {"of": desktop_id})
        return guest_from(row) if row else None

    async def many(self, desktop_ids: Collection[DesktopId]) -> dict[DesktopId, Guest]:
        """Return the guests of several desktops by one query; those that have none are left out."""
        if not desktop_ids:
            return {}
        rows = await self._read(select(_guest).where(_guest.c.desktop_id.in_(desktop_ids)))
        return {guest.desktop_id: guest for guest in map(guest_from, rows)}

    async def spend_nonce(self, nonce_hash: bytes, token_hash: bytes, now: datetime) -> Guest | None:
        """Exchange an unspent, unexpired nonce for an identity by one atomic UPDATE; all nonces of the desktop are spent by it."""
        valid = exists().where(_nonce.c.hash == nonce_hash, _nonce.c.desktop_id == _guest.c.desktop_id, _nonce.c.expires_at > now)
        spend = update(_guest).where(valid, _guest.c.token_hash.is_(None))
        values = {"token_hash": token_hash, "nonce_hash": None, "enrolled_at": now, "seen_at": now}
        rows = await self._write_returning(spend.values(**values).returning(*_guest.c))
        if not rows:
            return None
        await self._write(delete(_nonce).where(_nonce.c.desktop_id == rows[0]["desktop_id"]))
        return guest_from(rows[0])

    async def by_token(self, token_hash: bytes) -> Guest | None:
        """Return the guest that holds this identity."""
        row = await self._read_one(select(_guest).where(_guest.c.token_hash == token_hash))
        return guest_from(row) if row else None

    async def report(
        self,
        desktop_id: DesktopId,
        *,
        now: datetime,
        steps: tuple[Step, ...],
        failure: str,
        input_idle_s: float,
        cpu: float,
        gpu: float | None,
        worked: bool = False,
    ) -> None:
        """Record what the agent says; a forgotten guest's report changes nothing."""
        values: dict[str, object] = {"seen_at": now, "steps": steps_json(steps), "failure": failure}
        values |= {"input_idle_s": input_idle_s, "cpu": cpu, **gpu_columns(gpu)} | ({"worked_at": now} if worked else {})
        await self._write(update(_guest).where(_guest.c.desktop_id == desktop_id).values(**values))

    async def put_thumbnail(self, desktop_id: DesktopId, content_type: str, image: bytes, now: datetime) -> None:
        """Keep the newest thumbnail only."""
        values = {"desktop_id": desktop_id, "content_type": content_type, "image": image, "at": now}
        await self._upsert(_thumbnail, "desktop_id", values)

    async def thumbnail(self, desktop_id: DesktopId) -> tuple[str, bytes, datetime] | None:
        """Return content type, image and time of the newest thumbnail."""
        row = await self._read_one(select(_thumbnail).where(_thumbnail.c.desktop_id == desktop_id))
        return (row["content_type"], bytes(row["image"]), row["at"]) if row else None
