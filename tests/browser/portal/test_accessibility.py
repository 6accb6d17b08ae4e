"""Every page in both themes, at desk and phone width: no violation that axe can find, nothing wider than the screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from beamdesk.adapters.demo.people import DIFFRACTION, IMAGING
from beamdesk.app.context import SiteRules
from beamdesk.domain.catalog import Resources
from beamdesk.domain.policy import Quota
from beamdesk.domain.server import Remedy
from beamdesk.protocol.guest import NO_CARD_WORKS
from browser.world import World

from .conftest import Open
from .test_using import applied

pytestmark = pytest.mark.browser
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    plenty = Quota(9, Resources(32, 65536, 900, 4))
    with World(tmp_path, rules=SiteRules(person_quota=plenty)) as world:
        world.guests.activity = lambda _: (1.0, 0.3, NO_CARD_WORKS)  # the meters' longest words, where there is a GPU
        world.make_files(64)
        yield world


class Checker:
    """Collects what is wrong on all pages, so that one run tells everything."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def __call__(self, page: Page, where: str) -> None:
        page.wait_for_timeout(250)  # colours of controls fade in
        for violation in Axe().run(page, options=RULES).response["violations"]:
            for node in violation["nodes"][:3]:
                self.problems.append(f"{where}: {violation['id']} {node['target']} {node['failureSummary']}")
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            self.problems.append(f"{where} is wider than the screen")


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_is_accessible(world: World, open_page: Open, width: int, theme: str, language: str) -> None:
    options = {"width": width, "color_scheme": theme, "language": language, "reduced_motion": "reduce"}
    check = Checker()
    page = open_page(None, **options)
    page.goto("/sign-in")
    check(page, "sign in")
    page.click(".sign-in-form button.primary", no_wait_after=True)
    page.evaluate("document.querySelector('.sign-in-form form').noValidate = true")
    page.click(".sign-in-form button.primary")
    check(page, "sign in with errors")

    page = open_page("bob", **options)
    check(page, "no desktops")
    ready = applied(world, "Ready one", flavor="gpu.small")
    expect(page.locator(".card .pill")).to_have_text("已就绪" if language == "zh" else "Ready", timeout=20_000)
    world.put_thumbnail(ready)
    world.cloud.faults.broken_builds.extend([("The image could not be mounted.", Remedy.PERSON)] * 10)
    failed = applied(world, "Failed one")
    expect(page.locator(".card.tone-failed")).to_have_count(1, timeout=20_000)
    page.reload()
    expect(page.locator(".meter.unknown")).to_have_count(1, timeout=20_000)
    check(page, "desktops")
    page.locator("[data-menu] summary").first.click()
    check(page, "an open menu")
    page.locator(".menu-item.danger:visible").click()
    expect(page.locator("#dialog")).to_be_visible()
    check(page, "the dialog")
    paths = (
        f"/desktops/{ready}",
        f"/desktops/{failed}",
        f"/desktops/{ready}/ask/rename",
        f"/desktops/{failed}/ask/rebuild",
        f"/desktops/{ready}/resize",
        "/desktops/new",
        "/data",
        f"/data/{IMAGING.id}",
        f"/data/{IMAGING.id}?path=raw",
        f"/data/{IMAGING.id}/view?path=raw/scan_0001_sandstone.nxs",
        f"/data/{IMAGING.id}/view?path=README.txt",
        "/activity",
        "/nowhere",
    )
    for path in paths:
        page.goto(path)
        check(page, path)
    page = open_page("chen", **options)
    page.goto(f"/data/{DIFFRACTION.id}/view?path=raw/cu_foil_0002.nxs")
    check(page, "a curve")
    assert not check.problems, "\n".join(check.problems)
