"""What people do in the browser, in their words."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import BrowserContext, Page, expect

READY_MS = 60_000


def sign_in(context: BrowserContext, deployment, login: str) -> Page:
    page = context.new_page()
    page.goto(f"{deployment.origin}/")
    page.fill("input[name=login]", login)
    page.fill("input[name=password]", deployment.password)
    page.press("input[name=password]", "Enter")
    page.wait_for_url("**/desktops")
    english = page.get_by_role("button", name="English")
    if english.count():
        english.first.click()
        expect(page.locator("html")).to_have_attribute("lang", "en")
    return page


def apply_for_desktop(page: Page, deployment, *, size: str = "medium") -> str:
    """Apply with the defaults but for the size; return the desktop's id."""
    page.goto(f"{deployment.origin}/desktops/new")
    page.locator(f"input[name=flavor][value={size}]").check(force=True)
    page.get_by_role("button", name="Create desktop").click()
    page.wait_for_url(re.compile(r"/desktops/[a-z0-9]{16}$"))
    return page.url.rsplit("/", 1)[1]


def connect(page: Page) -> Page:
    """Press Connect as soon as it is offered and wait for the first painted frame; return the desktop's tab."""
    button = page.get_by_role("button", name=re.compile("^Connect")).first
    expect(button).to_be_visible(timeout=READY_MS)
    with page.context.expect_page() as opened:
        button.click()
    tab = opened.value
    tab.wait_for_selector("html[data-state=open]", timeout=20_000)
    return tab


def until(what, condition, seconds: float = 30.0, pause: float = 0.2):
    """Return the first true value of ``condition``; fail with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    pytest.fail(f"{what}: not within {seconds:g} s")
