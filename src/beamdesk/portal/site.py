"""The frame around every page: who asks, in which language, rendering, and turning refusals into pages.

A handler is `async (Visit) -> Response`. It neither parses cookies nor sets security headers: `page` and `action` wrap it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, unquote, urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from beamdesk.app.context import App
from beamdesk.app.data import Data
from beamdesk.app.logins import Caller, identify, session_cookie
from beamdesk.domain.errors import (
    BeamdeskError,
    CloudUnavailable,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    NotSignedIn,
    NotSupported,
    QuotaExceeded,
    Refused,
    StoreUnavailable,
    TooManyRequests,
)
from beamdesk.portal.config import PortalSettings
from beamdesk.portal.i18n import DEFAULT, LANGUAGES, Words, known, negotiate, words_for
from beamdesk.portal.say import Say, error_text
from beamdesk.portal.security import (
    alias_of_loopback,
    check_csrf,
    check_origin,
    csrf_token,
    page_headers,
    read_form,
    safe_next,
)

STATIC = Path(__file__).parent / "static"
VENDORED = ("vendor/htmx-4.0.1.min.js", "vendor/hx-sse-4.0.1.min.js")
LANGUAGE_COOKIE = "beamdesk_language"
THEME_COOKIE = "beamdesk_theme"
ZONE_COOKIE = "beamdesk_zone"
"""Set by the script: the browser's time zone, so that times are local at once."""
THEMES = ("light", "dark")
YEAR_S = 365 * 24 * 3600

_STATUS: tuple[tuple[type[BeamdeskError], HTTPStatus], ...] = (
    (NotSignedIn, HTTPStatus.UNAUTHORIZED),
    (NotFound, HTTPStatus.NOT_FOUND),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (QuotaExceeded, HTTPStatus.CONFLICT),
    (Conflict, HTTPStatus.CONFLICT),
    (Invalid, HTTPStatus.BAD_REQUEST),
    (TooManyRequests, HTTPStatus.TOO_MANY_REQUESTS),
    (Refused, HTTPStatus.FORBIDDEN),
    (StoreUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (CloudUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (NotSupported, HTTPStatus.NOT_IMPLEMENTED),
)


@lru_cache(maxsize=256)
def known_zone(name: str) -> ZoneInfo | None:
    """Return a time zone by its IANA name, None for anything else."""
    try:
        return ZoneInfo(unquote(name)) if 0 < len(name) < 64 else None
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return None


def status_of(error: BeamdeskError) -> HTTPStatus:
    """Return the HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request with all that a handler needs. ``form`` is empty for a GET; ``secret`` is the session cookie's value."""

    site: Site
    request: Request
    words: Words
    theme: str
    signed_in: Caller | None
    secret: str = field(repr=False)
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def app(self) -> App:
        """Return the application."""
        return self.site.app

    @property
    def caller(self) -> Caller:
        """Return who is signed in.

        Raises:
            NotSignedIn: nobody is.
        """
        if self.signed_in is None:
            raise NotSignedIn("Your sign-in has ended. Sign in again.")
        return self.signed_in

    @property
    def partial(self) -> bool:
        """Tell whether htmx asks for a part of a page instead of a browser for the whole."""
        return self.request.headers.get("hx-request") == "true"

    @property
    def say(self) -> Say:
        """Return the words for times, sizes and states in the language of this visit."""
        return Say(self.words, self.app.clock.now(), known_zone(self.request.cookies.get(ZONE_COOKIE, "")))

    def query(self, name: str, default: str = "") -> str:
        """Return a query parameter."""
        return self.request.query_params.get(name, default)

    def path(self, name: str) -> str:
        """Return a path parameter."""
        return str(self.request.path_params[name])


Handler = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Site:
    """The application, its settings and its templates; ``data`` is None where this site serves no files."""

    app: App
    settings: PortalSettings
    data: Data | None = None

    @cached_property
    def templates(self) -> Environment:
        """Return the template environment: everything is escaped, an unknown name is an error."""
        environment = Environment(
            loader=PackageLoader("beamdesk.portal", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,  # an upgrade under a running process must not mix old code and new pages
        )
        environment.globals |= {"asset": self.asset, "settings": self.settings, "languages": LANGUAGES, "vendored": VENDORED}
        environment.filters["segment"] = lambda text: quote(str(text), safe="")
        return environment

    @cached_property
    def _versions(self) -> dict[str, str]:
        files = (path for path in STATIC.rglob("*") if path.is_file())
        return {str(path.relative_to(STATIC)): hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in files}

    def asset(self, name: str) -> str:
        """Return the address of a static file; it changes with its content, so that browsers may keep it for ever."""
        return f"/static/{name}?v={self._versions[name]}"

    def page(self, handler: Handler, *, public: bool = False) -> Endpoint:
        """Wrap a handler that shows something; ``public`` ones are shown to everybody."""

        async def endpoint(request: Request) -> Response:
            if alias_of_loopback(request.headers.get("host", ""), self.settings):
                target = f"{self.settings.portal_origin}{request.url.path}"
                return RedirectResponse(
                    f"{target}?{request.url.query}" if request.url.query else target, HTTPStatus.TEMPORARY_REDIRECT
                )
            return await self._answer(request, handler, public=public, changes=False)

        return endpoint

    def action(self, handler: Handler, *, public: bool = False) -> Endpoint:
        """Wrap a handler that changes something: own origin, bounded form, and token of the login where one is needed."""

        async def endpoint(request: Request) -> Response:
            return await self._answer(request, handler, public=public, changes=True)

        return endpoint

    async def _answer(self, request: Request, handler: Handler, *, public: bool, changes: bool) -> Response:
        visit = self.stranger(request)
        try:
            if changes:
                check_origin(request, self.settings)
            visit = await self._visit(request, form=await read_form(request) if changes else {})
            if not public:
                _ = visit.caller
            if changes and not public:
                check_csrf(visit.secret, visit.form)
            return await handler(visit)
        except NotSignedIn as error:
            return self._to_sign_in(visit) if not public else error_page(visit, error)
        except BeamdeskError as error:
            return error_page(visit, error)

    def stranger(self, request: Request) -> Visit:
        """Return a visit of nobody: for public pages and for errors before anybody is known."""
        return Visit(self, request, self._words(request, None), self._theme(request), None, "")

    async def _visit(self, request: Request, form: Mapping[str, str]) -> Visit:
        secret = request.cookies.get(session_cookie(self.settings.portal_origin), "")
        caller = None
        if secret:
            try:
                caller = await identify(self.app, secret)
            except NotSignedIn:
                secret = ""
        return Visit(self, request, self._words(request, caller), self._theme(request), caller, secret, form)

    def _words(self, request: Request, caller: Caller | None) -> Words:
        chosen = known(request.cookies.get(LANGUAGE_COOKIE)) or known(caller.person.language if caller else None)
        return words_for(chosen or negotiate(request.headers.get("accept-language", "")) or DEFAULT)

    def _theme(self, request: Request) -> str:
        theme = request.cookies.get(THEME_COOKIE, "")
        return theme if theme in THEMES else ""

    def _to_sign_in(self, visit: Visit) -> Response:
        url = visit.request.url
        here = f"{url.path}?{url.query}" if url.query else url.path
        came_from = safe_next(here if visit.request.method in {"GET", "HEAD"} and not visit.partial else None)
        ended = {"ended": "1"} if session_cookie(self.settings.portal_origin) in visit.request.cookies else {}
        target = "/sign-in?" + urlencode({"next": came_from, **ended})
        if visit.partial:
            return Response(status_code=HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": target})
        return RedirectResponse(target, HTTPStatus.SEE_OTHER)


def render(
    visit: Visit,
    template: str,
    *,
    status: int = HTTPStatus.OK,
    form_target: str = "",
    referrer: str = "same-origin",
    headers: Mapping[str, str] | None = None,
    **context: object,
) -> HTMLResponse:
    """Render a template with the words of the visit and the headers of every page."""
    url = visit.request.url
    text = visit.site.templates.get_template(template).render(
        t=visit.words,
        say=visit.say,
        zone=visit.say.zone,
        person=visit.signed_in.person if visit.signed_in else None,
        csrf=csrf_token(visit.secret) if visit.secret else "",
        theme=visit.theme,
        here=f"{url.path}?{url.query}" if url.query else url.path,
        partial=visit.partial,
        script_words={key[3:]: text for key, text in visit.words.entries.items() if key.startswith("js.")},
        **context,
    )
    answer = HTMLResponse(text, status, page_headers(visit.site.settings, form_target=form_target, referrer=referrer))
    answer.headers.update(headers or {})
    answer.headers["Content-Language"] = visit.words.tag
    answer.headers["Vary"] = "Cookie, Accept-Language, HX-Request"
    return answer


def redirect(target: str) -> RedirectResponse:
    """Send the browser to another page after a change."""
    return RedirectResponse(target, HTTPStatus.SEE_OTHER)


def done(key: str, target: str) -> Response:
    """Answer a form without JavaScript: go to ``target``, which shows the notice of ``key``."""
    separator = "&" if "?" in target else "?"
    return redirect(f"{target}{separator}{urlencode({'notice': key})}")


def notice_header(text: str) -> dict[str, str]:
    """Return the header that makes the page announce ``text`` after htmx changed a part of it."""
    return {"HX-Trigger": json.dumps({"notice": {"text": text}}, ensure_ascii=True)}


def error_page(visit: Visit, error: BeamdeskError) -> Response:
    """Return the page, or for htmx the announcement, that says what happened and what to do next."""
    status = status_of(error)
    text = error_text(visit.words, error)
    headers = {"Retry-After": str(error.context.get("retry_after_s", 5))} if status in {429, 503} else {}
    if visit.partial:
        problem = {"HX-Trigger": json.dumps({"problem": {"text": text}}, ensure_ascii=True), "HX-Reswap": "none"}
        return Response(status_code=status, headers=page_headers(visit.site.settings) | headers | problem)
    return failure_page(visit, status, text, headers=headers)


def failure_page(visit: Visit, status: int, text: str = "", *, headers: Mapping[str, str] | None = None) -> Response:
    """Return a friendly page for an HTTP status; without traceback, path or version."""
    key = str(int(status)) if visit.words.has(f"failure.{int(status)}.title") else "other"
    return render(visit, "failure.html", status=status, headers=headers, status_key=key, text=text, nav="")
