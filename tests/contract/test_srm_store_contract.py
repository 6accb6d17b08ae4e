"""The SRM tables' contract, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.srm import CardState, Consumer, DeviceRecord, HostRecord, Mean, Sample, StateReason
from beamdesk.protocol.srm import LendMode, PartsFacts, ProfileFacts
from engine_kit import T0
from srmkit import FACTS, FIRST, LOAD, SECOND, a_card, held

pytestmark = pytest.mark.anyio
PARTS = PartsFacts("mig", 8, True, (ProfileFacts("1g.10gb", 142, 1, (0, 1, 2), 10240),))
HOST = HostRecord(
    "gpu01", T0, "m" * 64, b"enrol", T0 + timedelta(hours=1), b"token", T0, False, True, ("b7", "线站"), "session", 1 << 40, b"digest",
    True, True, "0.1.0", "boot", FACTS, LOAD, -1.5, T0 + timedelta(seconds=3), True, 7,
)  # fmt: skip
DEVICE = DeviceRecord(
    "gpu01", FIRST, a_card(FIRST, mode=LendMode.MIG, parts=PARTS), CardState.CLEANING, T0, StateReason.CLEANING, "detail", held(), False,
    "server-1", "job", T0 + timedelta(minutes=5), 2, 9,
)  # fmt: skip


@pytest.fixture
async def store(url: str, anyio_backend: str) -> AsyncIterator[SqlStore]:
    opened = await SqlStore.open(url)
    async with opened.begin(write=True) as tx:
        await tx.srm.put_host(HOST)
        await tx.srm.put_device(DEVICE)
    yield opened
    await opened.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_records_come_back_as_they_were(store: SqlStore) -> None:
    bare = HostRecord("bare", T0)
    plain = DeviceRecord("bare", SECOND, a_card(SECOND), CardState.FREE, T0)
    async with store.begin(write=True) as tx:
        await tx.srm.put_host(bare)
        await tx.srm.put_device(plain)
    async with store.begin() as tx:
        assert await tx.srm.hosts() == (bare, HOST)
        assert await tx.srm.devices() == (plain, DEVICE)
        assert await tx.srm.devices("gpu01") == (DEVICE,)
        assert await tx.srm.host("gpu01") == HOST
        assert await tx.srm.device("gpu01", FIRST) == DEVICE
        assert (await tx.srm.host("none"), await tx.srm.device("gpu01", SECOND)) == (None, None)


async def test_putting_again_replaces(store: SqlStore) -> None:
    async with store.begin(write=True) as tx:
        await tx.srm.put_host(replace(HOST, facts=None, load=None, token_hash=None))
        await tx.srm.put_device(replace(DEVICE, load=None, state=CardState.FREE))
    async with store.begin() as tx:
        assert (await tx.srm.host("gpu01")) == replace(HOST, facts=None, load=None, token_hash=None)
        assert (await tx.srm.device("gpu01", FIRST)) == replace(DEVICE, load=None, state=CardState.FREE)


async def test_hosts_are_found_by_what_they_hold(store: SqlStore) -> None:
    async with store.begin(write=True) as tx:
        for found in (
            await tx.srm.host_by_token(b"token", lock=True), await tx.srm.host_by_enrolment(b"enrol"),
            await tx.srm.host_by_machine("m" * 64),
        ):  # fmt: skip
            assert found == HOST
        for none in (await tx.srm.host_by_token(b"t"), await tx.srm.host_by_enrolment(b""), await tx.srm.host_by_machine("")):
            assert none is None


async def test_a_locked_host_waits_for_the_other_transaction(store: SqlStore) -> None:
    """Two reports at once: each sees what the other wrote, none is lost."""

    async def count() -> None:
        async with store.begin(write=True) as tx:
            host = await tx.srm.host("gpu01", lock=True)
            assert host is not None
            await asyncio.sleep(0)
            await tx.srm.put_host(replace(host, version=host.version + 1))

    await asyncio.gather(*(count() for _ in range(8)))
    async with store.begin() as tx:
        host = await tx.srm.host("gpu01")
    assert host is not None
    assert host.version == HOST.version + 8


async def test_a_host_takes_all_that_is_its_own_along(store: SqlStore) -> None:
    async with store.begin(write=True) as tx:
        await tx.srm.add_samples(Sample("gpu01", FIRST, T0, "free", None, None, None))
    async with store.begin(write=True) as tx:
        assert await tx.srm.remove_host("gpu01")
        assert not await tx.srm.remove_host("gpu01")
    async with store.begin() as tx:
        assert (await tx.srm.devices(), await tx.srm.samples("gpu01", FIRST, T0, 10)) == ((), ())


async def test_history_is_read_newest_and_purged_oldest(store: SqlStore) -> None:
    points = [Sample("gpu01", FIRST, T0 + timedelta(minutes=one), "used", one / 10, one, 40 + one) for one in range(6)]
    async with store.begin(write=True) as tx:
        await tx.srm.add_samples(*points)
        await tx.srm.add_samples()
    async with store.begin() as tx:
        assert await tx.srm.samples("gpu01", FIRST, T0 + timedelta(minutes=1), 3) == tuple(points[3:])
        assert await tx.srm.samples("gpu01", "", T0, 3) == ()
    async with store.begin(write=True) as tx:
        assert await tx.srm.purge_samples(T0 + timedelta(minutes=4), 3) == 3
        assert await tx.srm.purge_samples(T0 + timedelta(minutes=4), 3) == 1
    async with store.begin() as tx:
        assert await tx.srm.samples("gpu01", FIRST, T0, 10) == tuple(points[4:])


async def test_history_is_told_in_stretches(store: SqlStore) -> None:
    def sample(address: str, minute: int, state: str, busy: float | None, memory: int | None, degrees: int | None) -> Sample:
        return Sample("gpu01", address, T0 + timedelta(minutes=minute), state, busy, memory, degrees)

    points = [
        sample(FIRST, minute, "used" if minute < 15 else "free", minute / 10, 100 * minute, 40 + minute)
        for minute in (0, 4, 10, 19)
    ]
    points += [
        sample("", 5, "ok", 0.5, None, None),
        sample(FIRST, 40, "free", None, None, None),
        sample(FIRST, -1, "used", 1.0, 1, 99),
    ]
    async with store.begin(write=True) as tx:
        await tx.srm.put_host(HostRecord("gpu02", T0))
        await tx.srm.add_samples(*points, Sample("gpu02", FIRST, T0, "used", 1.0, 1, 1))
    async with store.begin() as tx:
        found = await tx.srm.means("gpu01", T0, 600)
    assert found == (
        Mean("", T0, 0.5, None, None, 0.0),
        Mean(FIRST, T0, 0.2, 200.0, 44, 1.0),
        Mean(FIRST, T0 + timedelta(minutes=10), 1.45, 1450.0, 59, 0.5),
        Mean(FIRST, T0 + timedelta(minutes=40), None, None, None, 0.0),
    )


async def test_a_program_has_one_credential(store: SqlStore) -> None:
    async with store.begin(write=True) as tx:
        await tx.srm.put_consumer("nova", b"one", "olga", T0)
        await tx.srm.put_consumer("nova", b"two", "olga", T0)
        await tx.srm.touch_consumer("nova", T0 + timedelta(seconds=5), 2)
    async with store.begin(write=True) as tx:
        assert await tx.srm.consumer_by_token(b"one") is None
        nova = Consumer("nova", b"two", T0, T0 + timedelta(seconds=5), 2)
        assert await tx.srm.consumer_by_token(b"two") == nova
        assert await tx.srm.consumers() == (nova,)
        assert await tx.srm.remove_consumer("nova")
        assert not await tx.srm.remove_consumer("nova")


async def test_forgetting_a_device_twice_is_fine(store: SqlStore) -> None:
    async with store.begin(write=True) as tx:
        await tx.srm.remove_device("gpu01", FIRST)
        await tx.srm.remove_device("gpu01", FIRST)
    async with store.begin() as tx:
        assert await tx.srm.devices() == ()
