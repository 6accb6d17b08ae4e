"""What happened: pages of events, and the live stream (server-sent events, WHATWG HTML section 9.2)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from beamdesk.api.callers import Application, DesktopIdPath, DesktopIdQuery, SignedIn, credential
from beamdesk.api.models import LINK_HEADER, Limit, Page, Time, answer_page
from beamdesk.api.problems import documented
from beamdesk.app import desktops, events, logins
from beamdesk.app.context import App
from beamdesk.app.logins import Caller
from beamdesk.domain import events as domain
from beamdesk.domain.errors import BeamdeskError, TooManyRequests
from beamdesk.domain.ids import DesktopId, EventId

router = APIRouter(tags=["events"])

MAX_STREAMS_PER_LOGIN: Final = 8
HEARTBEAT_S: Final = 15.0
_MAX_ID: Final = 2**53


class Event(BaseModel):
    """Something that happened. ``id`` grows in the order of happening."""

    id: int = Field(examples=[4711])
    at: Time
    kind: domain.EventKind
    actor: str | None = Field(description="Id of the person who did it; null: the system.", examples=["ada"])
    desktop_id: str | None = Field(examples=["d2k7x0q4m1n8p5r3"])
    experiment: str | None = Field(examples=["heps-2026-0147"])
    data: dict[str, str | int | float | bool | None] = Field(examples=[{"phase": "ready"}])

    @classmethod
    def of(cls, event: domain.Event) -> Event:
        """Return the wire shape."""
        return cls(
            id=event.id,
            at=event.at,
            kind=event.kind,
            actor=event.actor,
            desktop_id=event.desktop_id,
            experiment=event.experiment,
            data=dict(event.data),
        )


Cursor = Annotated[str | None, Query(pattern=r"^[1-9][0-9]{0,15}$", description="`next` of the page before.")]


async def _page(
    request: Request, app: App, caller: Caller, desktop_id: DesktopId | None, limit: int, cursor: str | None
) -> Response:
    before = EventId(int(cursor)) if cursor else None
    found = await events.list_events(app, caller, desktop_id=desktop_id, before=before, limit=limit + 1)
    following = str(found[limit - 1].id) if len(found) > limit else None
    return answer_page(request, Page[Event](items=[Event.of(event) for event in found[:limit]], next=following))


@router.get(
    "/events",
    response_model=Page[Event],
    responses={**documented("not_found"), 200: {"headers": LINK_HEADER}},
    summary="Events",
)
async def list_events(
    request: Request,
    app: Application,
    caller: SignedIn,
    limit: Limit = 50,
    cursor: Cursor = None,
    desktop: DesktopIdQuery = None,
) -> Response:
    """Return own events and those of own experiments' desktops, newest first; all of them to operators."""
    return await _page(request, app, caller, desktop, limit, cursor)


@router.get(
    "/desktops/{desktop_id}/events",
    response_model=Page[Event],
    responses={**documented("not_found"), 200: {"headers": LINK_HEADER}},
    summary="Events of a desktop",
)
async def desktop_events(
    request: Request, app: Application, caller: SignedIn, desktop_id: DesktopIdPath, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """Return what happened to a desktop, newest first."""
    return await _page(request, app, caller, desktop_id, limit, cursor)


class Streams:
    """Counts the open streams of each login, so that one login cannot hold all connections of the server."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def enter(self, login_id: str) -> None:
        """Count one more.

        Raises:
            TooManyRequests: the login has as many as it may.
        """
        if self._open[login_id] >= MAX_STREAMS_PER_LOGIN:
            raise TooManyRequests("Too many event streams are open for this sign-in. Close a tab.", retry_after_s=5)
        self._open[login_id] += 1

    def leave(self, login_id: str) -> None:
        """Count one less."""
        self._open[login_id] -= 1
        if self._open[login_id] <= 0:
            del self._open[login_id]


class EventStream(StreamingResponse):
    """A stream that counts itself out however it ends, also when its first byte was never asked for."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[str], streams: Streams, login_id: str) -> None:
        super().__init__(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._streams = streams
        self._login_id = login_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; when the server stops (it cancels what is still open) end it as if nothing more happened."""
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.leave(self._login_id)


@router.get(
    "/events/stream",
    response_class=StreamingResponse,
    responses={
        **documented("not_found", "too_many_requests"),
        200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
    },
    summary="Live events",
)
async def stream(
    request: Request,
    app: Application,
    caller: SignedIn,
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", max_length=32, description="Go on after this event; anything but a number: from now."),
    ] = None,
    after: Annotated[int | None, Query(ge=0, le=_MAX_ID, description="The same for a first request.")] = None,
    desktop: DesktopIdQuery = None,
) -> Response:
    """Send events as they happen (`id`, `event` = kind, `data` = an event as in `GET /events`), until the sign-in ends."""
    if desktop is not None:
        await desktops.get_desktop(app, caller, desktop)
    position = int(last_event_id) if last_event_id and last_event_id.isdecimal() and last_event_id.isascii() else after
    start = EventId(min(position, _MAX_ID)) if position is not None else None
    streams: Streams = request.app.state.streams
    streams.enter(caller.login_id)
    return EventStream(_lines(app, credential(request).secret, caller, start, desktop), streams, caller.login_id)


async def _lines(app: App, secret: str, caller: Caller, after: EventId | None, desktop: DesktopId | None) -> AsyncIterator[str]:
    """Yield the stream; a comment when nothing happened for a while, and an end when the sign-in or the database ends."""
    yield "retry: 1000\n\n"
    try:
        async for batch in events.follow(app, caller, after=after, desktop_id=desktop, idle_s=HEARTBEAT_S):
            await logins.identify(app, secret)
            yield "".join(_line(event) for event in batch) or ": nothing new\n\n"
    except BeamdeskError:  # the headers are out: ending the stream is the answer, and the client's next try gets the reason
        return


def _line(event: domain.Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {Event.of(event).model_dump_json()}\n\n"
