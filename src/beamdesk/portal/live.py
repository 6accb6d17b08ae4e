"""Live updates: one stream of hints per open page. A hint says which desktop changed; the page fetches the part it shows anew.

The stream ends when the login ends. It never carries what happened, only that something did, so that policy is applied in one
place.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from beamdesk.app.context import App
from beamdesk.app.events import follow
from beamdesk.app.logins import identify
from beamdesk.domain.errors import BeamdeskError, NotSignedIn, TooManyRequests
from beamdesk.domain.events import Event, EventKind
from beamdesk.domain.ids import DesktopId, EventId
from beamdesk.portal.site import Visit

_LIST_CHANGES = {EventKind.DESKTOP_CREATED, EventKind.DESKTOP_DELETED}
_GATHER_S = 0.05
"""A moment to gather what comes together: one change of a desktop is often several events."""


async def newest_event(app: App) -> EventId:
    """Return the position from which a page that is rendered now must listen, so that it misses nothing."""
    async with app.store.begin() as tx:
        return await tx.events.last_id()


class Streams:
    """Counts open streams per login: a broken page must not eat the server."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: Counter[str] = Counter()

    def enter(self, login_id: str) -> None:
        """Count one more.

        Raises:
            TooManyRequests: this login has too many.
        """
        if self._open[login_id] >= self._limit:
            raise TooManyRequests("Too many pages of this sign-in are open. Close some of them.", retry_after_s=30)
        self._open[login_id] += 1

    def leave(self, login_id: str) -> None:
        """Count one less."""
        self._open[login_id] -= 1
        if self._open[login_id] <= 0:
            del self._open[login_id]


class Live:
    """The endpoint `/live`."""

    def __init__(self, streams: Streams, idle_s: float) -> None:
        self._streams = streams
        self._idle_s = idle_s

    async def __call__(self, visit: Visit) -> Response:
        """Open the stream, from `Last-Event-ID` or the page's own position on."""
        position = _position(visit.request.headers.get("last-event-id", "")) or _position(visit.query("after"))
        desktop = visit.query("desktop")
        self._streams.enter(visit.caller.login_id)
        return StreamingResponse(
            self._stream(visit, position, DesktopId(desktop) if desktop else None),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"},
        )

    async def _stream(self, visit: Visit, after: EventId | None, desktop: DesktopId | None) -> AsyncIterator[str]:
        feed = follow(visit.app, visit.caller, after=after, desktop_id=desktop, idle_s=self._idle_s)
        try:
            yield "retry: 2000\n\n"
            async for batch in feed:
                await identify(visit.app, visit.secret)
                for message in messages(batch):
                    yield message
                await asyncio.sleep(_GATHER_S)
        except NotSignedIn:
            yield "event: ended\ndata: {}\n\n"
        except BeamdeskError:
            yield "event: trouble\ndata: {}\n\n"  # the page connects again by itself
        finally:
            self._streams.leave(visit.caller.login_id)


def messages(batch: tuple[Event, ...]) -> list[str]:
    """Return what a batch of events says to a page: each desktop once, with the newest event's id; a heartbeat when it is empty."""
    if not batch:
        return ["event: tick\ndata: {}\n\n"]
    newest: dict[DesktopId, EventId] = {event.desktop_id: event.id for event in batch if event.desktop_id}
    texts = [
        f"id: {event_id}\nevent: desktop-changed\ndata: {json.dumps({'desktop': desktop})}\n\n"
        for desktop, event_id in sorted(newest.items(), key=lambda item: item[1])
    ]
    if any(event.kind in _LIST_CHANGES for event in batch):
        texts.append("event: list-changed\ndata: {}\n\n")
    texts.append(f"id: {batch[-1].id}\nevent: activity-changed\ndata: {{}}\n\n")
    return texts


def _position(text: str) -> EventId | None:
    return EventId(int(text)) if text.isascii() and text.isdigit() and len(text) < 19 else None
