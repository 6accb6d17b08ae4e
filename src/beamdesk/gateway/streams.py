"""The open streams of this gateway, and the feed that cuts them when their right to be open ends.

Polled four times a second: which of these sessions ended, and which of these desktops are still ready at the same address. What the
store does not confirm is cut.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from beamdesk.app.context import App
from beamdesk.domain.ids import DesktopId, SessionId
from beamdesk.domain.session import Session
from beamdesk.gateway.relay import RelaySide

_log = structlog.get_logger("beamdesk.gateway")


@dataclass(eq=False, slots=True)
class Stream:
    """One relayed WebSocket: whose it is and where it leads."""

    session: Session
    address: str
    browser: asyncio.Transport
    desktop: asyncio.Transport
    side: RelaySide | None = None

    def cut(self) -> None:
        """End it at once: what a slow browser has not read yet is thrown away."""
        self.browser.abort()
        self.desktop.abort()


class Streams:
    """The registry. Not shared between processes: each gateway cuts its own."""

    def __init__(self) -> None:
        self._by_session: dict[SessionId, set[Stream]] = defaultdict(set)

    def __len__(self) -> int:
        return sum(len(streams) for streams in self._by_session.values())

    def count(self, session_id: SessionId) -> int:
        """Return how many streams a session has."""
        return len(self._by_session.get(session_id, ()))

    def add(self, stream: Stream) -> None:
        """Register a stream."""
        self._by_session[stream.session.id].add(stream)

    def discard(self, stream: Stream) -> bool:
        """Forget a stream that ended; tells whether it was known (a stream has two ends)."""
        streams = self._by_session.get(stream.session.id, set())
        known = stream in streams
        streams.discard(stream)
        if not streams:
            self._by_session.pop(stream.session.id, None)
        return known

    def all(self) -> tuple[Stream, ...]:
        """Return all streams."""
        return tuple(stream for streams in self._by_session.values() for stream in streams)

    def sessions(self) -> tuple[SessionId, ...]:
        """Return the sessions that have a stream."""
        return tuple(self._by_session)

    def desktops(self) -> frozenset[DesktopId]:
        """Return the desktops that have a stream."""
        return frozenset(stream.session.desktop_id for stream in self.all())

    def cut(self, streams: Iterable[Stream], reason: str) -> None:
        """Cut streams and say so in the log."""
        for stream in streams:
            _log.info("stream.cut", session=stream.session.id, desktop=stream.session.desktop_id, reason=reason)
            stream.cut()


class Watcher:
    """Polls the store and cuts. The store may be away for ``grace_s``; then every stream is cut, as nobody knows who may stay."""

    def __init__(self, app: App, streams: Streams, *, poll_s: float, grace_s: float) -> None:
        self._app = app
        self._streams = streams
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._away_since: float | None = None

    async def run(self) -> None:
        """Poll for ever; with no stream open nothing is asked."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._poll_s)
            if not len(self._streams):
                self._away_since = None
                continue
            try:
                async with asyncio.timeout(max(5.0, self._poll_s)):
                    await self.poll()
                self._away_since = None
            except Exception as error:  # noqa: BLE001 - the outermost frame: whatever fails, the next poll comes
                self._store_away(loop.time(), error)

    def _store_away(self, now: float, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = now
            _log.warning("store.away", error=type(error).__name__, grace_s=self._grace_s)
        if now - self._away_since >= self._grace_s:
            self._streams.cut(self._streams.all(), "store_away")

    async def poll(self) -> None:
        """Look once, with two indexed queries, whatever the number of streams."""
        async with self._app.store.begin() as tx:
            ended = await tx.sessions.ended_among(self._streams.sessions(), self._app.clock.now())
            asked = self._streams.desktops()
            addresses = await tx.desktops.ready_addresses(asked)
        reasons = {session.id: session.end_reason or "expired" for session in ended}
        for stream in self._streams.all():
            reason = reasons.get(stream.session.id)
            if reason is None and stream.session.desktop_id in asked and addresses.get(stream.session.desktop_id) != stream.address:
                reason = "desktop_gone"
            if reason is not None:
                self._streams.cut((stream,), reason)
