"""What each address of a desktop's origin answers. One desktop, one origin: the desktop is named by the Host alone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from beamdesk.app.connections import Attached, attach, end_session
from beamdesk.app.context import App
from beamdesk.app.desktops import extend
from beamdesk.app.logins import Caller
from beamdesk.domain.errors import Conflict, Refused, StoreUnavailable, TicketRefused
from beamdesk.domain.ids import DesktopId
from beamdesk.gateway.assets import Assets
from beamdesk.gateway.exchange import FORGET_SESSION, SESSION_COOKIE, Exchange
from beamdesk.gateway.head import Head, HttpError
from beamdesk.gateway.lookup import NOBODY, Look, State, look, split_cookie
from beamdesk.gateway.pages import Pages, session_json
from beamdesk.gateway.reply import Reply
from beamdesk.gateway.words import preferred_language

_log = structlog.get_logger("beamdesk.gateway")
_WEBSOCKET_PATH = "/api/websockets"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A WebSocket handshake that may go on."""

    attached: Attached
    key: str


class Site:
    """The routes."""

    def __init__(self, app: App, assets: Assets, portal_origin: str) -> None:
        self._app = app
        self._assets = assets
        self._portal = portal_origin + "/"
        self._pages = Pages(assets, portal_origin)
        self._exchange = Exchange(app, self._pages, portal_origin)
        self._routes: dict[tuple[str, str], Callable[[Head, bytes], Awaitable[Reply]]] = {
            ("GET", "/"): self._connect_page,
            ("POST", "/open"): self._open,
            ("GET", "/open"): self._open,
            ("POST", "/open/confirm"): self._open,
            ("GET", "/session"): self._session,
            ("POST", "/session/extend"): self._extend,
            ("POST", "/session/end"): self._end,
            ("GET", _WEBSOCKET_PATH): self._probe,
            ("GET", "/manifest.json"): self._manifest,
        }

    async def answer(self, head: Head, body: bytes) -> Reply | Upgrade:
        """Answer a request.

        Raises:
            HttpError: the host or the address is none of ours.
        """
        desktop_id = DesktopId(head.desktop_id)
        if urlsplit(self._app.desktop_origin(desktop_id)).netloc != head.host:
            raise HttpError(421, "no desktop has this host name")
        try:
            if head.path == _WEBSOCKET_PATH and head.field("upgrade"):
                return await self._upgrade(head)
            asset = self._assets.find(head.path) if head.method in {"GET", "HEAD"} else None
            if asset is not None:
                return asset.reply(accepts_gzip="gzip" in head.field("accept-encoding"))
            handler = self._routes.get(("GET" if head.method == "HEAD" else head.method, head.path))
            if handler is None:
                return self._pages.message(404, "not_found", _language(head))
            return await handler(head, body)
        except StoreUnavailable:
            return self._unavailable(head)
        except TicketRefused:
            _log.info("ticket.refused", desktop=head.desktop_id)
            return self._pages.message(403, "ticket_refused", _language(head))

    async def _upgrade(self, head: Head) -> Upgrade | Reply:
        desktop_id, key = DesktopId(head.desktop_id), head.field("sec-websocket-key")
        if not head.wants_websocket or not 16 <= len(key) <= 64 or any(letter in ' ,;"' for letter in key):
            raise HttpError(400, "not a WebSocket handshake of version 13")
        if head.field("origin") != self._app.desktop_origin(desktop_id):
            _log.info("stream.refused", desktop=desktop_id, reason="origin")
            return Reply(403, b"This stream can be opened from its own page only.\n", close=True)
        _, secret = split_cookie(head.cookie(SESSION_COOKIE))
        try:
            return Upgrade(await attach(self._app, desktop_id, secret), key)
        except TicketRefused:
            return Reply(403, b"The session has ended.\n", close=True)
        except Conflict:
            return Reply(503, b"The desktop is not running.\n", close=True)

    async def _connect_page(self, head: Head, _body: bytes) -> Reply:
        found = await self._look(head)
        language = found.person.language if found.person else _language(head)
        if found.state in {State.OPEN, State.WAITING}:
            return self._pages.connect(found, self._app.desktop_origin(DesktopId(head.desktop_id)), language)
        return self._pages.ended(found, language)

    async def _open(self, head: Head, body: bytes) -> Reply:
        language = _language(head)
        if head.path == "/open/confirm":
            return await self._exchange.confirm(head, language)
        if head.method == "POST":
            return await self._exchange.arrive(head, body, language)
        return await self._exchange.decide(head, language)

    async def _session(self, head: Head, _body: bytes) -> Reply:
        return self._tell(await self._look(head), head)

    async def _extend(self, head: Head, _body: bytes) -> Reply:
        found = await self._own_request(head)
        if found.state is State.OPEN and found.session and found.person and found.desktop:
            try:
                await extend(self._app, Caller(found.person, found.session.login_id), found.desktop.id)
            except Refused as refusal:
                return _json(409, {"code": refusal.code, "message": refusal.message})
        return self._tell(await self._look(head), head)

    async def _end(self, head: Head, _body: bytes) -> Reply:
        found = await self._own_request(head)
        if found.session is not None and found.session.ended_at is None:
            await end_session(self._app, found.session, "disconnected")
        return _json(200, {"portal": self._portal}, FORGET_SESSION)

    async def _probe(self, head: Head, _body: bytes) -> Reply:
        # The stream client asks here before it reconnects: 503 makes it wait, anything else makes it try.
        found = await self._look(head)
        return Reply(204 if found.state is State.OPEN else 503)

    async def _manifest(self, _head: Head, _body: bytes) -> Reply:
        return Reply(200, b"{}", _JSON, cache="public, max-age=86400")

    async def _look(self, head: Head) -> Look:
        return await look(self._app, DesktopId(head.desktop_id), head.cookie(SESSION_COOKIE))

    async def _own_request(self, head: Head) -> Look:
        if head.field("origin") != self._app.desktop_origin(DesktopId(head.desktop_id)):
            raise HttpError(403, "this can be asked from the desktop's own page only")
        return await self._look(head)

    def _tell(self, found: Look, head: Head) -> Reply:
        language = found.person.language if found.person else _language(head)
        return _json(200, session_json(found, self._portal, language))

    def _unavailable(self, head: Head) -> Reply:
        if head.path.startswith(("/session", "/api/")):
            return _json(503, session_json(NOBODY, self._portal, _language(head)) | {"state": "unknown"})
        return self._pages.message(503, "store_unavailable", _language(head))


def _language(head: Head) -> str:
    return preferred_language(head.field("accept-language"))


def _json(status: int, content: dict[str, object], *fields: tuple[str, str]) -> Reply:
    return Reply(status, json.dumps(content, ensure_ascii=False).encode(), _JSON, fields)
