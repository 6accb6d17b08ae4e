"""Reach a desktop's stream server: open the address that the store names, push session tokens, upgrade to a WebSocket.

The desktop is not trusted: it owns the directory in which its socket lies, and it writes every answer. So the socket is opened
without following any link, answers are bounded in size and time, and only their verdict is used.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from beamdesk.domain.errors import StreamUnavailable
from beamdesk.domain.ids import SessionId
from beamdesk.domain.session import Session
from beamdesk.gateway.config import Limits
from beamdesk.gateway.head import parse_response_head
from beamdesk.gateway.reply import websocket_accept

_CONTEXT = b"beamdesk stream session\0"


def session_token(stream_secret: str, session_id: SessionId) -> str:
    """Return the stream server's token for a session: every gateway derives the same one, no browser ever sees it."""
    mac = hmac.new(stream_secret.encode(), _CONTEXT + session_id.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(mac.digest()).decode().rstrip("=")


async def connect_socket(address: str, run_dir: Path, timeout_s: float) -> socket.socket:
    """Connect to ``unix:PATH`` below ``run_dir`` or to ``tcp:HOST:PORT``.

    Raises:
        StreamUnavailable: no such address, not a socket, or nobody listens.
    """
    kind, _, rest = address.partition(":")
    try:
        async with asyncio.timeout(timeout_s):
            if kind == "unix":
                return await _connect_unix(Path(rest), run_dir)
            if kind == "tcp":
                host, _, port = rest.rpartition(":")
                return await _connect_tcp(host.strip("[]"), int(port))
    except (OSError, ValueError, TimeoutError) as error:
        raise StreamUnavailable("The desktop's screen does not answer yet.", address=address, cause=type(error).__name__) from error
    raise StreamUnavailable("The desktop's screen has an address that this gateway does not know.", address=address)


async def _connect_tcp(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    family, kind, protocol, _, target = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))[
        0
    ]
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_unix(path: Path, run_dir: Path) -> socket.socket:
    fd = open_socket_path(path, run_dir)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        # The name in /proc leads to the very inode that was checked, whatever the desktop puts in its place meanwhile.
        await asyncio.get_running_loop().sock_connect(sock, f"/proc/self/fd/{fd}")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(fd)
    return sock


def open_socket_path(path: Path, run_dir: Path) -> int:
    """Return an O_PATH descriptor of the socket at ``path``, reached from ``run_dir`` without following any link.

    Raises:
        ValueError: not below ``run_dir``, or not a socket. OSError: a link on the way, or it is not there.
    """
    parts = path.relative_to(run_dir).parts
    if not path.is_absolute() or not parts or ".." in parts:
        raise ValueError("a stream socket lies below the run directory")
    fd = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for index, part in enumerate(parts):
            flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_DIRECTORY if index < len(parts) - 1 else 0)
            below = os.open(part, flags, dir_fd=fd)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError("not a socket")
    return fd


class _HeadReader(asyncio.Protocol):
    """Collects an answer's head; what follows it stays in ``rest``."""

    def __init__(self, limit: int) -> None:
        self.head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.rest = b""
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._limit = limit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self.head.done():
            return
        end = self._buffer.find(b"\r\n\r\n", 0, self._limit)
        if end >= 0:
            if self.transport is not None:
                self.transport.pause_reading()
            self.rest = bytes(self._buffer[end + 4 :])
            self.head.set_result(bytes(self._buffer[:end]))
        elif len(self._buffer) >= self._limit:
            self.head.set_exception(ValueError("the answer's head is too long"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.head.done():
            self.head.set_exception(exc or ConnectionResetError("the stream server hung up"))


class StreamServer:
    """The stream server of one desktop, at one address with one master secret."""

    def __init__(self, address: str, secret: str, run_dir: Path, limits: Limits) -> None:
        self._address = address
        self._secret = secret
        self._run_dir = run_dir
        self._limits = limits

    async def push_sessions(self, sessions: Iterable[Session]) -> None:
        """Replace the table of those who may attach. Any gateway pushes the same table: it follows from the store.

        Raises:
            StreamUnavailable: it was not accepted.
        """
        table = {session_token(self._secret, session.id): {"role": str(session.role)} for session in sessions}
        body = json.dumps(table).encode()
        request = (
            "POST /api/tokens HTTP/1.1\r\nHost: desktop\r\n"
            f"Authorization: Bearer {self._secret}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode() + body
        transport, status, _, _ = await self._exchange(request)
        transport.abort()
        if status != 200:
            raise StreamUnavailable("The desktop's screen does not accept this gateway.", address=self._address, status=status)

    async def open_stream(self, session_id: SessionId, key: str) -> tuple[asyncio.Transport, bytes]:
        """Upgrade a connection for a session whose token was pushed; returns it, paused, and the first bytes that came.

        Nothing of the browser's request goes in but its key: no cookie, no Origin, and no extension (compressing video twice
        costs time and gains nothing). The token travels as a subprotocol, which no log of requests shows.

        Raises:
            StreamUnavailable: the answer is no proper WebSocket handshake.
        """
        token = base64.urlsafe_b64encode(session_token(self._secret, session_id).encode()).decode().rstrip("=")
        request = (
            "GET /api/websockets HTTP/1.1\r\nHost: desktop\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: selkies, selkies.token.{token}\r\n\r\n"
        ).encode()
        transport, status, fields, rest = await self._exchange(request)
        accepted = (
            status == 101
            and fields.get("upgrade", "").lower() == "websocket"
            and "upgrade" in fields.get("connection", "").lower()
            and hmac.compare_digest(fields.get("sec-websocket-accept", "").encode(), websocket_accept(key).encode())
            and "sec-websocket-extensions" not in fields
        )
        if not accepted:
            transport.abort()
            raise StreamUnavailable("The desktop's screen does not answer yet.", address=self._address, status=status)
        return transport, rest

    async def _exchange(self, request: bytes) -> tuple[asyncio.Transport, int, dict[str, str], bytes]:
        sock = await connect_socket(self._address, self._run_dir, self._limits.upstream_timeout_s)
        loop = asyncio.get_running_loop()
        make = loop.create_unix_connection if sock.family == socket.AF_UNIX else loop.create_connection
        transport, reader = await make(lambda: _HeadReader(self._limits.upstream_head_bytes), sock=sock)
        try:
            transport.write(request)
            async with asyncio.timeout(self._limits.upstream_timeout_s):
                status, fields = parse_response_head(await reader.head)
        except (OSError, ValueError, TimeoutError) as error:
            transport.abort()
            cause = type(error).__name__
            raise StreamUnavailable("The desktop's screen does not answer yet.", address=self._address, cause=cause) from error
        except BaseException:
            transport.abort()
            raise
        return transport, status, fields, reader.rest
