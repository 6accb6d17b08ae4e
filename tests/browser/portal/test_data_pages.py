"""The data of an experiment in a browser: folders, pictures that move with the slider, downloads that cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from beamdesk.adapters.demo.people import IMAGING
from browser.world import World

from .conftest import Open

pytestmark = pytest.mark.browser


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        world.make_files(64)
        yield world


def test_from_the_experiment_to_a_slice(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto("/data")
    page.get_by_role("link", name=IMAGING.title.en).click()
    page.get_by_role("link", name="raw", exact=True).click()
    page.get_by_role("link", name="scan_0001_sandstone.nxs", exact=True).click()
    picture = page.locator("#figure-body img")
    expect(picture).to_be_visible()
    before = picture.get_attribute("src")
    page.evaluate("window.notReloaded = true")
    page.locator("#index").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#slice-of")).to_have_text(lambda_text(page))
    expect(picture).not_to_have_attribute("src", before or "")
    colours = picture.get_attribute("src")
    page.select_option("#colours", "viridis")
    expect(picture).not_to_have_attribute("src", colours or "")
    assert page.evaluate("window.notReloaded") is True
    page.get_by_role("link", name="rotation_angle").first.click()
    expect(page.locator("figure.plot img")).to_be_visible()
    assert page.evaluate("document.querySelector('figure.plot img').naturalWidth") > 0


def lambda_text(page: object) -> str:
    value = page.locator("#index").input_value()  # type: ignore[attr-defined]
    count = page.locator("#slice-of").get_attribute("data-slice-count")  # type: ignore[attr-defined]
    return f"Slice {int(value) + 1} of {count}"


def test_a_download_is_the_file(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"/data/{IMAGING.id}?path=raw")
    with page.expect_download() as started:
        page.get_by_label("Download scan_0001_sandstone.nxs").click()
    original = world.folder / "data" / IMAGING.folder / "raw" / "scan_0001_sandstone.nxs"
    assert started.value.suggested_filename == "scan_0001_sandstone.nxs"
    assert Path(started.value.path()).read_bytes() == original.read_bytes()


@pytest.mark.parametrize("name", ["evil.html", "evil.svg"])
def test_a_hostile_file_never_becomes_a_page(world: World, open_page: Open, name: str) -> None:
    evil = world.folder / "data" / IMAGING.folder / "processed" / name
    evil.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>fetch('/stolen')</script></svg>")
    evil.chmod(0o666)
    evil.parent.chmod(0o777)
    page = open_page()
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    with page.expect_download():
        page.evaluate("address => { location.href = address }", f"/data/{IMAGING.id}/download?path=processed/{name}")
    page.goto(f"/data/{IMAGING.id}/view?path=processed/{name}")
    expect(page.locator("pre")).to_contain_text("fetch('/stolen')")
    assert not any("stolen" in url for url in seen)


def test_without_scripts_a_slice_can_be_chosen(world: World, open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    page.goto(f"/data/{IMAGING.id}/view?path=raw/scan_0001_sandstone.nxs")
    before = page.locator("#figure-body img").get_attribute("src")
    page.select_option("#colours", "inferno")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#figure-body img")).not_to_have_attribute("src", before or "")
