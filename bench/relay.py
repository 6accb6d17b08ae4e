"""The gateway's relay beside nginx, in the same run: CPU per megabyte and added latency. Goal: at most 1.3 times nginx.

One WebSocket through each: 60 messages a second of 40 kB (a busy 1080p desktop), then a flood. Both relay from a Unix socket.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

ROUNDS = 5
PACED = (40_000, 60, 150)
FLOOD = (40_000, 0, 6000)
NGINX = """
worker_processes 1; daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 256; }}
http {{ access_log off; tcp_nodelay on;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port};
    location /api/websockets {{ proxy_pass http://unix:{socket}; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade; proxy_buffering off; proxy_read_timeout 3600s; {extra} }} }} }}
"""


@dataclass(frozen=True)
class Relay:
    """Where to connect, with which head fields, and whose CPU time counts (None: nobody's)."""

    name: str
    address: tuple[str, int] | str
    fields: str
    pid: int | None


@dataclass(frozen=True)
class Figures:
    """One measurement: CPU ms per MB, CPU percent at 60 messages/s, round trip and one-way latency in ms."""

    cpu_ms_per_mb: float
    paced_cpu_pct: float
    round_trip: float
    latency: float
    latency_p10: float
    flood_mb_s: float


def cpu_s(pid: int | None) -> float:
    if pid is None:
        return 0.0
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


class Client:
    """A WebSocket client that does next to nothing."""

    def __init__(self, relay: Relay) -> None:
        family = socket.AF_UNIX if isinstance(relay.address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(20)
        self.socket.connect(relay.address)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            b"GET /api/websockets HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + relay.fields.encode() + b"\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(f"{relay.name} refused: {head[:80]!r}")
        self.buffer = memoryview(bytearray(1 << 20))

    def send(self, text: str) -> None:
        data = text.encode()
        self.socket.sendall(b"\x81" + bytes([128 | len(data)]) + b"\0\0\0\0" + data)

    def _read(self, count: int) -> memoryview:
        got = 0
        while got < count:
            got += self.socket.recv_into(self.buffer[got:count]) or _ended()
        return self.buffer[:count]

    def frame(self) -> int:
        length = self._read(2)[1] & 127
        if length == 126:
            length = struct.unpack(">H", self._read(2))[0]
        self._read(length)
        return length


def _ended() -> int:
    raise EOFError("the relay hung up")


def measure(relay: Relay) -> Figures:
    client = Client(relay)
    trips = []
    for _ in range(150):
        start = time.perf_counter()
        client.send("echo 12345678")
        client.frame()
        trips.append(1e3 * (time.perf_counter() - start))
        time.sleep(0.002)
    before, start, late = cpu_s(relay.pid), time.monotonic(), []
    client.send("send {} {} {}".format(*PACED))
    for _ in range(PACED[2]):
        client.frame()
        late.append(1e3 * (time.monotonic() - struct.unpack(">d", client.buffer[:8])[0]))
    paced = (cpu_s(relay.pid) - before) / (time.monotonic() - start)
    before, start, total = cpu_s(relay.pid), time.monotonic(), 0
    client.send("send {} {} {}".format(*FLOOD))
    for _ in range(FLOOD[2]):
        total += client.frame()
    seconds, megabytes = time.monotonic() - start, total / 1e6
    flood = 1e3 * (cpu_s(relay.pid) - before) / megabytes
    client.socket.close()
    late.sort()
    median = statistics.median
    return Figures(flood, 100 * paced, median(trips), median(late), late[len(late) // 10], megabytes / seconds)


@contextmanager
def process(*command: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


def wait_for(address: tuple[str, int] | str) -> None:
    for _ in range(200):
        with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as probe:
            if probe.connect_ex(address) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens at {address}")


async def open_session(url: str, port: int, address: str) -> str:
    """Prepare a store with a desktop and an open session; returns the head fields of its browser."""
    from beamdesk.app.connections import open_session as spend
    from integration.gateway.stage import ADA, Caller, SqlStore, connect, make_app, open_login, put_people, put_ready_desktop

    store = await SqlStore.open(url)
    app = make_app(store, port)
    await put_people(store)
    desktop = await put_ready_desktop(app, address)
    caller: Caller = (await open_login(app, ADA.id, kind="browser")).caller
    opened = await spend(app, desktop.id, (await connect(app, caller, desktop.id)).ticket)
    await store.close()
    origin = app.desktop_origin(desktop.id)
    host = origin.removeprefix("http://")
    return f"Host: {host}\r\nOrigin: {origin}\r\nCookie: __Host-beamdesk={opened.session.id}.{opened.secret}\r\n"


def start_gateway(stack: ExitStack, folder: Path, source: Path) -> Relay:
    from integration.gateway.stage import free_port

    port, url = free_port(), f"sqlite+aiosqlite:///{folder}/store.db"
    fields = asyncio.run(open_session(url, port, f"unix:{source}"))
    command = [sys.executable, "-m", "integration.gateway.process", url, str(port), str(port), str(folder)]
    started = stack.enter_context(process(*command, env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}))
    wait_for(("127.0.0.1", port))
    return Relay("gateway", ("127.0.0.1", port), fields, started.pid)


def start_nginx(stack: ExitStack, folder: Path, source: Path, name: str, extra: str) -> Relay:
    from integration.gateway.stage import free_port

    port, own = free_port(), folder / name.replace(" ", "-")
    own.mkdir()
    configuration = own / "nginx.conf"
    configuration.write_text(NGINX.format(folder=own, port=port, socket=source, extra=extra))
    started = stack.enter_context(process("nginx", "-e", str(own / "nginx.err"), "-c", str(configuration)))
    wait_for(("127.0.0.1", port))
    return Relay(name, ("127.0.0.1", port), "Host: x\r\n", started.pid)


def report(figures: dict[str, list[Figures]]) -> None:
    def typical(name: str, field: str) -> float:
        return statistics.median(getattr(one, field) for one in figures[name])

    direct = typical("direct", "latency"), typical("direct", "latency_p10"), typical("direct", "round_trip")
    print("relay            CPU ms/MB  CPU % at 60/s  added ms p50  added ms p10  added round trip ms  flood MB/s")
    for name in figures:
        late, least, trip = (typical(name, field) for field in ("latency", "latency_p10", "round_trip"))
        print(
            f"{name:16} {typical(name, 'cpu_ms_per_mb'):9.2f}  {typical(name, 'paced_cpu_pct'):13.2f}  {late - direct[0]:12.3f}"
            f"  {least - direct[1]:12.3f}  {trip - direct[2]:19.3f}  {typical(name, 'flood_mb_s'):10.0f}"
        )
    for peer in ("nginx", "nginx 64k"):
        ratios = sorted(
            ours.cpu_ms_per_mb / theirs.cpu_ms_per_mb for ours, theirs in zip(figures["gateway"], figures[peer], strict=True)
        )
        spread = f"{len(ratios)} rounds: {ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"CPU, gateway : {peer} = {statistics.median(ratios):.2f} (goal <= 1.3; {spread})")


def main() -> None:
    """Run it."""
    if shutil.which("nginx") is None:
        raise RuntimeError("nginx is missing: deploy/setup packages installs it")
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beamdesk-bench-")))
        folder.chmod(0o755)
        source = folder / "run" / "stream.sock"
        source.parent.mkdir()
        stack.enter_context(process(sys.executable, "-m", "bench._relay_source", str(source), cwd=ROOT))
        wait_for(str(source))
        source.chmod(0o666)
        relays = [
            Relay("direct", str(source), "Host: x\r\n", None),
            start_gateway(stack, folder, source),
            start_nginx(stack, folder, source, "nginx", ""),
            start_nginx(stack, folder, source, "nginx 64k", "proxy_buffer_size 64k; proxy_buffers 4 64k;"),
        ]
        figures: dict[str, list[Figures]] = {relay.name: [] for relay in relays}
        for index in range(ROUNDS):
            for relay in relays[index % len(relays) :] + relays[: index % len(relays)]:
                figures[relay.name].append(measure(relay))
    report(figures)
    print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
