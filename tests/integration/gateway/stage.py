"""A gateway with a real store, one ready desktop and a stream server that the test controls, all in this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from beamdesk.adapters.demo.people import ADA, EXPERIMENTS, IMAGING, PEOPLE
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.app.connections import connect
from beamdesk.app.context import App, SiteRules
from beamdesk.app.logins import Caller, open_login
from beamdesk.domain.catalog import Flavor, Image, Resources
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import DesktopId, FlavorId, ImageId, ServerId
from beamdesk.domain.person import Person
from beamdesk.domain.secrets import hash_secret
from beamdesk.gateway import server
from beamdesk.gateway.config import GatewaySettings, Limits
from beamdesk.gateway.webclient import VERSION, client_dir
from beamdesk.ports.store import Claimed, Outcome
from integration.gateway.wire import MASTER, Answer, FakeStreamServer, Socket, read_answer

PORTAL = "http://localhost:8080"
CANARY = "canary-ticket"


class Clock(SystemClock):
    """The machine's clock, which a test can put forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self):
        return super().now() + self.ahead


class EmptyCatalog:
    async def images(self) -> tuple[Image, ...]:
        return ()

    async def flavors(self) -> tuple[Flavor, ...]:
        return ()


async def no_capacity() -> Resources | None:
    return None


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make_app(store: object, port: int, clock: object | None = None) -> App:
    def origin(desktop_id: DesktopId) -> str:
        return f"http://d-{desktop_id}.localhost:{port}"

    return App(store, EmptyCatalog(), clock or SystemClock(), SystemSecrets(), None, SiteRules(), no_capacity, origin)


def make_client_dir(base: Path) -> Path:
    """A stand-in for the unpacked stream client, for tests that run none of it."""
    folder = client_dir(base)
    folder.mkdir(parents=True)
    (folder / "selkies-core.js").write_text("// the client\n" * 100)
    (folder / "audio-worklet.js").write_text("// the worklet\n")
    names = ["selkies-core.js", "audio-worklet.js"]
    (folder / "client.json").write_text(
        json.dumps({"version": VERSION, "files": dict.fromkeys(names, ""), "style_hash": "sha256-AAAA"})
    )
    return base


async def put_people(store: SqlStore) -> None:
    async with store.begin(write=True) as tx:
        for person in PEOPLE:
            await tx.people.put_person(person)
        for experiment in EXPERIMENTS:
            await tx.people.put_experiment(experiment)


async def put_ready_desktop(
    app: App, address: str, *, owner: Person = ADA, name: str = "Tomography", secret: str = MASTER
) -> Desktop:
    now = app.clock.now()
    desktop = Desktop(
        id=DesktopId(app.secrets.id()),
        name=name,
        owner=owner.id,
        experiment=IMAGING.id,
        image=ImageId("imaging"),
        image_ref="imaging-1",
        flavor=FlavorId("small"),
        resources=Resources(1, 2048, 10),
        desired=Desired.RUNNING,
        desired_reason=Reason.USER,
        generation=1,
        lease_ends_at=now + timedelta(hours=8),
        phase=Phase.READY,
        phase_since=now,
        reason=Reason.NONE,
        detail="",
        observed_generation=1,
        admitted=True,
        server_id=ServerId("server-1"),
        address=address,
        attempts=0,
        queued_at=None,
        queue=None,
        created_at=now,
        due_at=now + timedelta(hours=1),
        version=1,
        last_active_at=now,
    )
    async with app.store.begin(write=True) as tx:
        await tx.desktops.insert(desktop)
        await tx.guests.put(Guest(desktop.id, None, now, hash_secret(desktop.id), secret, enrolled_at=now))
    return desktop


async def change_state(app: App, desktop_id: DesktopId, **changes: object) -> None:
    """Write the state half as a reconciler would."""
    now = app.clock.now()
    async with app.store.begin(write=True) as tx:
        await tx.desktops.wake(desktop_id, now)
    async with app.store.begin(write=True) as tx:
        claimed: tuple[Claimed, ...] = await tx.desktops.claim(token="t", now=now, until=now + timedelta(seconds=30), limit=10)
        (mine,) = [claim for claim in claimed if claim.desktop.id == desktop_id]
        desktop = mine.desktop
        outcome = Outcome(
            desktop.phase, now, desktop.reason, desktop.detail, desktop.generation, desktop.admitted, desktop.server_id,
            desktop.address, 0, None, None, now + timedelta(hours=1), now, None, None,
        )  # fmt: skip
        assert await tx.desktops.apply(mine, replace(outcome, **changes), now)


@dataclass
class Stage:
    app: App
    port: int
    desktop: Desktop
    upstream: FakeStreamServer
    clock: Clock
    settings: GatewaySettings
    connect_port: int = 0
    connector: Callable[[Stage], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] | None = None
    open_sockets: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return self.app.desktop_origin(self.desktop.id)

    async def caller(self, person: Person = ADA) -> Caller:
        return (await open_login(self.app, person.id, kind="browser")).caller

    async def ticket(self, person: Person = ADA) -> str:
        return (await connect(self.app, await self.caller(person), self.desktop.id)).ticket

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.connector is not None:
            return await self.connector(self)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.connect_port or self.port)
        self.open_sockets.append(writer)
        return reader, writer

    async def send(self, raw: bytes, *, head_only: bool = False) -> Answer:
        reader, writer = await self.raw()
        writer.write(raw)
        return await read_answer(reader, head_only=head_only)

    async def request(self, method: str, path: str, body: bytes = b"", *, host: str = "", **fields: str) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host or self.origin.removeprefix('http://')}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        return await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body, head_only=method == "HEAD")

    async def post_ticket(self, ticket: str, *, origin: str | None = PORTAL, cookie: str = "") -> Answer:
        fields = {"Content_Type": "application/x-www-form-urlencoded"}
        if origin is not None:
            fields["Origin"] = origin
        if cookie:
            fields["Cookie"] = cookie
        return await self.request("POST", "/open", f"ticket={ticket}".encode(), **fields)

    async def follow(self, arrived: Answer, cookie: str = "") -> Answer:
        pending = f"__Host-beamdesk-open={arrived.cookie('__Host-beamdesk-open')}"
        return await self.request("GET", "/open", Cookie=f"{pending}; {cookie}" if cookie else pending)

    async def sign_in(self, person: Person = ADA) -> str:
        """Open a session as a browser would; returns the Cookie field's value."""
        arrived = await self.post_ticket(await self.ticket(person))
        assert arrived.status == 303, arrived
        opened = await self.follow(arrived)
        assert opened.status == 303, opened
        return f"__Host-beamdesk={opened.cookie('__Host-beamdesk')}"

    def handshake(self, cookie: str, *, origin: str | None = "own", extra: str = "") -> bytes:
        given = self.origin if origin == "own" else origin
        return (
            f"GET /api/websockets HTTP/1.1\r\nHost: {self.origin.removeprefix('http://')}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            + (f"Origin: {given}\r\n" if given else "")
            + (f"Cookie: {cookie}\r\n" if cookie else "")
            + extra
            + "\r\n"
        ).encode()

    async def stream(self, cookie: str, *, origin: str | None = "own", extra: str = "") -> Socket:
        reader, writer = await self.raw()
        writer.write(self.handshake(cookie, origin=origin, extra=extra))
        return Socket(reader, writer, await read_answer(reader))


def make_settings(port: int, folder: Path, **changes: object) -> GatewaySettings:
    client = folder / "client"
    if not client.exists():
        make_client_dir(client)
    settings = GatewaySettings("127.0.0.1", port, PORTAL, "localhost", client, folder / "run", limits=Limits())
    return replace(settings, **changes)


@contextlib.asynccontextmanager
async def running(app: App, settings: GatewaySettings) -> AsyncIterator[None]:
    """Run a gateway in this event loop."""
    stop, started = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(server.run(app, settings, stop, lambda _port: started.set()))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield
    finally:
        stop.set()
        await task


@contextlib.asynccontextmanager
async def make_stage(folder: Path, **changes: object) -> AsyncIterator[Stage]:
    """Set everything up and, at the end, take it down."""
    port, clock = free_port(), Clock()
    store = await SqlStore.open(f"sqlite+aiosqlite:///{folder}/store.db")
    app = make_app(store, port, clock)
    await put_people(store)
    (folder / "run" / "stream").mkdir(parents=True)
    upstream = FakeStreamServer(folder / "run" / "stream" / "stream.sock")
    await upstream.start()
    settings = make_settings(port, folder, **changes)
    desktop = await put_ready_desktop(app, f"unix:{upstream.path}")
    stage = Stage(app, port, desktop, upstream, clock, settings)
    try:
        async with running(app, settings):
            yield stage
    finally:
        for writer in stage.open_sockets:
            writer.close()
        await upstream.stop()
        await store.close()
