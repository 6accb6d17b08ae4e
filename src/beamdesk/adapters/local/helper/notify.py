"""Learn the first process of each container from systemd-nspawn, over the socket that sd_notify(3) describes."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
from pathlib import Path

from beamdesk.adapters.local.helper.errors import HelperError

_LEADER = re.compile(rb"^X_NSPAWN_LEADER_PID=([0-9]{1,10})$", re.MULTILINE)
_CREDENTIALS = struct.Struct("3i")


class Leaders:
    """Waits for the leaders of containers; only the supervisor itself can name its own."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        self._path = path
        self._waiting: dict[int, asyncio.Future[int]] = {}
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def expect(self, supervisor: int) -> asyncio.Future[int]:
        """Return the future process id of the first process in the container of ``supervisor``."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[supervisor] = future
        future.add_done_callback(lambda _future: self._waiting.pop(supervisor, None))
        return future

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            data, ancillary, _flags, _address = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        except OSError:
            return
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                sender, uid, _gid = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])
                future = self._waiting.get(sender)
                found = _LEADER.search(data)
                if uid == 0 and found and future and not future.done():
                    future.set_result(int(found.group(1)))


def open_leader(leader: int, supervisor: int) -> int | None:
    """Return a pidfd of ``leader``; None when it has ended.

    Raises:
        HelperError: ``failed``, when it is not the supervisor's child: then nobody knows what runs.
    """
    try:
        pidfd = os.pidfd_open(leader)
    except ProcessLookupError:
        return None
    try:
        fields = Path(f"/proc/{leader}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        os.close(pidfd)
        return None
    if int(fields[1]) == supervisor or fields[0] in (b"Z", b"X"):
        return pidfd
    os.close(pidfd)
    raise HelperError("failed", "The container's first process is not its supervisor's.")
