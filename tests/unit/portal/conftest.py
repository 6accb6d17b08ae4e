"""A portal around a real application on SQLite, and browsers without a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from apikit import ORIGIN, PASSWORD, running_app
from beamdesk.app.context import App
from beamdesk.portal.app import create_portal
from beamdesk.portal.config import DemoHint, PortalSettings

SETTINGS = PortalSettings(portal_origin=ORIGIN, demo_hint=DemoHint((("ada", "Ada Lin"),)), contact="help@light.example")

Browse = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with running_app(tmp_path) as app:
        yield app


@asynccontextmanager
async def browser(
    app: App, person: str | None = "ada", *, settings: PortalSettings = SETTINGS, **headers: str
) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client that behaves as a browser on our pages does: cookies, own Origin; signed in through the form."""
    transport = httpx2.ASGITransport(create_portal(app, settings), raise_app_exceptions=False)
    defaults = {"Origin": settings.portal_origin, "Accept-Language": "en"} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    async with httpx2.AsyncClient(transport=transport, base_url=settings.portal_origin, headers=defaults) as client:
        if person:
            answer = await client.post("/sign-in", data={"login": person, "password": PASSWORD})
            assert answer.status_code == 303, answer.text
        yield client


@pytest.fixture
def browse(app: App) -> Browse:
    """Return a function that opens a browser on the application."""

    def open_one(person: str | None = "ada", **options: object) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
        return browser(app, person, **options)  # type: ignore[arg-type]

    return open_one
