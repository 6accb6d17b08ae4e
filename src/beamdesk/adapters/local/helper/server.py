"""The helper's socket: who may ask, how a request is framed, and the dispatch to the one operation it names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from dataclasses import dataclass, field

from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.adapters.local.helper.log import say
from beamdesk.adapters.local.helper.service import Service
from beamdesk.protocol.codec import MalformedMessage, decode, encode
from beamdesk.protocol.helper import Op, Reply, Request

MAX_REQUEST_BYTES = 64 * 1024
MAX_CONNECTIONS = 64
IDLE_TIMEOUT_S = 30.0
_CREDENTIALS = struct.Struct("3i")
_ARGUMENTS: dict[Op, tuple[str, ...]] = {
    Op.HELLO: (),
    Op.LIST: (),
    Op.LIST_HOMES: (),
    Op.START: ("start",),
    Op.OPEN_FILE: ("file",),
    Op.ENTRY_FACTS: ("entries",),
}
"""Which argument an operation takes, where it is not ``desktop``."""


@dataclass(slots=True)
class Server:
    """Accepts connections and answers requests, one at a time on each."""

    service: Service
    allowed_uid: int
    _connections: set[asyncio.Task[None]] = field(default_factory=set)
    _free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONNECTIONS))

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()  # more than this many wait in the kernel's queue
            try:
                connection, _address = await loop.sock_accept(listener)
            except OSError as error:
                say(f"accept failed: {error}")
                await asyncio.sleep(0.1)
                self._free.release()
                continue
            task = asyncio.create_task(self._converse(connection))
            self._connections.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._free.release()

    async def _converse(self, connection: socket.socket) -> None:
        with connection:
            connection.setblocking(False)
            try:
                if peer_uid(connection) not in (0, self.allowed_uid):  # root, for `beamdesk up`, could do all of it anyhow
                    await _read_line(connection, bytearray())  # unread bytes would reset the connection before the answer
                    await _send(connection, Reply(error="not_allowed", detail="This account may not use the helper."))
                    return
                received = bytearray()
                while (line := await _read_line(connection, received)) is not None:
                    reply = await self.answer(line, connection)
                    if reply is not None:
                        await _send(connection, reply)
            except HelperError as error:
                with contextlib.suppress(OSError, TimeoutError):
                    await _send(connection, Reply(error=error.code, detail=error.detail))
            except (OSError, TimeoutError):
                return

    async def answer(self, line: bytes, connection: socket.socket) -> Reply | None:
        """Do what one request asks; None when its child has answered already."""
        try:
            request = decode(Request, line, limit=MAX_REQUEST_BYTES)
            return await self._dispatch(request, connection)
        except MalformedMessage as error:
            return Reply(error="malformed", detail=f"The request is not valid: {error}.")
        except HelperError as error:
            return Reply(error=error.code, detail=error.detail)
        except OSError as error:
            say(f"a request failed: {error!r}")
            return Reply(error="failed", detail=f"The helper failed: {error.strerror}.")

    async def _dispatch(self, request: Request, connection: socket.socket) -> Reply | None:
        service = self.service
        _check_argument(request)
        if request.file is not None:
            await service.open_file(request.file, connection)
            return None
        if request.entries is not None:
            await service.entry_facts(request.entries, connection)
            return None
        if request.start is not None:
            return await service.start(request.start)
        if request.desktop is not None:
            on_desktop = {
                Op.STOP: service.stop,
                Op.DELETE: service.delete,
                Op.DELETE_HOME: service.delete_home,
                Op.CONSOLE: service.console,
            }
            return await on_desktop[request.op](request.desktop)
        plain = {Op.HELLO: service.hello, Op.LIST: service.list_servers, Op.LIST_HOMES: service.list_homes}
        return await plain[request.op]()


def _check_argument(request: Request) -> None:
    """Refuse a request that does not carry exactly the argument of its operation."""
    given = tuple(name for name in ("start", "desktop", "file", "entries") if getattr(request, name) is not None)
    wanted = _ARGUMENTS.get(request.op, ("desktop",))
    if given != wanted:
        raise HelperError("malformed", f"The request {request.op} needs exactly its own argument.")


def peer_uid(connection: socket.socket) -> int:
    """Return who is at the other end, as the kernel recorded it when they connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def listen(path: str, gid: int) -> socket.socket:
    """Bind the socket with mode 0660 for root and ``gid``; the old one must belong to a dead helper."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    listener.bind(path)  # the umask leaves it to root until the group is set
    os.chown(path, 0, gid)
    os.chmod(path, 0o660)  # noqa: PTH101
    listener.listen(MAX_CONNECTIONS)
    return listener


async def _read_line(connection: socket.socket, received: bytearray) -> bytes | None:
    """Return the next line, or None at the end; ``received`` keeps what came after it."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(IDLE_TIMEOUT_S):
        while b"\n" not in received:
            if len(received) > MAX_REQUEST_BYTES:
                raise HelperError("malformed", f"The request is longer than {MAX_REQUEST_BYTES} bytes.")
            chunk = await loop.sock_recv(connection, 65536)
            if not chunk:
                return None
            received += chunk
    line, _, rest = bytes(received).partition(b"\n")
    received[:] = rest
    return line


async def _send(connection: socket.socket, reply: Reply) -> None:
    async with asyncio.timeout(IDLE_TIMEOUT_S):
        await asyncio.get_running_loop().sock_sendall(connection, encode(reply) + b"\n")
