"""The open streams of this gateway, and the feed that cuts them when their right to be open ends.

Polled four times a second with two indexed queries, whatever the number of streams: which of these sessions ended, and what has
happened since the last look. Only desktops named there are read again (and all of them every few seconds, in case).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from beamdesk.app.context import App
from beamdesk.domain.desktop import Desktop, Phase
from beamdesk.domain.ids import DesktopId, EventId, SessionId
from beamdesk.domain.session import Session
from beamdesk.gateway.relay import RelaySide

_log = structlog.get_logger("beamdesk.gateway")
_EVENTS_A_POLL = 200
_LOOK_AT_ALL_EVERY_S = 5.0


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
        self._fresh: set[DesktopId] = set()

    def __len__(self) -> int:
        return sum(len(streams) for streams in self._by_session.values())

    def count(self, session_id: SessionId) -> int:
        """Return how many streams a session has."""
        return len(self._by_session.get(session_id, ()))

    def add(self, stream: Stream) -> None:
        """Register a stream; its desktop is looked at in the next poll, as events before now may have been missed."""
        self._by_session[stream.session.id].add(stream)
        self._fresh.add(stream.session.desktop_id)

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

    def take_fresh(self) -> frozenset[DesktopId]:
        """Return the desktops that got a stream since the last call."""
        fresh, self._fresh = frozenset(self._fresh), set()
        return fresh

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
        self._cursor: EventId | None = None
        self._looked_at_all = 0.0
        self._away_since: float | None = None

    async def run(self) -> None:
        """Poll for ever; with no stream open nothing is asked."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._poll_s)
            if not len(self._streams):
                self._cursor = self._away_since = None
                continue
            try:
                async with asyncio.timeout(max(5.0, self._poll_s)):
                    await self.poll(loop.time())
                self._away_since = None
            except Exception as error:  # noqa: BLE001 - the outermost frame: whatever fails, the next poll comes
                self._store_away(loop.time(), error)

    def _store_away(self, now: float, error: Exception) -> None:
        self._cursor = None  # when it is back, look at everything
        if self._away_since is None:
            self._away_since = now
            _log.warning("store.away", error=type(error).__name__, grace_s=self._grace_s)
        if now - self._away_since >= self._grace_s:
            self._streams.cut(self._streams.all(), "store_away")

    async def poll(self, now: float) -> None:
        """Look once; ``now`` is the event loop's time."""
        async with self._app.store.begin() as tx:
            ended = await tx.sessions.ended_among(self._streams.sessions(), self._app.clock.now())
            if self._cursor is None or now - self._looked_at_all >= _LOOK_AT_ALL_EVERY_S:
                self._cursor, self._looked_at_all = await tx.events.last_id(), now
                suspects = self._streams.desktops()
            else:
                events = await tx.events.page(after=self._cursor, limit=_EVENTS_A_POLL, newest_first=False)
                self._cursor = events[-1].id if events else self._cursor
                named = {event.desktop_id for event in events if event.desktop_id is not None}
                everything = len(events) == _EVENTS_A_POLL
                suspects = self._streams.desktops() & (self._streams.desktops() if everything else named)
            suspects |= self._streams.take_fresh()
            desktops = {desktop_id: await tx.desktops.get(desktop_id) for desktop_id in suspects}
        reasons = {session.id: session.end_reason or "expired" for session in ended}
        for stream in self._streams.all():
            reason = reasons.get(stream.session.id)
            if reason is None and stream.session.desktop_id in desktops:
                reason = why_not(desktops[stream.session.desktop_id], stream.address)
            if reason is not None:
                self._streams.cut((stream,), reason)


def why_not(desktop: Desktop | None, address: str) -> str | None:
    """Return why a stream to ``address`` may not go on; None = it may."""
    if desktop is None:
        return "deleted"
    if desktop.phase is not Phase.READY:
        return f"phase_{desktop.phase}"
    return None if desktop.address == address else "moved"
