"""From a ticket to a session cookie: no silent sign-in as somebody else.

1. ``POST /open`` (from the portal's page): the ticket is spent on arrival and exchanged for one that lives two minutes, which
   goes into a cookie of its own. Only a form of exactly the portal's origin counts as coming from the portal.
2. ``GET /open``: the browser was sent here by the first answer. A form that came from the other site (the portal) brings no
   SameSite cookie along; this request does. If nobody else has a session in this browser, and the form came from the portal, the
   session is opened. Otherwise a page asks "continue as ...?".
3. ``POST /open/confirm``: the button of that page.

The cookie of step 1 opens nothing by itself, and each exchange spends what it was given: of two that race, one wins.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from beamdesk.app.connections import CONSENT_TTL, Opened, end_session, hold_ticket, open_session
from beamdesk.app.context import App
from beamdesk.domain.errors import TicketRefused
from beamdesk.domain.ids import DesktopId
from beamdesk.gateway.head import Head
from beamdesk.gateway.lookup import State, look
from beamdesk.gateway.pages import Pages
from beamdesk.gateway.reply import Reply, redirect

SESSION_COOKIE = "__Host-beamdesk"
_PENDING_COOKIE = "__Host-beamdesk-open"
_TICKET = re.compile(r"[A-Za-z0-9_-]{20,128}\Z")
_ASK, _GO = "ask", "go"
# Lax, not Strict: the browser comes from the portal, which may be another site, and must bring the cookie with that first GET.
_ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Lax"
FORGET_SESSION = ("Set-Cookie", f"{SESSION_COOKIE}=; Max-Age=0; {_ATTRIBUTES}")
_FORGET_PENDING = ("Set-Cookie", f"{_PENDING_COOKIE}=; Max-Age=0; {_ATTRIBUTES}")


def form_field(head: Head, body: bytes, name: str) -> str:
    """Return a field of a form; empty where it is absent, repeated, or the body is no form."""
    if head.field("content-type").split(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return ""
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=8)
    except (UnicodeDecodeError, ValueError):
        return ""
    values = [value for key, value in pairs if key == name]
    return values[0] if len(values) == 1 else ""


class Exchange:
    """The three steps."""

    def __init__(self, app: App, pages: Pages, portal_origin: str) -> None:
        self._app = app
        self._pages = pages
        self._portal_origin = portal_origin

    async def arrive(self, head: Head, body: bytes, language: str) -> Reply:
        """Step 1. Raises TicketRefused, StoreUnavailable."""
        origin = head.field("origin")
        if origin not in {self._portal_origin, "null", ""}:
            return self._pages.message(403, "wrong_origin", language)
        ticket = form_field(head, body, "ticket")
        if not _TICKET.match(ticket):
            raise TicketRefused("malformed")
        held = await hold_ticket(self._app, DesktopId(head.desktop_id), ticket)
        return redirect("/open", _pending(_GO if origin == self._portal_origin else _ASK, held.ticket))

    async def decide(self, head: Head, language: str) -> Reply:
        """Step 2. Raises TicketRefused, StoreUnavailable."""
        if head.query:
            return self._pages.message(403, "ticket_in_address", language)
        desktop_id = DesktopId(head.desktop_id)
        how, ticket = _read_pending(head)
        before = await look(self._app, desktop_id, head.cookie(SESSION_COOKIE))
        held = await hold_ticket(self._app, desktop_id, ticket)
        other = before.state in {State.OPEN, State.WAITING} and before.person is not None and before.person.id != held.person.id
        if how == _GO and not other:
            return await self._open(head, held.ticket)
        async with self._app.store.begin() as tx:
            desktop = await tx.desktops.get(desktop_id)
        name = desktop.name if desktop else ""
        return self._pages.consent(held.person.full_name, name, held.person.language, _pending(_ASK, held.ticket))

    async def confirm(self, head: Head, language: str) -> Reply:
        """Step 3. Raises TicketRefused, StoreUnavailable."""
        if head.field("origin") != self._app.desktop_origin(DesktopId(head.desktop_id)):
            return self._pages.message(403, "wrong_origin", language)
        return await self._open(head, _read_pending(head)[1])

    async def _open(self, head: Head, ticket: str) -> Reply:
        desktop_id = DesktopId(head.desktop_id)
        opened = await open_session(self._app, desktop_id, ticket)
        before = await look(self._app, desktop_id, head.cookie(SESSION_COOKIE))
        if before.session is not None and before.session.ended_at is None:
            await end_session(self._app, before.session, "replaced")
        return redirect("/", _session(opened), _FORGET_PENDING)


def _session(opened: Opened) -> tuple[str, str]:
    return "Set-Cookie", f"{SESSION_COOKIE}={opened.session.id}.{opened.secret}; {_ATTRIBUTES}"


def _pending(how: str, ticket: str) -> tuple[str, str]:
    max_age = int(CONSENT_TTL.total_seconds())
    return "Set-Cookie", f"{_PENDING_COOKIE}={how}.{ticket}; Max-Age={max_age}; {_ATTRIBUTES}"


def _read_pending(head: Head) -> tuple[str, str]:
    how, _, ticket = head.cookie(_PENDING_COOKIE).partition(".")
    if not _TICKET.match(ticket):
        raise TicketRefused("nothing is waiting")
    return how, ticket
