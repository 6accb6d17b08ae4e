"""My desktops, one desktop, and what can be done with it."""

from __future__ import annotations

import re
from hashlib import sha256
from http import HTTPStatus
from unicodedata import category

from starlette.responses import Response

from beamdesk.app import connections, desktops, remake, screens
from beamdesk.app.events import list_events
from beamdesk.domain.desktop import Phase
from beamdesk.domain.errors import CloudError, Conflict, Invalid, NotFound, NotSupported, Refused
from beamdesk.domain.ids import DesktopId
from beamdesk.portal.activity import entries
from beamdesk.portal.cards import Card, make_card
from beamdesk.portal.live import newest_event
from beamdesk.portal.say import error_text
from beamdesk.portal.security import file_headers
from beamdesk.portal.site import Handler, Visit, done, notice_header, redirect, render, status_of

_PICTURES = ("image/jpeg", "image/png")
_TERMINAL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[0-~])")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_NOTICES = ("stopped", "started", "extended", "renamed", "rebuilt", "resized", "deleted")
_ACTIONS = {
    "stop": desktops.stop,
    "start": desktops.start,
    "extend": desktops.extend,
    "rebuild": remake.rebuild,
    "delete": desktops.delete,
}
_DONE = {"stop": "stopped", "start": "started", "extend": "extended", "rebuild": "rebuilt", "delete": "deleted"}


async def home(_visit: Visit) -> Response:
    """Go to where everybody wants to be."""
    return redirect("/desktops")


async def show_list(visit: Visit) -> Response:
    """Show the desktops that the person may see, newest first, some at a time."""
    position = await newest_event(visit.app)
    after = visit.query("after")
    page = await desktops.list_desktops(
        visit.app, visit.caller, after=DesktopId(after) if after else None, limit=visit.site.settings.desktops_per_page
    )
    cards = [make_card(view, visit.caller.person.id, visit.say) for view in page.items]
    template = "desktops/grid.html" if visit.partial else "desktops/list.html"
    return render(
        visit, template, nav="desktops", cards=cards, next_after=page.next, position=position, after=after, notice=_notice(visit)
    )


async def show(visit: Visit) -> Response:
    """Show one desktop: progress, reasons, details, its events."""
    position = await newest_event(visit.app)
    card = await _card(visit)
    events = await list_events(visit.app, visit.caller, desktop_id=card.desktop.id, limit=12)
    template = "desktops/detail_live.html" if visit.partial else "desktops/detail.html"
    shown = await entries(visit, events)
    sees_console = visit.caller.person.is_operator and card.desktop.server_id is not None
    return render(
        visit,
        template,
        nav="desktops",
        card=card,
        entries=shown,
        position=position,
        notice=_notice(visit),
        sees_console=sees_console,
    )


async def show_card(visit: Visit) -> Response:
    """Return the card of one desktop; when it is gone, tell htmx to take the card away."""
    try:
        card = await _card(visit)
    except NotFound:
        return render(visit, "empty.html", headers={"HX-Reswap": "delete"})
    return render(visit, "desktops/card.html", card=card)


def ask(action: str) -> Handler:
    """Return the handler that asks before something is lost: a page of its own, or the inside of a dialog."""

    async def handler(visit: Visit) -> Response:
        card = await _card(visit)
        return _question(visit, card, action, name=card.desktop.name, origin=visit.query("from"))

    return handler


def _question(
    visit: Visit,
    card: Card,
    action: str,
    *,
    name: str,
    origin: str,
    error: str = "",
    status: int = HTTPStatus.OK,
    headers: dict[str, str] | None = None,
) -> Response:
    template = "desktops/ask.html" if visit.partial else "desktops/ask_page.html"
    origin = origin if origin == "detail" else ""
    return render(
        visit,
        template,
        status=status,
        headers=headers,
        nav="desktops",
        card=card,
        action=action,
        error=error,
        name=name,
        origin=origin,
    )


def act(action: str) -> Handler:
    """Return the handler that stops, starts, extends, rebuilds or deletes."""
    use_case, key = _ACTIONS[action], _DONE[action]

    async def handler(visit: Visit) -> Response:
        view = await use_case(visit.app, visit.caller, DesktopId(visit.path("id")))
        return _changed(visit, make_card(view, visit.caller.person.id, visit.say), key)

    return handler


async def rename(visit: Visit) -> Response:
    """Give the desktop another name; a bad one comes back with the reason beside it."""
    name = visit.form.get("name", "")
    try:
        view = await desktops.rename(visit.app, visit.caller, DesktopId(visit.path("id")), name)
    except Invalid as error:
        headers = {"HX-Retarget": "#dialog-body", "HX-Reswap": "innerHTML"} if visit.partial else {}
        status = HTTPStatus.OK if visit.partial else HTTPStatus.BAD_REQUEST
        problem, origin = error_text(visit.words, error), visit.form.get("from", "")
        card = await _card(visit)
        return _question(visit, card, "rename", name=name, origin=origin, error=problem, status=status, headers=headers)
    return _changed(visit, make_card(view, visit.caller.person.id, visit.say), "renamed")


def _changed(visit: Visit, card: Card, key: str) -> Response:
    from_detail = visit.form.get("from") == "detail"
    if visit.partial and not from_detail:
        text = visit.words(f"notice.{key}", name=card.desktop.name)
        return render(visit, "desktops/card.html", card=card, headers=notice_header(text))
    target = f"/desktops/{card.desktop.id}" if from_detail and key != "deleted" else "/desktops"
    if visit.partial:
        return Response(headers={"HX-Redirect": f"{target}?notice={key}"})
    return done(key, target)


async def thumbnail(visit: Visit) -> Response:
    """Return the newest picture of the desktop's screen to those who may open it, and to nobody else."""
    try:
        content_type, image = await screens.thumbnail(visit.app, visit.caller, DesktopId(visit.path("id")))
    except Refused as error:
        return Response(status_code=status_of(error), headers=file_headers() | {"Cache-Control": "no-store"})
    tag = f'"{sha256(image).hexdigest()[:32]}"'
    headers = file_headers() | {"ETag": tag, "Cache-Control": "private, no-cache", "Content-Disposition": "inline"}
    if visit.request.headers.get("if-none-match") == tag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(image, media_type=content_type if content_type in _PICTURES else "application/octet-stream", headers=headers)


async def console(visit: Visit) -> Response:
    """Show operators the last lines of the server's console: why a machine did not come up, in its own words."""
    card = await _card(visit)
    return await _console(visit, card)


async def screen(visit: Visit) -> Response:
    """Give operators the way to the server's own screen: a link on the console's page, shown once."""
    card = await _card(visit)
    try:
        address = await screens.screen(visit.app, visit.caller, card.desktop.id)
    except (Conflict, NotSupported, CloudError) as error:
        return await _console(visit, card, problem=error_text(visit.words, error), status=status_of(error))
    return await _console(visit, card, screen=address)


async def _console(visit: Visit, card: Card, *, screen: str = "", problem: str = "", status: int = HTTPStatus.OK) -> Response:
    text = clean_console(await screens.console(visit.app, visit.caller, card.desktop.id))
    shows_screens = visit.app.screen is not None and card.desktop.phase is not Phase.READY
    return render(
        visit,
        "desktops/console.html",
        status=status,
        nav="desktops",
        card=card,
        text=text,
        screen=screen,
        problem=problem,
        shows_screens=shows_screens,
    )


def clean_console(text: str) -> str:
    """Return console output as it may be shown: without terminal sequences and control characters, which a desktop may write."""
    plain = _TERMINAL_SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in plain if char in "\n\t" or category(char) not in _HIDDEN)


async def connect(visit: Visit) -> Response:
    """Fetch a ticket and return the page that posts it to the desktop's own origin."""
    card = await _card(visit)
    connection = await connections.connect(visit.app, visit.caller, card.desktop.id)
    origin = visit.app.desktop_origin(card.desktop.id)
    return render(
        visit,
        "desktops/connect.html",
        form_target=origin,
        referrer="strict-origin",
        headers={"Cross-Origin-Opener-Policy": "unsafe-none"},
        card=card,
        connection=connection,
    )


async def _card(visit: Visit) -> Card:
    view = await desktops.get_desktop(visit.app, visit.caller, DesktopId(visit.path("id")))
    return make_card(view, visit.caller.person.id, visit.say)


def _notice(visit: Visit) -> str:
    key = visit.query("notice")
    return visit.words(f"notice.{key}_plain") if key in _NOTICES else ""
