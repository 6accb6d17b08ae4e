"""The streaming server's door: makes it reachable for the gateway and finds out whether somebody answers behind it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from beamdesk.guest.accounts import Person
from beamdesk.guest.components import listen_address

TIMEOUT_S = 2.0
_REQUEST = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def prepare(listen: str, person: Person) -> None:
    """Let the person's streaming server make its socket in the folder the host shares with us."""
    kind, where, _port = listen_address(listen)
    if kind == "unix":
        folder = Path(where).parent
        folder.mkdir(parents=True, exist_ok=True)
        # the host may have made it so already and keep it from us
        with contextlib.suppress(PermissionError):
            os.chown(folder, person.uid, person.gid)


def open_to_gateway(listen: str) -> None:
    """Let the gateway's account connect to the socket; the folder it lies in and the secret keep everybody else out.

    The person owns the folder, so the socket is held by a descriptor that follows no link before its mode is touched.
    """
    kind, where, _port = listen_address(listen)
    if kind != "unix":
        return
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(where, os.O_PATH | os.O_NOFOLLOW)
        try:
            info = os.fstat(fd)
            if stat.S_ISSOCK(info.st_mode) and stat.S_IMODE(info.st_mode) != 0o666:
                Path(f"/proc/self/fd/{fd}").chmod(0o666)
        finally:
            os.close(fd)


def accepts(listen: str) -> bool:
    """Tell whether something accepts connections there."""
    try:
        _connect(listen).close()
    except OSError:
        return False
    return True


def answers(listen: str) -> bool:
    """Tell whether a server behind the socket answers requests (its event loop turns)."""
    try:
        with _connect(listen) as connection:
            connection.sendall(_REQUEST)
            return connection.recv(16).startswith(b"HTTP/1.1 ")
    except OSError:
        return False


def _connect(listen: str) -> socket.socket:
    kind, where, port = listen_address(listen)
    if kind == "tcp":
        return socket.create_connection((where, port), TIMEOUT_S)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    try:
        connection.connect(where)
    except OSError:
        connection.close()
        raise
    return connection
