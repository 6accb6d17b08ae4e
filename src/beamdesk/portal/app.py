"""Assembles the portal: which page is where. Mount it at `/`, beneath it the API; no rule lives here."""

from __future__ import annotations

from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from beamdesk.app.context import App
from beamdesk.app.data import Data
from beamdesk.portal import (
    activity,
    bookings,
    data,
    desktops,
    fleet,
    history,
    live,
    new_desktop,
    preferences,
    previews,
    resize,
    signin,
    use,
)
from beamdesk.portal.config import PortalSettings
from beamdesk.portal.site import STATIC, Handler, Site, failure_page

_CHANGES = ("stop", "start", "extend", "rebuild", "delete")
_ASKED = ("stop", "rebuild", "delete", "rename")


def create_portal(app: App, settings: PortalSettings, files: Data | None = None) -> Starlette:
    """Return the portal as an ASGI application; without ``files`` its data pages say that this site serves none."""
    site = Site(app, settings, files)

    async def unexpected(request: Request, _error: Exception) -> Response:
        return failure_page(site.stranger(request), HTTPStatus.INTERNAL_SERVER_ERROR)

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
        return failure_page(site.stranger(request), status)

    return Starlette(routes=_routes(site), exception_handlers={HTTPException: refused, Exception: unexpected})


def _routes(site: Site) -> list[Route | Mount]:
    stream = live.Live(live.Streams(site.settings.streams_per_login), site.settings.live_idle_s)
    return [
        _get(site, "/", desktops.home),
        Route("/sign-in", site.page(signin.show, public=True), methods=["GET"]),
        Route("/sign-in", site.action(signin.submit, public=True), methods=["POST"]),
        _post(site, "/sign-out", signin.leave),
        Route("/language", site.action(preferences.choose_language, public=True), methods=["POST"]),
        Route("/theme", site.action(preferences.choose_theme, public=True), methods=["POST"]),
        _get(site, "/desktops", desktops.show_list),
        _post(site, "/desktops", new_desktop.submit),
        _get(site, "/desktops/new", new_desktop.show),
        _get(site, "/desktops/use", use.show_list),
        _get(site, "/desktops/{id}", desktops.show),
        _get(site, "/desktops/{id}/use", use.show_one),
        _get(site, "/desktops/{id}/card", desktops.show_card),
        _get(site, "/desktops/{id}/thumbnail", desktops.thumbnail),
        _get(site, "/desktops/{id}/console", desktops.console),
        _post(site, "/desktops/{id}/screen", desktops.screen),
        _get(site, "/desktops/{id}/why", fleet.show_why),
        _get(site, "/hosts", fleet.show_hosts),
        _get(site, "/hosts/{name}", history.show),
        _get(site, "/bookings", bookings.show),
        _post(site, "/bookings", bookings.submit),
        _post(site, "/bookings/{booking}/cancel", bookings.cancel),
        *(_get(site, f"/desktops/{{id}}/ask/{action}", desktops.ask(action)) for action in _ASKED),
        *(_post(site, f"/desktops/{{id}}/{action}", desktops.act(action)) for action in _CHANGES),
        _post(site, "/desktops/{id}/rename", desktops.rename),
        _get(site, "/desktops/{id}/resize", resize.show),
        _post(site, "/desktops/{id}/resize", resize.submit),
        _post(site, "/desktops/{id}/connect", desktops.connect),
        _get(site, "/data", data.show_experiments),
        _get(site, "/data/{experiment}", data.show_folder),
        _get(site, "/data/{experiment}/view", previews.show),
        _get(site, "/data/{experiment}/download", data.download),
        _get(site, "/activity", activity.show),
        _get(site, "/live", stream),
        Mount("/static", _Static(directory=STATIC)),
    ]


def _get(site: Site, path: str, handler: Handler) -> Route:
    return Route(path, site.page(handler), methods=["GET"])


def _post(site: Site, path: str, handler: Handler) -> Route:
    return Route(path, site.action(handler), methods=["POST"])


class _Static(StaticFiles):
    """Static files: kept for ever when their address carries their version, checked again otherwise."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with the headers that files of ours need."""
        answer = await super().get_response(path, scope)
        kept = "public, max-age=31536000, immutable" if b"v=" in scope["query_string"] else "no-cache"
        answer.headers["Cache-Control"] = kept
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        answer.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        return answer
