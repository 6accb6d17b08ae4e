"""What the connect page's tests act on: X server, streaming server, gateway, portal and browser, started once."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from beamdesk.adapters.demo.people import ADA
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.app.connections import connect
from beamdesk.app.context import App
from beamdesk.app.logins import open_login
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.person import Person
from beamdesk.gateway import webclient
from beamdesk.gateway.config import GatewaySettings
from integration.gateway.selkies import RealDesktop, real_desktop
from integration.gateway.stage import Clock, free_port, make_app, put_people, put_ready_desktop, running
from integration.gateway.wire import MASTER

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip
FORM = """<!doctype html><title>portal</title><form method="post" action="{url}"><input name="ticket" value="{ticket}"><button>Connect</button></form>"""
# Mouse reporting on, nothing echoed: keys and clicks arrive as bytes in a file.
TERMINAL = "stty raw -echo; printf '\\033[?1000h\\033[?1006h'; exec cat >{folder}/input"
OPEN = "html[data-state=open]"


@dataclass
class Place:
    """Everything a test needs."""

    app: App
    clock: Clock
    desktop: Desktop
    settings: GatewaySettings
    real: RealDesktop
    browser: Browser
    portal: str
    restart: Callable[[], object]
    person: Person = ADA
    complaints: list[str] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return self.app.desktop_origin(self.desktop.id)

    def input(self) -> bytes:
        return (self.real.folder / "input").read_bytes()

    async def portal_page(self) -> str:
        caller = (await open_login(self.app, self.person.id, kind="browser")).caller
        connection = await connect(self.app, caller, self.desktop.id)
        return FORM.format(url=connection.url, ticket=connection.ticket)

    @asynccontextmanager
    async def context(self, **options: object) -> AsyncIterator[BrowserContext]:
        context = await self.browser.new_context(**({"viewport": {"width": 1440, "height": 900}, "locale": "en-GB"} | options))
        try:
            yield context
        finally:
            await context.close()

    async def page(self, context: BrowserContext) -> Page:
        page = await context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    async def open(self, context: BrowserContext, person: Person = ADA) -> Page:
        """Connect as a person would and wait for the picture."""
        self.person = person
        page = await self.page(context)
        await page.goto(self.portal)
        await page.click("button")
        await page.wait_for_selector(OPEN)
        return page


@asynccontextmanager
async def serve_portal(make_page: Callable[[], object]) -> AsyncIterator[str]:
    """A portal of one form, on another site than the desktops."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        body = (await make_page()).encode() if request.startswith(b"GET / ") else b""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nReferrer-Policy: strict-origin\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def open_place(folder: Path) -> AsyncIterator[Place]:
    """Start everything; end it after the last test."""
    if shutil.which(CHROMIUM) is None:
        pytest.fail("chromium is missing: deploy/setup packages installs it")
    cache = Path(os.environ.get("BEAMDESK_CACHE_DIR", "/var/cache/beamdesk"))
    client = cache / "selkies-web" if webclient.client_dir(cache / "selkies-web").exists() else folder / "client"
    webclient.install(client)
    (folder / "run/stream").mkdir(parents=True)
    port, clock = free_port(), Clock()
    async with AsyncExitStack() as stack:
        store = await SqlStore.open(f"sqlite+aiosqlite:///{folder}/store.db")
        stack.push_async_callback(store.close)
        app = make_app(store, port, clock)
        await put_people(store)
        desktop = await put_ready_desktop(app, f"unix:{folder}/run/stream/stream.sock")
        place: Place

        async def portal_page() -> str:
            return await place.portal_page()

        portal = await stack.enter_async_context(serve_portal(portal_page))
        settings = GatewaySettings("127.0.0.1", port, portal, "localhost", client, folder / "run")
        terminal = ("xterm", "-geometry", "150x45+60+80", "-e", "sh", "-c", TERMINAL.format(folder=folder))
        real = stack.enter_context(real_desktop(folder, folder / "run/stream/stream.sock", MASTER, terminal))
        gateway = [await _start(app, settings)]

        async def stop() -> None:
            await gateway[0].aclose()

        stack.push_async_callback(stop)
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, headless=False, args=FLAGS)
        stack.push_async_callback(browser.close)

        async def restart() -> None:
            await stop()
            await asyncio.sleep(1.5)
            gateway[0] = await _start(app, settings)

        place = Place(app, clock, desktop, settings, real, browser, portal, restart)
        yield place


async def _start(app: App, settings: GatewaySettings) -> AsyncExitStack:
    stack = AsyncExitStack()
    await stack.enter_async_context(running(app, settings))
    return stack


async def eventually(check: Callable[[], object], seconds: float = 8.0) -> object:
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.05)
    return found


async def text_of(page: Page, selector: str) -> str:
    return (await page.inner_text(selector)).strip()


async def eventually_async(check: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.1)
