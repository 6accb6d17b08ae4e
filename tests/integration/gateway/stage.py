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
from beamdesk.gateway.reply import websocket_accept
from beamdesk.gateway.webclient import VERSION, client_dir
from beamdesk.ports.store import Claimed, Outcome

PORTAL = "http://localhost:8080"
MASTER = "master-secret-of-the-desktop"
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
class Answer:
    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def field(self, name: str) -> str:
        return next((value for key, value in self.fields if key.lower() == name.lower()), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def cookie(self, name: str) -> str:
        for value in self.all("set-cookie"):
            key, _, rest = value.partition("=")
            if key == name:
                return rest.split(";")[0]
        return ""


async def read_answer(reader: asyncio.StreamReader, *, head_only: bool = False) -> Answer:
    raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    fields = [(key, value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    answer = Answer(int(first.split()[1]), fields, b"")
    length = int(answer.field("content-length") or 0)
    answer.body = b"" if head_only else await asyncio.wait_for(reader.readexactly(length), 5)
    return answer


class FakeStreamServer:
    """Speaks WebSocket as the streaming server does: takes a token table, accepts its tokens, echoes messages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tables: list[dict[str, dict[str, str]]] = []
        self.requests: list[bytes] = []
        self.extra_fields = b""
        self.status = b"101 Switching Protocols"
        self.accept: Callable[[str], str] = websocket_accept
        self.greeting = b""
        self.token_status = b"200 OK"
        self.flood = b""
        self.received = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            if head.startswith(b"POST /api/tokens"):
                await self._take_table(head, reader, writer)
            else:
                await self._stream(head, reader, writer)
        self._tasks.discard(task)
        writer.close()

    async def _take_table(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int(next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")))
        body = await reader.readexactly(length)
        right = f"Authorization: Bearer {MASTER}".encode() in head
        if right:
            self.tables.append(json.loads(body))
        writer.write(b"HTTP/1.1 " + (self.token_status if right else b"401 No") + b"\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def _stream(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        accept = self.accept(key.decode()).encode()
        writer.write(
            b"HTTP/1.1 " + self.status + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept
            + b"\r\nSec-WebSocket-Protocol: selkies\r\n" + self.extra_fields + b"\r\n" + self.greeting
        )  # fmt: skip
        while self.flood:
            writer.write(self.flood)
            await writer.drain()
        while True:
            text = await read_frame(reader)
            self.received += len(text)
            writer.write(make_frame(text))
            await writer.drain()


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    first, second = await reader.readexactly(2)
    assert first & 0x80, "the tests send whole messages"
    length = second & 127
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2), "big")
    elif length == 127:
        length = int.from_bytes(await reader.readexactly(8), "big")
    mask = await reader.readexactly(4) if second & 128 else b""
    data = await reader.readexactly(length)
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(data)) if mask else data


def make_frame(data: bytes, *, masked: bool = False) -> bytes:
    bit = 128 if masked else 0
    if len(data) < 126:
        head = bytes([0x82, bit | len(data)])
    elif len(data) < 65536:
        head = bytes([0x82, bit | 126]) + len(data).to_bytes(2, "big")
    else:
        head = bytes([0x82, bit | 127]) + len(data).to_bytes(8, "big")
    mask = b"\x01\x02\x03\x04"
    return head + (mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(data)) if masked else data)


@dataclass
class Socket:
    """A browser's WebSocket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answer: Answer

    async def echo(self, text: bytes) -> bytes:
        self.writer.write(make_frame(text, masked=True))
        return await asyncio.wait_for(read_frame(self.reader), 5)

    async def is_cut(self, within_s: float) -> float:
        """Wait until the gateway cuts; returns after how many seconds."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.timeout(within_s):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65536):
                    pass
        return loop.time() - start


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
