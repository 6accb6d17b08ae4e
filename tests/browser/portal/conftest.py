"""A real Chromium before a real portal. One browser for a module: the synchronous Playwright must not outlive it, since other
modules run event loops of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from browser.world import PASSWORD, World

ARGUMENTS = (
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = which("chromium")
    if program is None:
        pytest.fail("Chromium is missing: run deploy/setup packages as root")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


@pytest.fixture
def open_page(chromium: Browser, world: World) -> Iterator[Open]:
    """Return a function that opens a page in a context of its own, signed in. Errors on the console fail the test."""
    with ExitStack() as stack:
        problems: list[str] = []

        def open_one(person: str | None = "bob", *, language: str = "en", width: int = 1280, **options: Any) -> Page:
            context: BrowserContext = chromium.new_context(
                viewport={"width": width, "height": 900},
                locale="zh-CN" if language == "zh" else "en-GB",
                base_url=world.origin,
                **options,
            )
            stack.callback(context.close)
            context.set_default_timeout(15_000)
            context.add_cookies([{"name": "beamdesk_language", "value": language, "url": world.origin}])
            page = context.new_page()
            page.on("console", lambda message: problems.append(message.text) if message.type in {"error", "warning"} else None)
            page.on("pageerror", lambda error: problems.append(str(error)))
            if person:
                sign_in(page, person)
            return page

        yield open_one
        expected = re.compile(
            r"status of 40\d|net::ERR_|htmx:.*(network error|Failed to fetch)"
        )  # told by the browser also where a test asks for it
        serious = [text for text in problems if not expected.search(text)]
        assert not serious


def sign_in(page: Page, person: str) -> None:
    page.goto("/sign-in")
    page.fill("#login", person)
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_url("**/desktops")
