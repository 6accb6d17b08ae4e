"""One connection of a browser: read requests one after the other, within bounds, answer them, and give way to a relay.

While a request is answered nothing more is read, so a browser can make us hold one head, one small body and one answer.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import structlog

from beamdesk.app.connections import Attached
from beamdesk.domain.errors import StreamUnavailable
from beamdesk.gateway.config import GatewaySettings
from beamdesk.gateway.head import Head, HttpError, parse_head
from beamdesk.gateway.relay import tie, tune
from beamdesk.gateway.reply import Reply, switching_protocols
from beamdesk.gateway.site import Site, Upgrade
from beamdesk.gateway.streams import Stream, Streams

_log = structlog.get_logger("beamdesk.gateway")
_END = b"\r\n\r\n"


class OpenStream(Protocol):
    """Opens the desktop's end of a stream: its transport, paused, and the first bytes that came."""

    async def __call__(self, attached: Attached, key: str) -> tuple[asyncio.Transport, bytes]:
        """Open it. Raises StreamUnavailable."""


class Hub:
    """What all connections of this process share."""

    def __init__(self, settings: GatewaySettings, site: Site, streams: Streams, open_stream: OpenStream) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.site = site
        self.streams = streams
        self.open_stream = open_stream
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()


class Connection(asyncio.Protocol):
    """See the module's text."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._head: Head | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the browser, or hang up when there are too many."""
        self.transport = transport = cast("asyncio.Transport", transport)
        if len(self._hub.connections) + len(self._hub.streams) >= self._hub.limits.connections:
            transport.abort()
            return
        self._hub.connections.add(self)
        tune(transport)
        self._arm(self._hub.limits.head_timeout_s)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forget the browser; an answer under way is not needed any more."""
        self._retire()
        if self._task is not None:
            self._task.cancel()

    def _retire(self) -> None:
        self._hub.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Collect a request."""
        if not self._buffer and self._head is None:
            self._arm(self._hub.limits.head_timeout_s)
        self._buffer += data
        if self._task is None:
            self._read_on()

    def _read_on(self) -> None:
        try:
            if self._head is None:
                self._read_head()
            if self._head is not None and len(self._buffer) >= self._head.content_length:
                self._begin(self._head)
        except HttpError as error:
            self._refuse(error)

    def _read_head(self) -> None:
        end = self._buffer.find(_END, 0, self._hub.limits.head_bytes)
        if end < 0:
            if len(self._buffer) >= self._hub.limits.head_bytes:
                raise HttpError(431, "the request's head is too long")
            return
        head = parse_head(bytes(self._buffer[:end]))
        if head.content_length > self._hub.limits.body_bytes:
            raise HttpError(413, "the request's body is too long")
        del self._buffer[: end + len(_END)]
        self._head = head
        if head.content_length:
            self._arm(self._hub.limits.body_timeout_s)

    def _begin(self, head: Head) -> None:
        body = bytes(self._buffer[: head.content_length])
        del self._buffer[: head.content_length]
        if head.field("upgrade") and self._buffer:
            raise HttpError(400, "nothing may follow a handshake before its answer")
        self.transport.pause_reading()
        self._arm(self._hub.limits.handling_timeout_s)
        self._task = self._loop.create_task(self._serve(head, body))
        self._hub.tasks.add(self._task)
        self._task.add_done_callback(self._hub.tasks.discard)

    async def _serve(self, head: Head, body: bytes) -> None:
        try:
            answer = await self._hub.site.answer(head, body)
            if isinstance(answer, Upgrade):
                await self._upgrade(answer)
            else:
                self._send(answer, head)
        except HttpError as error:
            self._refuse(error)
        except Exception:  # noqa: BLE001 - the outermost frame of a request: the browser learns nothing of a bug
            _log.exception("request.failed", path=head.path, desktop=head.desktop_id)
            self._refuse(HttpError(500, "something went wrong here"))

    def _send(self, reply: Reply, head: Head) -> None:
        keep = head.keep_alive and not reply.close
        secure = self._hub.settings.secure
        self.transport.write(reply.encode(secure=secure, keep_alive=keep, head_only=head.method == "HEAD"))
        self._head = self._task = None
        if not keep:
            self.transport.close()
            return
        self._arm(self._hub.limits.idle_timeout_s)
        self.transport.resume_reading()
        if self._buffer:
            self._read_on()

    def _refuse(self, error: HttpError) -> None:
        reply = Reply(error.status, f"{error.reason}\n".encode(), close=True)
        self.transport.write(reply.encode(secure=self._hub.settings.secure, keep_alive=False))
        self.transport.close()

    async def _upgrade(self, upgrade: Upgrade) -> None:
        session = upgrade.attached.session
        if self._hub.streams.count(session.id) >= self._hub.limits.streams_per_session:
            raise HttpError(429, "this session has too many streams")
        try:
            desktop, first = await self._hub.open_stream(upgrade.attached, upgrade.key)
        except StreamUnavailable as error:
            _log.info("stream.unavailable", desktop=session.desktop_id, session=session.id, **error.context)
            raise HttpError(503, "the desktop's screen does not answer yet") from error
        if self.transport.is_closing():
            desktop.abort()
            return
        self._hand_over(upgrade, desktop, first)

    def _hand_over(self, upgrade: Upgrade, desktop: asyncio.Transport, first: bytes) -> None:
        session = upgrade.attached.session
        self._retire()
        stream = Stream(session, upgrade.attached.address, self.transport, desktop)
        stream.side = tie(self.transport, desktop, self._hub.limits, lambda: self._closed(stream))
        self._hub.streams.add(stream)
        self.transport.write(switching_protocols(upgrade.key) + first)
        for transport in (self.transport, desktop):
            transport.resume_reading()
        _log.info("stream.opened", session=session.id, desktop=session.desktop_id, role=str(session.role))

    def _closed(self, stream: Stream) -> None:
        if self._hub.streams.discard(stream) and stream.side is not None:
            sent, received = stream.side.peer.bytes_in, stream.side.bytes_in
            _log.info("stream.closed", session=stream.session.id, desktop=stream.session.desktop_id, sent=sent, received=received)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.transport.abort)
