"""What the store's contract tests share: rows, claims and two times."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId, SessionId
from beamdesk.domain.session import Session, ViewerRole
from beamdesk.ports.store import Claimed
from engine_kit import ADA, T0, make_desktop

SOON = T0 + timedelta(seconds=10)
LATER = T0 + timedelta(minutes=5)


async def insert(store: SqlStore, *ids: str, **changes: object) -> None:
    """Put desktops into the store, due now."""
    async with store.begin(write=True) as tx:
        for desktop_id in ids:
            await tx.desktops.insert(make_desktop(desktop_id, **changes))


async def claim(
    store: SqlStore, token: str = "t1", now: datetime = T0, until: datetime = SOON, limit: int = 10
) -> tuple[Claimed, ...]:
    """Claim what is due."""
    async with store.begin(write=True) as tx:
        return await tx.desktops.claim(token=token, now=now, until=until, limit=limit)


async def get(store: SqlStore, desktop_id: str) -> Desktop:
    """Return a desktop that is there."""
    async with store.begin() as tx:
        desktop = await tx.desktops.get(DesktopId(desktop_id))
    assert desktop is not None
    return desktop


def make_guest(nonce: bytes = b"n" * 32, **changes: object) -> Guest:
    """Return the first desktop's guest, with a nonce."""
    return replace(Guest(DesktopId("desktop01"), nonce, SOON, None, "stream-secret"), **changes)


def make_session(session_id: str = "session1", **changes: object) -> Session:
    """Return one person's session at the first desktop."""
    base = Session(
        SessionId(session_id), DesktopId("desktop01"), ADA.id, "login1", ViewerRole.CONTROLLER, session_id.encode() * 4, T0, LATER
    )
    return replace(base, **changes)
