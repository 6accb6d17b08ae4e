"""One deployment for the whole acceptance run, and a browser for each module: the synchronous Playwright must not outlive it, since
a worker may go on with tests that run event loops of their own."""

import contextlib
import os

import pytest
from playwright.sync_api import Error, sync_playwright

from acceptance.deployment import Deployment

SHOTS = os.environ.get("BEAMDESK_TEST_SHOTS")
"""A folder for pictures of all pages at the end of each test, for looking at."""
CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def deployment():
    if os.geteuid() != 0:
        pytest.fail("the acceptance tests start a whole deployment: run them as root")
    one = Deployment.make()
    try:
        one.copy_demo_data()
        one.start()
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=False, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def context_of(chromium):
    """Make browser contexts (one per person) that are closed after the test."""
    contexts = []

    def make(**options):
        context = chromium.new_context(viewport={"width": 1440, "height": 900}, locale="en-US", accept_downloads=True, **options)
        contexts.append(context)
        return context

    yield make
    for number, context in enumerate(contexts):
        for tab, page in enumerate(context.pages if SHOTS else []):
            with contextlib.suppress(Error):
                page.screenshot(path=f"{SHOTS}/{number}-{tab}.png")
        context.close()
