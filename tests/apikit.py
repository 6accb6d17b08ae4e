"""An application on a temporary SQLite file, with a clock that tests set and people who are known by name."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.routing import Mount

from beamdesk.adapters.demo.load import load_demo
from beamdesk.adapters.demo.people import EXPERIMENTS, PEOPLE
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemSecrets
from beamdesk.api.app import create_api
from beamdesk.api.guest import create_guest_api
from beamdesk.app import logins
from beamdesk.app.context import App, SiteRules
from beamdesk.app.desktops import NewDesktop, apply
from beamdesk.app.logins import Caller
from beamdesk.app.views import DesktopView
from beamdesk.domain.catalog import Flavor, Image, Resources, Software
from beamdesk.domain.desktop import Phase
from beamdesk.domain.events import Event
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId, ExperimentId, FlavorId, ImageId, PersonId
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.text import Text
from beamdesk.ports.store import Outcome
from beamdesk.scheduling.cards import Card, CardMode
from beamdesk.scheduling.host import HostFacts

IMAGING, DIFFRACTION = ExperimentId("heps-2026-0147"), ExperimentId("heps-2026-0212")
START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
ORIGIN = "http://localhost:8080"
PASSWORD = "canary-pass-7f3a9c"
STREAM_SECRET = "canary-stream-51b2e8"

IMAGES = (
    Image(ImageId("general"), "sha-general", Text("General Linux", "通用 Linux"), Text("A desktop.", "桌面。")),
    Image(
        ImageId("imaging"),
        "sha-imaging",
        Text("Imaging beamline", "成像线站"),
        Text("Tomography.", "断层扫描。"),
        (Software("silx view", Text("Looks at HDF5", "查看 HDF5")),),
        frozenset({"B7"}),
    ),
)
FLAVORS = (
    Flavor(FlavorId("small"), Text("Small", "小型"), Resources(1, 2048, 10)),
    Flavor(FlavorId("medium"), Text("Medium", "中型"), Resources(2, 4096, 20)),
    Flavor(FlavorId("huge"), Text("Huge", "巨型"), Resources(512, 4096, 20)),
    Flavor(FlavorId("gpu.small"), Text("GPU small", "GPU 小型"), Resources(4, 16384, 40, 1)),
)
CAPACITY = Resources(16, 65536, 1000, 1)


class TestClock:
    """A clock that stands still until a test moves it."""

    __test__ = False

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time

    def tick(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class StaticCatalog:
    """Images and flavors that a test may replace."""

    def __init__(self) -> None:
        self.all_images: tuple[Image, ...] = IMAGES
        self.all_flavors: tuple[Flavor, ...] = FLAVORS

    async def images(self) -> tuple[Image, ...]:
        return self.all_images

    async def flavors(self) -> tuple[Flavor, ...]:
        return self.all_flavors


class KnownPasswords:
    """Everybody has the same password. Counts the attempts."""

    def __init__(self) -> None:
        self.attempts = 0

    async def verify(self, login: str, password: str) -> PersonId | None:
        self.attempts += 1
        known = {person.login: person.id for person in PEOPLE}
        return known.get(login) if password == PASSWORD else None


async def _capacity() -> Resources | None:
    return CAPACITY


async def one_host() -> tuple[HostFacts, ...]:
    """Return the site's only host: all of its capacity in one place."""
    card = Card("0000:3b:00.0", "A10", 24576, 9216, 600, 1695, mode=CardMode.HOST)
    return (HostFacts("host-1", 1000 * CAPACITY.vcpus, CAPACITY.memory_mib, CAPACITY.disk_gib, (card,)),)


async def _console(server_id: str) -> str:
    return f"console of {server_id}"


async def _screen(server_id: str) -> str:
    return f"https://cloud.example.org/vnc?token=secret-of-{server_id}"


_TEMPLATE = tempfile.TemporaryDirectory(prefix="beamdesk-apikit-")


async def _prepared_database() -> Path:
    """Return a database with the demo people, made once in this process: migrating for every test would double its time."""
    path = Path(_TEMPLATE.name) / "store.db"
    if not path.exists():
        fresh = path.with_name("fresh.db")
        store = await SqlStore.open(f"sqlite+aiosqlite:///{fresh}")
        await load_demo(store, PEOPLE, EXPERIMENTS)
        await store.close()
        fresh.rename(path)
    return path


@asynccontextmanager
async def running_app(folder: Path, *, rules: SiteRules | None = None, url: str = "", **changes: Any) -> AsyncIterator[App]:
    """Yield an application with the demo people, on a fresh SQLite file in ``folder`` or the empty database at ``url``."""
    if not url:
        shutil.copy(await _prepared_database(), folder / "store.db")
    store = await SqlStore.open(url or f"sqlite+aiosqlite:///{folder}/store.db")
    try:
        if url:
            await load_demo(store, PEOPLE, EXPERIMENTS)
        app = App(
            store=store,
            catalog=StaticCatalog(),
            clock=TestClock(),
            secrets=SystemSecrets(),
            sign_in=KnownPasswords(),
            rules=rules or SiteRules(),
            capacity=_capacity,
            desktop_origin=lambda desktop_id: f"http://d-{desktop_id}.localhost:8081",
            portal_origin=ORIGIN,
            console=_console,
            screen=_screen,
            hosts=one_host,
        )
        yield replace(app, **changes)
    finally:
        await store.close()


def clock_of(app: App) -> TestClock:
    """Return the test's clock."""
    assert isinstance(app.clock, TestClock)
    return app.clock


async def signed_in(app: App, person: str, *, kind: str = "cli") -> logins.SignedIn:
    """Open a login for a demo person."""
    return await logins.open_login(app, PersonId(person), kind=kind)


async def caller(app: App, person: str) -> Caller:
    """Return a demo person who has signed in."""
    return (await signed_in(app, person)).caller


def wanted(experiment: str = IMAGING, image: str = "imaging", flavor: str = "small", name: str = "") -> NewDesktop:
    """Return an application."""
    return NewDesktop(ExperimentId(experiment), ImageId(image), FlavorId(flavor), name)


async def a_desktop(app: App, person: str = "ada", **what: str) -> DesktopView:
    """Apply for a desktop."""
    return await apply(app, await caller(app, person), wanted(**what))


async def events_of(app: App, kind: str = "") -> list[Event]:
    """Return all events, oldest first, of one kind if given."""
    async with app.store.begin() as tx:
        found = await tx.events.page(limit=1000, newest_first=False)
    return [event for event in found if not kind or event.kind == kind]


async def make_ready(app: App, desktop_id: DesktopId, phase: Phase = Phase.READY, *, admitted: bool | None = None) -> None:
    """Do what the reconciler does when a server is up (or, with another phase, on its way), in one step."""
    now = app.clock.now()
    holds = phase is not Phase.STOPPED if admitted is None else admitted
    async with app.store.begin(write=True) as tx:
        claims = await tx.desktops.claim(token="t", now=now + timedelta(days=30), until=now + timedelta(days=31), limit=100)
        for claimed in claims:
            desktop = claimed.desktop
            ready = desktop.id == desktop_id
            outcome = Outcome(
                phase=phase if ready else desktop.phase,
                phase_since=now,
                reason=desktop.reason,
                detail=desktop.detail,
                observed_generation=desktop.generation,
                admitted=holds if ready else desktop.admitted,
                server_id=f"server-{desktop_id}" if ready else desktop.server_id,
                address="unix:/run/x/stream.sock" if ready and phase is Phase.READY else desktop.address,
                attempts=0,
                queued_at=None,
                queue=None,
                due_at=now + timedelta(hours=1),
                last_active_at=now,
                idle_warned_at=None,
                lease_warned_at=None,
            )
            assert await tx.desktops.apply(claimed, outcome, now)


async def put_guest(app: App, desktop_id: DesktopId, nonce: str, *, minutes: float = 10) -> None:
    """Do what the reconciler does before it makes a server: expect a guest with this nonce."""
    expires = app.clock.now() + timedelta(minutes=minutes)
    async with app.store.begin(write=True) as tx:
        await tx.guests.put(Guest(desktop_id, hash_secret(nonce), expires, None, STREAM_SECRET))


def portal(app: App, data: Any = None) -> Starlette:
    """Return the API mounted where the portal mounts it."""
    return Starlette(routes=[Mount("/api/v1", create_api(app, data))])


@asynccontextmanager
async def api_client(app: App, person: str | None = "ada", data: Any = None) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of the API, signed in by token."""
    headers = {"Authorization": f"Bearer {(await signed_in(app, person)).secret}"} if person else {}
    transport = httpx2.ASGITransport(portal(app, data))
    async with httpx2.AsyncClient(transport=transport, base_url=f"{ORIGIN}/api/v1", headers=headers) as client:
        yield client


@asynccontextmanager
async def guest_client(app: App) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of the guest API."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(create_guest_api(app)), base_url="http://guest") as client:
        yield client
