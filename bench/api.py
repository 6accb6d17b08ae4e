"""API requests a second of a real `beamdesk serve` process, on both databases, beside the same process's plain-text `/healthz`.

`/healthz` is the peer: the same server and framework without sign-in, store or JSON. The client writes raw bytes, so that the
machine's time goes to the server; both share this machine, its load is printed with each line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from apisite import Site, running_site
from postgres import running_postgres

SECONDS, CONNECTIONS, DESKTOPS = 3.0, 8, 50
_QUOTA = '{"desktops": 1000000, "vcpus": 10000000, "memory_mib": 10000000000, "disk_gib": 1000000000, "gpus": 4}'
_WISH = json.dumps({"experiment": "heps-2026-0147", "image": "imaging", "flavor": "small"}).encode()


class Connection:
    """One kept-alive HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, request: bytes) -> tuple[int, bytes]:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        return int(head[9:12]), await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


def request(method: str, path: str, token: str = "", body: bytes = b"", headers: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def measure(site: Site, name: str, database: str, make: Callable[[], bytes], expected: int) -> None:
    connections = [await Connection.open(site.port) for _ in range(CONNECTIONS)]
    took: list[float] = []
    end = time.perf_counter() + SECONDS

    async def work(connection: Connection) -> None:
        while (began := time.perf_counter()) < end:
            status, answer = await connection.send(make())
            assert status == expected, answer[:300]
            took.append(time.perf_counter() - began)

    process = site.processes["serve"].pid
    cpu = _cpu_s(process)
    await asyncio.gather(*map(work, connections))
    cpu = _cpu_s(process) - cpu
    for connection in connections:
        connection.close()
    took.sort()
    each = f"server CPU {cpu / len(took) * 1e3:5.2f} ms each   load {os.getloadavg()[0]:.1f}"
    print(
        f"  {database:<11} {name:<22} {len(took) / SECONDS:7.0f} /s   p50 {statistics.median(took) * 1e3:6.1f} ms   "
        f"p99 {took[int(len(took) * 0.99)] * 1e3:6.1f} ms   {each}",
        flush=True,
    )


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def one_site(site: Site, database: str) -> None:
    first = await Connection.open(site.port)
    body = json.dumps({"login": "ada", "password": site.password}).encode()
    status, answer = await first.send(request("POST", "/api/v1/logins", body=body))
    assert status == 201, answer
    token = json.loads(answer)["token"]
    for _ in range(DESKTOPS):
        _, answer = await first.send(request("POST", "/api/v1/desktops", token, _WISH))
    address = f"/api/v1/desktops/{json.loads(answer)['id']}"
    first.close()
    again = f"If-None-Match: {await _tag(site, address, token)}\r\n"
    await measure(site, "/healthz (peer)", database, lambda: request("GET", "/healthz"), 200)
    await measure(site, "who am I", database, lambda: request("GET", "/api/v1/me", token), 200)
    await measure(site, "show", database, lambda: request("GET", address, token), 200)
    await measure(site, "show, unchanged (304)", database, lambda: request("GET", address, token, headers=again), 304)
    await measure(site, f"list of {DESKTOPS}", database, lambda: request("GET", "/api/v1/desktops", token), 200)
    await measure(site, "create", database, lambda: _create(token), 201)


def _create(token: str) -> bytes:
    return request("POST", "/api/v1/desktops", token, _WISH, f"Idempotency-Key: {uuid.uuid4()}\r\n")


async def _tag(site: Site, address: str, token: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(request("GET", address, token))
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    return next(line.split(": ", 1)[1] for line in head.split("\r\n") if line.lower().startswith("etag:"))


@contextlib.contextmanager
def _databases() -> Iterator[dict[str, str]]:
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        print("  PostgreSQL is not installed: SQLite only")
        yield {"SQLite": ""}
        return
    with running_postgres() as server:
        yield {"SQLite": "", "PostgreSQL": server.database()}


def main() -> None:
    print(f"  {CONNECTIONS} connections, {SECONDS:g} s each, one serve process, {os.cpu_count()} cores for client and server")
    with _databases() as databases:
        for database, url in databases.items():
            extra = {"BEAMDESK_DATABASE_URL": url} if url else {}
            with (
                tempfile.TemporaryDirectory() as folder,
                running_site(
                    Path(folder), reconcile=False, BEAMDESK_PERSON_QUOTA=_QUOTA, BEAMDESK_EXPERIMENT_QUOTA=_QUOTA, **extra
                ) as site,
            ):
                asyncio.run(one_site(site, database))


if __name__ == "__main__":
    main()
