"""Client of the privileged helper: one request per connection, for asyncio.

Knows the wire and the translation of the helper's error codes, and nothing of desktops: rules live in the driver and in the helper.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from beamdesk.domain.errors import CloudError, CloudRefused, CloudUnavailable, Forbidden, NotFound, NotSupported
from beamdesk.protocol.codec import MAX_MESSAGE_BYTES, MalformedMessage, decode, encode
from beamdesk.protocol.helper import EntryFacts, FolderEntries, HelperAccount, Op, OpenFile, Reply, Request

_UNAVAILABLE = frozenset({"busy", "failed"})
"""Codes after which the same request may succeed later."""


class HelperRefused(CloudRefused):
    """The helper said no; ``helper_code`` is its stable code."""

    def __init__(self, helper_code: str, message: str) -> None:
        super().__init__(message, helper_code=helper_code)
        self.helper_code = helper_code


@dataclass(frozen=True, slots=True)
class HelperClient:
    """Talks to the helper at ``socket_path``; each call takes at most ``timeout_s`` seconds. Holds no connection between calls."""

    socket_path: Path
    timeout_s: float = 10.0

    async def call(self, request: Request) -> Reply:
        """Send ``request`` and return the answer.

        Raises:
            CloudUnavailable: the helper is down, silent, busy or failed: it may or may not have happened.
            NotSupported: this machine cannot do it; the text names what is missing.
            HelperRefused: a definite no, with the cause.
        """
        reply, descriptor = await self._exchange(request)
        if descriptor is not None:
            os.close(descriptor)
        _raise_for(reply)
        return reply

    async def open_file(self, account: HelperAccount, experiment: str, path: str) -> int:
        """Open a file or folder of an experiment read-only, with the rights of ``account``, and return its descriptor.

        ``path`` is relative to the experiment's folder, as in ``raw/scan.h5``; empty means the folder itself. The caller owns the
        descriptor and must close it. Symbolic links are not followed and only regular files and folders are opened.

        Raises:
            NotFound: no such experiment or file, or it is neither a regular file nor a folder.
            Forbidden: the account may not read it, or the path leaves the folder or holds a symbolic link.
            CloudUnavailable: the helper does not answer.
        """
        request = Request(op=Op.OPEN_FILE, file=OpenFile(account=account, experiment=experiment, path=path))
        reply, descriptor = await self._exchange(request)
        if reply.error or descriptor is None:
            if descriptor is not None:
                os.close(descriptor)
            _raise_for_data(reply)
            raise CloudError("The helper answered without a file.")
        return descriptor

    async def entry_facts(
        self, account: HelperAccount, experiment: str, path: str, names: Sequence[str]
    ) -> tuple[EntryFacts | None, ...]:
        """Return size and time of entries of a folder, None for each that the person may not see. Errors as for :meth:`open_file`.

        At most ``MAX_FACTS`` names, and together no longer than a request may be.
        """
        request = Request(op=Op.ENTRY_FACTS, entries=FolderEntries(account, experiment, path, tuple(names)))
        reply, descriptor = await self._exchange(request)
        if descriptor is not None:
            os.close(descriptor)
        _raise_for_data(reply)
        if reply.facts is None or len(reply.facts) != len(names):
            raise CloudError("The helper answered without the facts that were asked for.")
        return reply.facts

    async def _exchange(self, request: Request) -> tuple[Reply, int | None]:
        """Send and receive within the time limit; never leaves a descriptor open behind an exception."""
        try:
            async with asyncio.timeout(self.timeout_s):
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    sock.setblocking(False)
                    loop = asyncio.get_running_loop()
                    await loop.sock_connect(sock, str(self.socket_path))
                    await loop.sock_sendall(sock, encode(request) + b"\n")
                    return await _receive(sock)
        except TimeoutError as error:
            raise CloudUnavailable("The local helper did not answer in time.", socket=str(self.socket_path)) from error
        except OSError as error:
            raise CloudUnavailable(
                f"The local helper cannot be reached ({error.strerror}); check that it runs.", socket=str(self.socket_path)
            ) from error
        except MalformedMessage as error:
            raise CloudUnavailable(f"The local helper answered nonsense: {error}") from error


def _raise_for_data(reply: Reply) -> None:
    if reply.error in ("not_found", "unknown_data"):
        raise NotFound(reply.detail)
    if reply.error == "denied":
        raise Forbidden(reply.detail)
    _raise_for(reply)


def _raise_for(reply: Reply) -> None:
    if not reply.error:
        return
    if reply.error == "not_supported":
        raise NotSupported(reply.detail)
    if reply.error in _UNAVAILABLE:
        raise CloudUnavailable(reply.detail)
    raise HelperRefused(reply.error, reply.detail)


async def _receive(sock: socket.socket) -> tuple[Reply, int | None]:
    """Receive one line and at most one descriptor; more than one is closed and refused."""
    descriptors: list[int] = []
    try:
        reply = decode(Reply, await _receive_line(sock, descriptors))
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return reply, (descriptors[0] if descriptors else None)


async def _receive_line(sock: socket.socket, descriptors: list[int]) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        chunk, fds = await _recvmsg(sock)
        descriptors += fds
        if not chunk:
            raise MalformedMessage("connection closed in the middle of an answer")
        received += chunk
        if len(received) > MAX_MESSAGE_BYTES or len(descriptors) > 1:
            raise MalformedMessage("answer too long")
    return bytes(received)


async def _recvmsg(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Wait for the next part of an answer; asyncio has no recvmsg of its own."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            data, ancillary, _flags, _address = sock.recvmsg(65536, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            readable = loop.create_future()
            loop.add_reader(sock, _wake(readable))
            try:
                await readable
            finally:
                loop.remove_reader(sock)
            continue
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        return data, list(fds)


def _wake(future: asyncio.Future[None]) -> Callable[[], None]:
    def wake() -> None:
        if not future.done():
            future.set_result(None)

    return wake
