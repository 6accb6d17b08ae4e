"""Why a desktop is where it is, and the operators' map, in a browser: accessible, live, and for nobody else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from beamdesk.app import bookings
from beamdesk.app.bookings import NewBooking
from beamdesk.app.logins import open_login
from beamdesk.domain.ids import FlavorId, PersonId
from beamdesk.domain.srm import CardState, DeviceRecord, HostRecord, Sample
from browser.world import World
from placingkit import cpu_host, gpu_host
from srmkit import FACTS, FIRST, a_card

from .conftest import Open
from .test_accessibility import Checker
from .test_using import EXPERIMENT, applied

pytestmark = pytest.mark.browser


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    states = [CardState.DIRTY, CardState.CLEANING, CardState.FAILED]
    places = [gpu_host(f"gpu-{number + 1:02}", 4, vcpus=32, bad=state) for number, state in enumerate(states)]
    with World(tmp_path, places=(*places, gpu_host("gpu-09", 2, vcpus=16), cpu_host("cpu-01"), cpu_host("cpu-02"))) as world:
        yield world


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_pages_are_accessible(world: World, open_page: Open, width: int, theme: str, language: str) -> None:
    options = {"width": width, "color_scheme": theme, "language": language, "reduced_motion": "reduce"}
    check = Checker()
    desktop = applied(world, "With a card", flavor="gpu.small")
    page = open_page("bob", **options)
    expect(page.locator(".card .pill")).to_have_text("已就绪" if language == "zh" else "Ready", timeout=20_000)
    page.goto(f"/desktops/{desktop}/why")
    expect(page.locator(".bars rect").first).to_be_visible()
    check(page, "why")
    shots = os.environ.get("BEAMDESK_SCREENSHOTS")
    if shots:
        page.screenshot(path=f"{shots}/why-{width}-{theme}-{language}.png", full_page=True)
    page = open_page("olga", **options)
    page.goto("/hosts")
    expect(page.locator(".host")).to_have_count(6)
    check(page, "hosts")
    if shots:
        page.screenshot(path=f"{shots}/hosts-{width}-{theme}-{language}.png", full_page=True)
    page.goto("/bookings")
    check(page, "no bookings")
    page.select_option("#flavor", "gpu.small")
    page.fill("#starts", "2026-01-01T10:00")
    page.fill("#ends", "2026-01-01T12:00")
    page.click("#new-booking .button.primary")
    expect(page.locator("#ends-error")).to_be_visible()
    check(page, "a refused booking")
    starts = datetime.now(UTC) + timedelta(days=2)
    page.fill("#starts", f"{starts:%Y-%m-%dT%H:%M}")
    page.fill("#ends", f"{starts + timedelta(hours=4):%Y-%m-%dT%H:%M}")
    page.click("#new-booking .button.primary")
    expect(page.locator("section[id^=title-] code")).to_have_count(1)
    check(page, "a booking")
    if shots:
        page.screenshot(path=f"{shots}/bookings-{width}-{theme}-{language}.png", full_page=True)
    page.goto("/hosts?state=used&q=nothing+like+it")
    check(page, "no hosts")
    assert not check.problems, "\n".join(check.problems)


def test_the_map_filters_by_keyboard_and_follows_what_happens(world: World, open_page: Open) -> None:
    page = open_page("olga")
    page.goto("/hosts")
    expect(page.locator(".host-card.state-used")).to_have_count(0)
    applied(world, "Live one", flavor="gpu.small")
    expect(page.locator(".host-card.state-used")).to_have_count(1, timeout=20_000)
    expect(page.locator(".host-card.state-used")).to_contain_text("Live one")
    page.focus("#q")
    page.keyboard.type("live ONE")
    page.keyboard.press("Enter")
    expect(page.locator(".host")).to_have_count(1)
    page.select_option("#state", "failed")
    page.fill("#q", "")
    page.press("#q", "Enter")
    expect(page.locator(".host h2")).to_have_text(["gpu-03"])


def test_the_bookings_follow_what_happens_and_keep_what_is_typed(world: World, open_page: Open) -> None:
    page = open_page("olga")
    page.goto("/bookings")
    page.fill("#note", "half typed")

    async def book() -> None:
        caller = (await open_login(world.app, PersonId("olga"), kind="cli")).caller
        starts = datetime.now(UTC) + timedelta(hours=30)
        wanted = NewBooking(EXPERIMENT, FlavorId("gpu.small"), starts, starts + timedelta(hours=6), note="by another")
        await bookings.book(world.app, caller, wanted)

    expect(page.locator(".span-booking")).to_have_count(1)  # the legend's
    world.do(book)
    expect(page.locator("svg.timeline .span-booking")).to_have_count(1, timeout=20_000)
    expect(page.locator("section[id^=title-]")).to_contain_text("by another")
    expect(page.locator("#note")).to_have_value("half typed")
    page.locator("svg.timeline .span-booking a").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#title-b"))


@pytest.mark.parametrize("width", [1440, 390])
def test_the_history_of_a_host_is_accessible_and_fits(world: World, open_page: Open, width: int) -> None:
    async def record() -> None:
        now = datetime.now(UTC)
        async with world.app.store.begin(write=True) as tx:
            await tx.srm.put_host(HostRecord("gpu-01", now, facts=FACTS, seen_at=now))
            await tx.srm.put_device(DeviceRecord("gpu-01", FIRST, a_card(), CardState.USED, now))
            for minutes in range(0, 600, 10):
                at = now - timedelta(minutes=minutes)
                await tx.srm.add_samples(
                    Sample("gpu-01", "", at, "ok", minutes / 600, 65536, None), Sample("gpu-01", FIRST, at, "used", 0.5, 8192, 60)
                )

    world.do(record)
    check = Checker()
    page = open_page("olga", width=width, reduced_motion="reduce")
    page.goto("/hosts")
    page.click("a.history")
    expect(page.locator(".curves")).to_have_count(2)
    expect(page.locator(".curve-busy[d]")).to_have_count(1)
    check(page, "history")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not check.problems, "\n".join(check.problems)


def test_nobody_but_operators_gets_the_map(open_page: Open) -> None:
    page = open_page("bob")
    expect(page.locator(".main-nav a[href='/hosts']")).to_have_count(0)
    answer = page.goto("/hosts")
    assert answer is not None
    assert answer.status == 403
