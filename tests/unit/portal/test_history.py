"""Curves of a host and its cards: gaps where nothing was reported, and for operators only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from apikit import START
from beamdesk.app.context import App
from beamdesk.domain.srm import CardState, DeviceRecord, HostRecord, Sample
from beamdesk.portal.history import path_of
from srmkit import FACTS, FIRST, a_card

from .conftest import Browse
from .pages import text

pytestmark = pytest.mark.anyio
T0 = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_a_curve_has_a_gap_where_nothing_was_reported() -> None:
    known = [(T0, 0.0), (T0 + 10 * MINUTE, 1.0), (T0 + 50 * MINUTE, 0.5)]
    path = path_of(known, T0, T0 + 100 * MINUTE, 10 * MINUTE)
    assert path == "M50.0 100.0h50.0L150.0 0.0M550.0 50.0h50.0"


def test_a_curve_stays_in_its_frame() -> None:
    assert path_of([(T0 - MINUTE, 7.0)], T0, T0 + 100 * MINUTE, MINUTE).startswith("M0.0 0.0")


async def put_history(app: App) -> None:
    async with app.store.begin(write=True) as tx:
        await tx.srm.put_host(HostRecord("gpu01", START, facts=FACTS, seen_at=START, aggregates=("B7",)))
        await tx.srm.put_device(DeviceRecord("gpu01", FIRST, a_card(), CardState.USED, START))
        for hours in range(1, 6):
            at = START - timedelta(hours=hours)
            await tx.srm.add_samples(
                Sample("gpu01", "", at, "ok", 0.5, 65536, None), Sample("gpu01", FIRST, at, "used", None, None, 60 + hours)
            )


async def test_an_operator_sees_what_was_reported_in_curves_and_numbers(app: App, browse: Browse) -> None:
    await put_history(app)
    async with browse("olga") as client:
        page = await client.get("/hosts/gpu01")
        hosts = await client.get("/hosts")
    words = text(page)
    assert "CPU busy 50 % on average, 50 % at last" in words
    assert "Memory used 25 % on average" in words
    assert "In use by a desktop 100 % on average" in words
    assert "65 °C at most" in words
    assert "GPU busy" not in words, "nobody can tell of a card that is passed through"
    assert page.text.count('class="curve ') == 3
    assert "gpu01" in text(hosts)
    assert 'href="/hosts/gpu01"' in hosts.text


async def test_others_do_not_see_it_and_a_host_without_records_is_not_found(app: App, browse: Browse) -> None:
    await put_history(app)
    async with browse("bob") as client:
        assert (await client.get("/hosts/gpu01")).status_code == 403
    async with browse("olga") as client:
        assert (await client.get("/hosts/nowhere")).status_code == 404


async def test_a_card_of_which_nothing_was_reported_says_so(app: App, browse: Browse) -> None:
    async with app.store.begin(write=True) as tx:
        await tx.srm.put_host(HostRecord("gpu01", START, facts=FACTS, seen_at=START))
        await tx.srm.put_device(DeviceRecord("gpu01", FIRST, a_card(), CardState.USED, START))
    async with browse("olga") as client:
        page = await client.get("/hosts/gpu01?hours=336")
    assert "Nothing was reported in this time." in text(page)
