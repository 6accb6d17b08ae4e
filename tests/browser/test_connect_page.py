"""The connect page in a real browser, in front of a real streaming server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from axe_playwright_python.async_playwright import Axe

from beamdesk.adapters.demo.people import ADA, BOB
from beamdesk.domain.desktop import Desktop, Phase
from browser.connect_place import (
    OPEN,
    Place,
    eventually,
    eventually_async,
    open_place,
    text_of,
)
from integration.gateway.stage import change_state

pytestmark = [pytest.mark.anyio, pytest.mark.browser]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Playwright and the gateway share one loop here."""
    return "asyncio"


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, anyio_backend: object) -> AsyncIterator[Place]:
    async with open_place(tmp_path_factory.mktemp("connect")) as place:
        yield place


@pytest.fixture
async def place(shared: Place) -> AsyncIterator[Place]:
    """The shared place, with everything as at first."""
    shared.complaints.clear()
    await change_state(shared.app, shared.desktop.id, phase=Phase.READY)
    (shared.real.folder / "input").write_bytes(b"")
    yield shared
    async with shared.app.store.begin(write=True) as tx:
        await tx.sessions.end_sessions(shared.app.clock.now(), "test over", desktop=shared.desktop.id)


async def test_the_desktop_appears_without_a_complaint(place: Place):
    async with place.context() as context:
        page = await place.open(context)
        assert page.url == f"{place.origin}/"
        assert await page.title() == "Tomography · Beamdesk"
        await eventually_async(lambda: page.evaluate("/\\d/.test(document.getElementById('latency').textContent)"))
        assert (await text_of(page, "#latency")).isdigit()
        assert (await text_of(page, "#rate")).isdigit()
        assert "7 小时" in await text_of(page, "#left") or "8 小时" in await text_of(page, "#left"), "Ada reads Chinese"
        white = await page.evaluate(BRIGHTNESS)
        assert white > 10_000, "the terminal is on the picture"
        assert place.complaints == []


# Counts white pixels of the picture, wherever the stream client put it.
BRIGHTNESS = """() => {
  const shown = [...document.querySelectorAll('#app video, #app canvas')].filter((one) => one.offsetParent);
  let most = 0;
  for (const one of shown) {
    const canvas = new OffscreenCanvas(360, 225), context = canvas.getContext('2d');
    try { context.drawImage(one, 0, 0, 360, 225); } catch { continue; }
    const data = context.getImageData(0, 0, 360, 225).data;
    let count = 0;
    for (let i = 0; i < data.length; i += 4) if (data[i] > 200 && data[i + 1] > 200) count++;
    most = Math.max(most, count);
  }
  return most;
}"""


async def test_clicks_and_keys_reach_the_desktop(place: Place):
    async with place.context() as context:
        page = await place.open(context)
        await page.mouse.click(400, 300)
        await eventually(lambda: b"\x1b[<0;" in place.input())
        await page.keyboard.type("rotation axis 1023.5")
        await eventually(lambda: b"rotation axis 1023.5" in place.input())


async def test_the_clipboard_goes_both_ways(place: Place):
    async with place.context() as context:
        page = await place.open(context)
        await asyncio.sleep(1)
        place.real.put_clipboard("voxel size 0.65 µm 体素")
        await page.wait_for_selector("#clipboard .dot:not([hidden])", state="attached")
        await page.click("#clipboard")
        assert await page.input_value("#clipboard-text") == "voxel size 0.65 µm 体素"
        await page.fill("#clipboard-text", "from the browser: é 中")
        await page.click("#clipboard-send")
        await eventually(lambda: place.real.clipboard() == "from the browser: é 中")
        await page.keyboard.press("Escape")
        assert await page.is_hidden("#clipboard-panel")


async def test_what_is_typed_into_the_panel_stays_in_the_panel(place: Place):
    async with place.context() as context:
        page = await place.open(context)
        await page.mouse.move(400, 300)
        await page.click("#clipboard")
        await page.keyboard.type("secret")
        await page.keyboard.press("Escape")
        await page.mouse.move(400, 300)
        await page.keyboard.type("open")
        await eventually(lambda: b"open" in place.input())
        assert b"secret" not in place.input()


async def test_extending_shows_more_time(place: Place):
    async with place.context() as context:
        page = await place.open(context)
        before = (await _desktop(place)).lease_ends_at
        await page.click("#extend")
        await page.wait_for_selector("#toast:not([hidden])")
        assert (await _desktop(place)).lease_ends_at > before + timedelta(hours=3)


async def test_the_end_of_the_lease_is_announced(place: Place):
    async with place.context() as context:
        page = await place.open(context)
        async with place.app.store.begin(write=True) as tx:
            soon = place.app.clock.now() + timedelta(minutes=4)
            await tx.desktops.change_intent(place.desktop.id, now=place.app.clock.now(), lease_ends_at=soon)
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        await page.wait_for_selector("#toast:not([hidden])")
        assert "4 分钟" in await text_of(page, "#toast-text")
        await page.click("#toast-extend")
        await eventually_async(lambda: page.is_hidden("#toast"))


async def test_disconnecting_goes_back_to_the_portal(place: Place):
    async with place.context() as context:
        page = await place.open(context)
        await page.click("#leave")
        await page.wait_for_url(f"{place.portal}/")
        assert await _open_sessions(place) == 0
        answer = await page.goto(place.origin)
        assert answer is not None
        assert answer.status == 403
        assert place.complaints == ["Failed to load resource: the server responded with a status of 403 (Forbidden)"]


async def test_a_revoked_session_says_why(place: Place):
    async with place.context() as context:
        page = await place.open(context)
        async with place.app.store.begin(write=True) as tx:
            await tx.sessions.end_sessions(place.app.clock.now(), "signed_out", desktop=place.desktop.id)
        await page.wait_for_selector("html[data-state=message]")
        assert await text_of(page, "#cover-title") == "您的会话已结束"
        await asyncio.sleep(1.5)
        assert await page.get_attribute("html", "data-state") == "message", "it stays so"


async def test_a_desktop_in_repair_comes_back_by_itself(place: Place):
    async with place.context() as context:
        page = await place.open(context)
        await change_state(place.app, place.desktop.id, phase=Phase.REPAIRING)
        await page.wait_for_selector("html[data-state=reconnecting]")
        await page.wait_for_selector("#cover-title:text-is('正在修复您的桌面')")
        await change_state(place.app, place.desktop.id, phase=Phase.READY)
        await page.wait_for_selector(OPEN)


async def test_a_restarted_gateway_is_found_again(place: Place):
    async with place.context() as context:
        page = await place.open(context)
        await page.mouse.click(400, 300)  # without a window manager the keyboard follows the pointer
        await place.restart()
        await page.wait_for_selector("html[data-state=reconnecting]")
        await page.wait_for_selector(OPEN)
        await page.keyboard.type("again")
        await eventually(lambda: b"again" in place.input())


async def test_another_tab_takes_over_and_gives_back(place: Place):
    async with place.context() as context:
        first = await place.open(context)
        second = await place.page(context)
        await second.goto(place.origin)
        await second.wait_for_selector(OPEN)
        await first.wait_for_selector("html[data-state=taken]")
        await first.click("#cover-action")
        await first.wait_for_selector(OPEN)
        await second.wait_for_selector("html[data-state=taken]")


async def test_a_colleague_watches_and_cannot_act(place: Place):
    async with place.context() as hers, place.context() as his:
        await place.open(hers, ADA)
        page = await place.open(his, BOB)
        assert await text_of(page, "#viewer") == "View only"
        assert await page.is_hidden("#extend")
        assert await page.evaluate(BRIGHTNESS) > 10_000
        await page.mouse.click(400, 300)
        await page.keyboard.type("not allowed")
        await asyncio.sleep(1)
        assert place.input() == b""


async def test_the_bar_hides_and_answers_the_keyboard(place: Place):
    async with place.context() as context:
        page = await place.open(context)
        await page.mouse.move(700, 600)
        await page.wait_for_selector("html:not([data-bar])")
        await page.keyboard.press("Control+Shift+M")
        await page.wait_for_selector("html[data-bar=open]")
        assert await page.evaluate("document.activeElement.closest('#bar') !== null")
        await page.keyboard.press("ArrowRight")
        assert await page.evaluate("document.activeElement.id") == "clipboard"
        await page.keyboard.press("Escape")
        await page.wait_for_selector("html:not([data-bar])")
        assert await page.evaluate("document.activeElement.id") == "overlayInput"


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
async def test_the_page_is_accessible_and_fits(place: Place, size: tuple[int, int]):
    width, height = size
    async with place.context(viewport={"width": width, "height": height}) as context:
        page = await place.open(context)
        await page.keyboard.press("Control+Shift+M")
        await page.click("#clipboard")
        await asyncio.sleep(0.5)
        for selector in ("#bar", "#clipboard-panel"):
            box = await page.locator(selector).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        results = await Axe().run(page)
        assert results.violations_count == 0, results.generate_report()


async def test_the_messages_are_accessible(place: Place):
    async with place.context() as context:
        page = await place.page(context)
        await page.goto(place.origin)
        results = await Axe().run(page)
        assert results.violations_count == 0, results.generate_report()


async def test_nobody_becomes_somebody_else_without_consent(place: Place):
    async with place.context() as context:
        await place.open(context, ADA)
        place.person = BOB
        page = await place.page(context)
        await page.goto(place.portal)
        await page.click("button")
        await page.wait_for_selector("form[action='/open/confirm']")
        assert await text_of(page, "h1") == "Continue as Bob Meyer?"
        results = await Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        await page.click("form button")
        await page.wait_for_selector(OPEN)
        assert await text_of(page, "#viewer") == "View only"


async def _desktop(place: Place) -> Desktop:
    async with place.app.store.begin() as tx:
        found = await tx.desktops.get(place.desktop.id)
    assert found is not None
    return found


async def _open_sessions(place: Place) -> int:
    async with place.app.store.begin() as tx:
        return len(await tx.sessions.open_sessions(place.desktop.id, place.app.clock.now()))
