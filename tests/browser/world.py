"""A whole Beamdesk in one process for browser tests: portal, API, reconciler, fake cloud with fake guests, SQLite, real sample files.

Runs in a thread of its own with its own event loop; tests drive it by HTTP and a browser. ``python tests/browser/world.py`` starts
one for looking at.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import uvicorn
from PIL import Image as Picture
from PIL import ImageDraw
from starlette.applications import Starlette
from starlette.routing import Mount

from beamdesk.adapters.demo import data as demo_data
from beamdesk.adapters.demo.layout import Owners
from beamdesk.adapters.demo.load import load_demo
from beamdesk.adapters.demo.people import DAQ_UID, EXPERIMENTS, PEOPLE
from beamdesk.adapters.fake.cloud import FakeCloud, FakeTimes
from beamdesk.adapters.fake.guest import FakeGuests
from beamdesk.adapters.local.files import DirectFiles
from beamdesk.adapters.preview.pool import SandboxedPreviews
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.api.app import create_api
from beamdesk.app.context import App, SiteRules
from beamdesk.app.data import Data
from beamdesk.domain.catalog import Flavor, Image, Resources, Software
from beamdesk.domain.ids import DesktopId, FlavorId, ImageId, PersonId
from beamdesk.domain.text import Text
from beamdesk.portal.app import create_portal
from beamdesk.portal.config import DemoHint, PortalSettings
from beamdesk.ports.cloud import Capacity
from beamdesk.reconcile import main as reconciler
from beamdesk.reconcile.placing import Placer
from beamdesk.reconcile.rules import ReconcileRules
from beamdesk.scheduling.host import HostFacts

PASSWORD = "quartz-lily-beam"
IMAGES = (
    Image(
        ImageId("imaging"),
        "sha-imaging",
        Text("Imaging beamline", "成像线站"),
        Text("Tomography from projections to slices, with notebooks.", "从投影到切片的断层成像，附带 Notebook。"),  # noqa: RUF001
        tuple(
            Software(name, Text(en, zh))
            for name, en, zh in (
                ("silx view", "Looks into HDF5 files", "查看 HDF5 文件"),
                ("PyMca", "X-ray fluorescence", "X 射线荧光分析"),
                ("JupyterLab", "Notebooks", "交互式笔记本"),
                ("Slice viewer", "Browse volumes", "浏览体数据"),
            )
        ),
        frozenset({"B7"}),
    ),
    Image(
        ImageId("general"),
        "sha-general",
        Text("General Linux", "通用 Linux"),
        Text("A light desktop with office tools, browser, terminal.", "轻量桌面，带办公软件、浏览器和终端。"),  # noqa: RUF001
        (Software("Firefox", Text("Web", "网页")), Software("LibreOffice", Text("Office", "办公"))),
    ),
)
FLAVORS = (
    Flavor(FlavorId("small"), Text("Small", "小型"), Resources(1, 2048, 10)),
    Flavor(FlavorId("medium"), Text("Medium", "中型"), Resources(2, 4096, 20)),
    Flavor(FlavorId("large"), Text("Large", "大型"), Resources(4, 8192, 40)),
    Flavor(FlavorId("gpu.small"), Text("GPU small", "GPU 小型"), Resources(4, 16384, 40, 1)),
)


class _Catalog:
    async def images(self) -> tuple[Image, ...]:
        return IMAGES

    async def flavors(self) -> tuple[Flavor, ...]:
        return FLAVORS


class _Passwords:
    async def verify(self, login: str, password: str) -> PersonId | None:
        known = {person.login: person.id for person in PEOPLE}
        return known.get(login) if password == PASSWORD else None


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class World:
    """A running world. ``capacity`` is what its cloud has; ``step_s`` how long a fake guest takes for a step."""

    folder: Path
    rules: SiteRules = field(default_factory=SiteRules)
    capacity: Capacity = field(default_factory=lambda: Capacity(16, 64 * 1024, 1000, 1))
    step_s: float = 0.15
    build_s: float = 0.2
    port: int = 0
    live_idle_s: float = 2.0
    places: tuple[HostFacts, ...] = ()
    app: App = field(init=False)
    cloud: FakeCloud = field(init=False)
    guests: FakeGuests = field(init=False)

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", self.port))
        self.port = self._socket.getsockname()[1]
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)
        self._thread.start()
        self._ready.wait(30)
        if self._failure:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self._socket.close()
        assert not self._thread.is_alive(), "the world did not end"
        if self._failure:
            raise self._failure

    def do(self, work: Callable[[], Awaitable[Any]], timeout_s: float = 20) -> Any:
        """Run something in the world's event loop and return its result."""

        async def run() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout_s)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # noqa: BLE001  # handed to the test's thread
            self._failure = error
        finally:
            self._ready.set()

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        clock, secrets, hint = SystemClock(), SystemSecrets(), reconciler.Hint()
        store = await SqlStore.open(f"sqlite+aiosqlite:///{self.folder}/store.db")
        await load_demo(store, PEOPLE, EXPERIMENTS)
        self._places = (lambda: self.places) if self.places else None
        self.cloud = FakeCloud(clock, capacity=self.capacity, times=FakeTimes(build=self.build_s), places=self._places)
        self.guests = FakeGuests(store, self.cloud.world, clock, secrets, step_s=self.step_s)
        self.app = App(
            store=store,
            catalog=_Catalog(),
            clock=clock,
            secrets=secrets,
            sign_in=_Passwords(),
            rules=self.rules,
            capacity=self._total,
            desktop_origin=lambda desktop_id: f"http://d-{desktop_id}.localhost:{self.port}",
            hint=hint,
            portal_origin=self.origin,
            hosts=self.cloud.hosts,
        )
        placer = Placer(self.cloud.hosts, self.app.catalog.flavors, self.rules.srm)
        previews = SandboxedPreviews()
        files = Data(self.app, DirectFiles(self.folder / "data"), previews)
        settings = PortalSettings(
            portal_origin=self.origin,
            demo_hint=DemoHint(tuple((person.login, person.full_name) for person in PEOPLE), PASSWORD),
            contact="user-office@light.example",
            live_idle_s=self.live_idle_s,
        )
        web = Starlette(
            routes=[Mount("/api/v1", create_api(self.app, files)), Mount("/", create_portal(self.app, settings, files))]
        )
        config = uvicorn.Config(web, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        server = _Server(config)
        rules = ReconcileRules(lease=self.rules.lease)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve([self._socket]))
            group.create_task(reconciler.run(store, self.cloud, clock, secrets, rules, self._stop, hint=hint, placer=placer))
            group.create_task(self.guests.run(self._stop))
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await asyncio.sleep(0.02)
            self._ready.set()
            await self._stop.wait()
            server.should_exit = True
        await previews.close()
        await store.close()

    async def _total(self) -> Resources:
        return Resources(self.capacity.vcpus, self.capacity.memory_mib, self.capacity.disk_gib, self.capacity.gpus)

    def make_files(self, size: int = 64) -> None:
        """Make the sample data beneath the world's folder."""
        owners = Owners(DAQ_UID, change=os.geteuid() == 0)
        demo_data.make(self.folder / "data", owners, size=size, say=lambda _: None)

    def put_thumbnail(self, desktop_id: str) -> None:
        """Hand in a picture of a desktop's screen, as the guest agent does."""

        async def put() -> None:
            async with self.app.store.begin(write=True) as tx:
                now = self.app.clock.now()
                await tx.guests.put_thumbnail(DesktopId(desktop_id), "image/png", _screen(), now)

        self.do(put)


def _screen() -> bytes:
    """Draw something that looks like a desktop with an analysis on it."""
    picture = Picture.new("RGB", (480, 300), "#17323a")
    draw = ImageDraw.Draw(picture)
    for radius in range(300, 0, -6):
        draw.ellipse((90 - radius, 330 - radius, 90 + radius, 330 + radius), outline=(30, 66 + radius // 12, 74 + radius // 10))
    draw.rectangle((0, 0, 480, 14), fill="#0f2025")
    draw.rectangle((40, 34, 300, 240), fill="#f4f6f4")
    draw.rectangle((40, 34, 300, 48), fill="#dfe6e2")
    for index, shade in enumerate(range(40, 220, 12)):
        draw.ellipse((70 + index * 6, 70 + index * 4, 270 - index * 6, 226 - index * 4), fill=(shade, shade, shade))
    draw.rectangle((318, 60, 456, 200), fill="#11191b")
    for line in range(9):
        draw.rectangle(
            (326, 72 + line * 13, 326 + 30 + (line * 37) % 90, 76 + line * 13), fill="#5fd4c4" if line % 3 else "#ffc368"
        )
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, World(Path(folder), port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as world:
        world.make_files(int(sys.argv[2]) if len(sys.argv) > 2 else 128)
        print(f"{world.origin}  ada / {PASSWORD}", flush=True)  # noqa: T201
        threading.Event().wait()
