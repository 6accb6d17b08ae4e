"""People using the portal: three clicks to a desktop, live progress, the keyboard alone, two tabs, no scripts at all."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Page, Request, expect

from beamdesk.app.desktops import NewDesktop, apply
from beamdesk.app.logins import open_login
from beamdesk.domain.ids import ExperimentId, FlavorId, ImageId, PersonId
from beamdesk.domain.server import Remedy
from browser.world import PASSWORD, World

from .conftest import Open

pytestmark = pytest.mark.browser
EXPERIMENT = ExperimentId("heps-2026-0147")


def applied(world: World, name: str = "Bones", person: str = "bob", flavor: str = "small") -> str:
    """Apply for a desktop behind the page's back and return its id."""

    async def go() -> str:
        caller = (await open_login(world.app, PersonId(person), kind="cli")).caller
        wanted = NewDesktop(EXPERIMENT, ImageId("imaging"), FlavorId(flavor), name)
        return (await apply(world.app, caller, wanted)).desktop.id

    return str(world.do(go))


def card(page: Page, name: str = "Bones") -> object:
    return page.locator(f"[data-desktop][data-name='{name}']")


def mark(page: Page) -> None:
    """Leave a mark that a reload would wipe away."""
    page.evaluate("window.notReloaded = true")


def assert_not_reloaded(page: Page) -> None:
    assert page.evaluate("window.notReloaded") is True


def test_three_clicks_lead_to_a_desktop(world: World, open_page: Open) -> None:
    page = open_page()
    page.click("text=Create a desktop")
    page.click("text=Create desktop")
    page.wait_for_url(re.compile(r"/desktops/[a-z0-9]{16}$"))
    mark(page)
    expect(page.locator(".step.done")).not_to_have_count(0)
    expect(page.locator(".status .pill")).to_have_text("Ready", timeout=20_000)
    assert_not_reloaded(page)
    expect(page).to_have_title(re.compile("Ready"))
    expect(page.locator("#announcer")).to_contain_text("Ready")

    desktop_id = page.url.rsplit("/", 1)[1]
    asked: list[Request] = []
    page.context.on("request", lambda request: asked.append(request))  # noqa: PLW0108  # Playwright marks its handlers
    with page.context.expect_page() as opened:
        page.click("text=Connect")
    opened.value.wait_for_url(f"http://d-{desktop_id}.localhost:{world.port}/open")
    sent = next(request for request in asked if request.method == "POST" and request.url.endswith("/open"))
    assert len(parse_qs(sent.post_data or "")["ticket"][0]) == 43
    headers = sent.all_headers()
    assert headers["origin"] == world.origin  # the gateway opens without asking only for forms of the portal
    assert headers.get("referer") in {f"{world.origin}/", None}
    assert not any("ticket" in request.url for request in asked)
    opened.value.close()


def test_a_second_tab_sees_it_at_once(world: World, open_page: Open) -> None:
    first = open_page()
    second = first.context.new_page()
    second.goto("/desktops")
    other = open_page("ada")
    for page in (second, other):
        mark(page)
    first.goto("/desktops/new")
    first.fill("#name", "Bones")
    first.click("text=Create desktop")
    for page in (second, other):
        expect(card(page)).to_have_count(1)
        expect(card(page).locator(".pill")).to_have_text("Ready", timeout=20_000)
        assert_not_reloaded(page)
    expect(other.get_by_role("button", name="Watch Bones")).to_be_visible()

    first.goto("/desktops")
    first.get_by_label("More for Bones").click()
    first.click("text=Delete")
    first.get_by_role("button", name="Delete for good").click()
    for page in (first, second, other):
        expect(card(page)).to_have_count(0, timeout=20_000)
    expect(second.get_by_text("Your first desktop is three clicks away")).to_be_visible()


def test_the_keyboard_alone_is_enough(world: World, open_page: Open) -> None:
    applied(world)
    page = open_page()
    expect(card(page).locator(".pill")).to_have_text("Ready", timeout=20_000)
    mark(page)

    def choose(item: str) -> None:
        page.get_by_label("More for Bones").focus()
        page.keyboard.press("Enter")
        for _ in range(8):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent.trim()") == item:
                return page.keyboard.press("Enter")
        pytest.fail(f"the keyboard does not reach {item}")

    choose("Extend its time")
    expect(card(page).locator(".time-left")).to_contain_text(re.compile("11 h|12 hours"))
    expect(page.locator("#toasts")).to_contain_text("“Bones” has more time now.")

    choose("Rename")
    expect(page.locator("#new-name")).to_be_focused()
    page.keyboard.type("Teeth")
    page.keyboard.press("Enter")
    renamed = card(page, "Teeth")
    expect(renamed).to_have_count(1)
    expect(page.get_by_label("More for Teeth")).to_be_focused()
    page.keyboard.press("Escape")

    page.get_by_label("More for Teeth").focus()
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Stop").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#dialog")).to_be_hidden()
    expect(renamed.locator(".pill")).to_have_text("Ready")
    expect(page.get_by_label("More for Teeth")).to_be_focused()

    page.keyboard.press("Enter")
    page.get_by_role("link", name="Stop").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop the desktop").focus()
    page.keyboard.press("Enter")
    expect(renamed.locator(".pill")).to_have_text("Stopped", timeout=20_000)

    page.get_by_role("button", name="Start Teeth").focus()
    page.keyboard.press("Enter")
    expect(renamed.locator(".pill")).to_have_text("Ready", timeout=20_000)

    page.get_by_label("More for Teeth").focus()
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Delete").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Delete for good").focus()
    page.keyboard.press("Enter")
    expect(renamed).to_have_count(0, timeout=20_000)
    assert_not_reloaded(page)


def test_without_scripts_everything_still_works(world: World, open_page: Open) -> None:
    page = open_page(None, java_script_enabled=False)
    page.goto("/data")
    page.fill("#login", "bob")
    page.fill("#password", PASSWORD)
    page.click(".sign-in-form button.primary")
    assert page.url == f"{world.origin}/data"
    page.goto("/desktops/new")
    page.fill("#name", "Bones")
    page.click("text=Create desktop")
    for _ in range(60):
        if page.locator(".status .pill").inner_text() == "Ready":
            break
        page.wait_for_timeout(250)
        page.reload()
    expect(page.get_by_role("button", name="Connect to Bones")).to_be_visible()

    page.get_by_label("More for Bones").click()
    page.click("text=Rename")
    page.fill("#new-name", "Teeth")
    page.get_by_role("button", name="Rename").click()
    expect(page.locator("h1")).to_have_text("Teeth")
    expect(page.get_by_text("The desktop has a new name.")).to_be_visible()

    page.goto("/desktops")
    page.get_by_label("More for Teeth").click()
    page.click("text=Stop")
    expect(page.get_by_text("Programs that run on it end.")).to_be_visible()
    page.get_by_role("button", name="Stop the desktop").click()
    expect(page.get_by_text("The desktop is being stopped.")).to_be_visible()
    for _ in range(40):
        if page.locator(".card .pill").inner_text() == "Stopped":
            break
        page.wait_for_timeout(250)
        page.reload()
    page.get_by_role("button", name="Start Teeth").click()
    expect(page.get_by_text("The desktop is starting.")).to_be_visible()
    page.get_by_label("More for Teeth").click()
    page.click("text=Delete")
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("The desktop is being deleted.")).to_be_visible()

    page.click("text=简体中文")
    expect(page.locator("h1")).to_have_text("我的桌面")
    page.get_by_label("Bob Meyer 的账户").click()
    page.click("text=退出登录")
    expect(page.get_by_text("您已退出登录")).to_be_visible()


def test_the_ticket_page_waits_for_a_press_without_scripts(world: World, open_page: Open) -> None:
    desktop_id = applied(world)
    page = open_page(java_script_enabled=False)
    page.goto(f"/desktops/{desktop_id}")
    for _ in range(60):
        if page.get_by_role("button", name="Connect to Bones").count():
            break
        page.wait_for_timeout(250)
        page.reload()
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="Connect to Bones").click()
    opened.value.get_by_role("button", name="Open the desktop").click()
    opened.value.wait_for_url(f"http://d-{desktop_id}.localhost:{world.port}/open")


def test_a_failure_shows_its_cause_while_one_watches(world: World, open_page: Open) -> None:
    cause = "No host could mount the image: checksum differs."
    world.cloud.faults.broken_builds.extend([(cause, Remedy.PERSON)] * 10)
    desktop_id = applied(world)
    page = open_page()
    page.goto(f"/desktops/{desktop_id}")
    mark(page)
    expect(page.locator(".status .pill")).to_have_text("Failed", timeout=20_000)
    expect(page.locator(".cause")).to_contain_text(cause)
    expect(page.locator(".cause")).to_contain_text("Try again")
    world.cloud.faults.broken_builds.clear()
    page.get_by_role("button", name="Try Bones again").click()
    expect(page.locator(".status .pill")).to_have_text("Ready", timeout=20_000)


def test_a_stopped_desktop_gets_another_size_and_a_failed_one_is_rebuilt(world: World, open_page: Open) -> None:
    desktop_id = applied(world)

    def made_of() -> tuple[str, int]:
        (server,) = [one for one in world.cloud.world.state.servers.values() if one.gone_at is None]
        return server.id, server.spec["vcpus"]

    page = open_page()
    page.goto(f"/desktops/{desktop_id}")
    pill = page.locator(".status .pill")
    expect(pill).to_have_text("Ready", timeout=20_000)
    first = made_of()
    page.get_by_label("More for Bones").click()
    page.click(".menu-item:has-text('Stop')")
    page.get_by_role("button", name="Stop the desktop").click()
    expect(pill).to_have_text("Stopped", timeout=20_000)
    page.get_by_label("More for Bones").click()
    page.click(".menu-item:has-text('Change size')")
    page.click("label:has-text('Medium')")
    page.get_by_role("button", name="Change size").click()
    expect(page.locator(".facts")).to_contain_text("2 CPUs")
    assert made_of() == first, "nothing is lost before the next start"
    world.cloud.faults.broken_builds.extend([("The image could not be mounted.", Remedy.PERSON)])
    page.get_by_role("button", name="Start Bones").click()
    expect(pill).to_have_text("Failed", timeout=20_000)
    page.locator(".status").get_by_role("link", name="Rebuild").click()
    expect(page.locator("#dialog")).to_contain_text("Your home folder")
    page.get_by_role("button", name="Rebuild the desktop").click()
    expect(pill).to_have_text("Ready", timeout=20_000)
    assert made_of()[1] == 2
    assert made_of()[0] != first[0]


def test_after_a_restart_of_the_server_the_page_is_live_again(world: World, open_page: Open) -> None:
    page = open_page()
    mark(page)
    world.__exit__()
    expect(page.locator("#offline")).to_be_visible(timeout=15_000)
    world.__enter__()
    expect(page.locator("#offline")).to_be_hidden(timeout=30_000)
    applied(world)
    expect(card(page)).to_have_count(1)
    assert_not_reloaded(page)


def test_a_stream_that_does_not_open_is_tried_again(world: World, open_page: Open) -> None:
    page = open_page()
    page.route("**/live*", lambda route: route.abort(), times=1)
    page.goto("/desktops")
    expect(page.locator("#offline")).to_be_visible()
    expect(page.locator("#offline")).to_be_hidden(timeout=15_000)
    mark(page)
    applied(world)
    expect(card(page)).to_have_count(1)
    assert_not_reloaded(page)


def test_signing_out_in_one_tab_ends_the_other(open_page: Open) -> None:
    first = open_page()
    second = first.context.new_page()
    second.goto("/activity")
    first.get_by_label("Account of Bob Meyer").click()
    first.click("text=Sign out")
    second.wait_for_url("**/sign-in?ended=1&next=%2Factivity")
    expect(second.get_by_text("Your sign-in has ended.")).to_be_visible()


def test_colours_and_language_are_remembered(open_page: Open) -> None:
    page = open_page(color_scheme="light")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    mark(page)
    page.get_by_label("Dark colours").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert_not_reloaded(page)
    page.wait_for_timeout(300)
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.click("text=简体中文")
    expect(page.locator("h1")).to_have_text("我的桌面")
    page.goto("/desktops/new")
    expect(page.locator("h1")).to_have_text("新建桌面")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.click("text=English")
    expect(page.locator("h1")).to_have_text("New desktop")


def test_a_menu_stays_open_and_focus_stays_while_things_change(world: World, open_page: Open) -> None:
    applied(world)
    page = open_page()
    page.get_by_label("More for Bones").click()
    page.get_by_role("link", name="Rename").focus()
    expect(card(page).locator(".pill")).to_have_text("Ready", timeout=20_000)
    expect(page.get_by_role("link", name="Rename")).to_be_focused()


def test_an_impatient_double_click_makes_one_desktop(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto("/desktops/new")
    page.locator("text=Create desktop").dblclick()
    page.wait_for_url(re.compile(r"/desktops/[a-z0-9]{16}$"))
    page.goto("/desktops")
    expect(page.locator(".card")).to_have_count(1)


def test_a_hostile_name_does_not_run(world: World, open_page: Open) -> None:
    applied(world, "<img src=x onerror=document.title='owned'>")
    page = open_page()
    expect(page.locator(".card .pill")).to_have_text("Ready", timeout=20_000)
    page.locator(".card-name a").click()
    expect(page.locator("h1")).to_have_text("<img src=x onerror=document.title='owned'>")
    assert "owned" not in page.title().split("·")[0] or "<img" in page.title()
    assert page.locator("main img[src='x']").count() == 0


def test_thumbnails_appear_by_themselves(world: World, open_page: Open) -> None:
    desktop_id = applied(world)
    page = open_page()
    expect(card(page).locator(".pill")).to_have_text("Ready", timeout=20_000)
    mark(page)
    world.put_thumbnail(desktop_id)
    expect(card(page).locator("img")).to_be_visible(timeout=10_000)
    assert_not_reloaded(page)


def test_meters_move_by_themselves(world: World, open_page: Open) -> None:
    use = [(1.0, 0.1, 0.0)]
    world.guests.activity = lambda _: use[-1]
    desktop_id = applied(world, flavor="gpu.small")
    page = open_page()
    expect(card(page).locator(".pill")).to_have_text("Ready", timeout=20_000)
    mark(page)
    expect(card(page).locator(".meters")).to_have_text(re.compile(r"CPU\s*10 %\s*GPU\s*0 %"), timeout=10_000)
    use.append((1.0, 0.2, 0.93))
    expect(card(page).locator(".meters")).to_have_text(re.compile(r"CPU\s*20 %\s*GPU\s*93 %"), timeout=10_000)
    page.get_by_role("group", name="Use now").wait_for()
    use.append((1.0, 0.0, None))
    expect(card(page).locator(".meters")).to_contain_text("not known", timeout=10_000)
    assert_not_reloaded(page)

    page.goto(f"/desktops/{desktop_id}")
    mark(page)
    expect(page.locator(".status .use")).to_contain_text("does not tell how much it is used")
    use.append((1.0, 0.4, 0.5))
    expect(page.locator(".status .meters")).to_have_text(re.compile(r"CPU\s*40 %\s*GPU\s*50 %"), timeout=10_000)
    assert_not_reloaded(page)
