"""What goes over the wire by hand: answers, frames, a stream server that the test controls."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from beamdesk.gateway.reply import websocket_accept

MASTER = "master-secret-of-the-desktop"


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
