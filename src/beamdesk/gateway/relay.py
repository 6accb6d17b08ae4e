"""Two transports tied together: what comes in on one goes out on the other, untouched.

Frames are never parsed: a frame-aware relay in Python costs three to four times the CPU of forwarding bytes, and forwarding bytes
costs what nginx costs. A slow reader stops its sender: a full write buffer on one side pauses reading on the other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from beamdesk.gateway.config import Limits


class RelaySide(asyncio.Protocol):
    """One end of a relayed stream."""

    __slots__ = ("_closed", "bytes_in", "peer", "transport")

    def __init__(self, transport: asyncio.Transport, closed: Callable[[], None]) -> None:
        self.transport = transport
        self.peer: RelaySide = self
        self.bytes_in = 0
        self._closed = closed

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self.bytes_in += len(data)
        self.peer.transport.write(data)

    def pause_writing(self) -> None:
        """Stop the other side's sender: this side's reader is slow."""
        self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the other side's sender go on."""
        self.peer.transport.resume_reading()

    def eof_received(self) -> bool:
        """End both directions: a WebSocket has no half-open state."""
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        """Let what is on its way to the other side arrive, then end that too."""
        if not self.peer.transport.is_closing():
            self.peer.transport.close()
        self._closed()


def tie(browser: asyncio.Transport, desktop: asyncio.Transport, limits: Limits, closed: Callable[[], None]) -> RelaySide:
    """Tie both transports; returns the browser's side. ``closed`` is called once for each end that went away."""
    near, far = RelaySide(browser, closed), RelaySide(desktop, closed)
    near.peer, far.peer = far, near
    for side in (near, far):
        side.transport.set_write_buffer_limits(high=limits.write_high, low=limits.write_low)
        tune(side.transport)
        side.transport.set_protocol(side)
    return near


def tune(transport: asyncio.Transport) -> None:
    """Send at once, and notice within a minute when the other machine has silently gone."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 45_000)
