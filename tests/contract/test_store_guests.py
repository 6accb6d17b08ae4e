"""The store's contract, guests: nonces that are spent once, reports, pictures."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

import pytest

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.ids import DesktopId
from beamdesk.protocol.guest import NO_CARD_WORKS, Step, StepName, StepState
from engine_kit import T0
from storekit import LATER, SOON, insert, make_guest

pytestmark = pytest.mark.anyio


async def test_a_nonce_is_spent_once(store: SqlStore, other: SqlStore) -> None:
    await insert(store, "desktop01")
    async with store.begin(write=True) as tx:
        await tx.guests.put(make_guest())

    async def spend(where: SqlStore, token: bytes) -> bool:
        async with where.begin(write=True) as tx:
            return await tx.guests.spend_nonce(b"n" * 32, token, T0) is not None

    tries = await asyncio.gather(*(spend((store, other)[n % 2], bytes([n]) * 32) for n in range(6)))
    assert sum(tries) == 1
    async with store.begin() as tx:
        winner = bytes([tries.index(True)]) * 32
        guest = await tx.guests.by_token(winner)
        assert guest is not None
        assert (guest.nonce_hash, guest.enrolled_at, guest.seen_at) == (None, T0, T0)


async def test_an_expired_unknown_or_forgotten_nonce_is_refused(store: SqlStore) -> None:
    await insert(store, "desktop01")
    async with store.begin(write=True) as tx:
        await tx.guests.put(make_guest())
        assert await tx.guests.spend_nonce(b"x" * 32, b"t" * 32, T0) is None
        assert await tx.guests.spend_nonce(b"n" * 32, b"t" * 32, SOON) is None
        await tx.guests.remove(DesktopId("desktop01"))
        assert await tx.guests.spend_nonce(b"n" * 32, b"t" * 32, T0) is None
        await tx.guests.put(make_guest(b"m" * 32))
        assert await tx.guests.spend_nonce(b"n" * 32, b"t" * 32, T0) is None


async def test_every_nonce_that_a_server_may_have_works_and_one_spends_all(store: SqlStore) -> None:
    await insert(store, "desktop01")
    async with store.begin(write=True) as tx:
        await tx.guests.put(make_guest(b"1" * 32))
        await tx.guests.put(make_guest(b"2" * 32))
        assert await tx.guests.spend_nonce(b"1" * 32, b"t" * 32, T0) is not None
        assert await tx.guests.spend_nonce(b"2" * 32, b"u" * 32, T0) is None


async def test_reports_and_thumbnails(store: SqlStore) -> None:
    await insert(store, "desktop01")
    steps = (Step(StepName.ENROL, StepState.DONE), Step(StepName.DISPLAY, StepState.FAILED, "no X"))
    async with store.begin(write=True) as tx:
        desktop_id = DesktopId("desktop01")
        await tx.guests.put(make_guest())
        await tx.guests.report(desktop_id, now=SOON, steps=steps, failure="no X", input_idle_s=3.5, cpu=0.5, gpu=0.1)
        guest = await tx.guests.get(desktop_id)
        assert guest is not None
        assert (guest.steps, guest.failure, guest.seen_at, guest.cpu) == (steps, "no X", SOON, 0.5)
        assert await tx.guests.thumbnail(desktop_id) is None
        await tx.guests.put_thumbnail(desktop_id, "image/jpeg", b"one", T0)
        await tx.guests.put_thumbnail(desktop_id, "image/jpeg", b"two", SOON)
        assert await tx.guests.thumbnail(desktop_id) == ("image/jpeg", b"two", SOON)
        await tx.guests.report(DesktopId("gone"), now=SOON, steps=(), failure="", input_idle_s=0, cpu=0, gpu=0)


async def test_the_guests_of_several_desktops_are_read_at_once(store: SqlStore) -> None:
    for name in ("desktop01", "desktop02", "desktop03"):
        await insert(store, name)
    async with store.begin(write=True) as tx:
        for name in ("desktop01", "desktop03"):
            await tx.guests.put(replace(make_guest(name.encode() * 3), desktop_id=DesktopId(name)))
        found = await tx.guests.many([DesktopId(name) for name in ("desktop01", "desktop02", "gone")])
        assert {key: guest.desktop_id for key, guest in found.items()} == {"desktop01": "desktop01"}
        assert await tx.guests.many([]) == {}


async def test_how_a_card_is_used_may_be_unknown_and_the_last_work_is_remembered(store: SqlStore) -> None:
    await insert(store, "desktop01")

    async def told(now: datetime, gpu: float | None, *, worked: bool) -> tuple[float | None, datetime | None]:
        async with store.begin(write=True) as tx:
            await tx.guests.report(
                DesktopId("desktop01"), now=now, steps=(), failure="", input_idle_s=0, cpu=0, gpu=gpu, worked=worked
            )
            guest = await tx.guests.get(DesktopId("desktop01"))
            assert guest is not None
            return guest.gpu, guest.worked_at

    async with store.begin(write=True) as tx:
        await tx.guests.put(make_guest())
    assert await told(T0, 0.25, worked=False) == (0.25, None)
    assert await told(SOON, None, worked=True) == (None, SOON)
    assert await told(LATER, 0.0, worked=False) == (0.0, SOON)
    assert await told(LATER, NO_CARD_WORKS, worked=False) == (NO_CARD_WORKS, SOON)
    async with store.begin(write=True) as tx:
        await tx.guests.put(replace(make_guest(b"m" * 32), gpu=None, worked_at=LATER))
        guest = await tx.guests.get(DesktopId("desktop01"))
    assert guest is not None
    assert (guest.gpu, guest.worked_at) == (None, LATER)
