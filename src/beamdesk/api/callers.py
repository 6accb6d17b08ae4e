"""Who is asking: the bearer token of a program, or the portal's cookie of a browser. Everything else is nobody.

A cookie travels with requests that other sites forge, so a request that may change something needs, with a cookie, an ``Origin``
equal to the portal's. A token does not travel by itself and needs none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Final, cast

from fastapi import Depends, Path, Query, Request
from fastapi.security import APIKeyCookie, HTTPBearer

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.logins import Caller, identify, session_cookie
from beamdesk.domain.errors import Forbidden, NotSignedIn
from beamdesk.domain.ids import DesktopId, ExperimentId, ImageId

SESSION_COOKIE: Final = "beamdesk_session"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_BEARER = re.compile(r"bearer +([\x21-\x7e]{1,128}) *\Z", re.IGNORECASE)

_bearer_scheme = HTTPBearer(auto_error=False, scheme_name="token", description="The token that `POST /logins` returned.")
_cookie_scheme = APIKeyCookie(
    name=SESSION_COOKIE,
    auto_error=False,
    scheme_name="session",
    description="The portal's cookie (`__Host-beamdesk_session` by HTTPS); what changes something needs the portal's `Origin`.",
)


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret that a request carried, and whether a browser adds it by itself."""

    secret: str = field(repr=False)
    ambient: bool


async def application(request: Request) -> App:
    """Return the application that this API serves. A coroutine, as all dependencies here: others cost a hop to a thread."""
    return cast(App, request.app.state.beamdesk)


def credential(request: Request) -> Credential:
    """Return the request's credential; an ``Authorization`` header wins, also when it is wrong.

    Raises:
        NotSignedIn: there is none, or it is malformed.
    """
    header = request.headers.get("authorization")
    if header is not None:
        match = _BEARER.match(header)
        if match is None:
            raise NotSignedIn("Send the token of your sign-in as 'Authorization: Bearer TOKEN'.")
        return Credential(match[1], ambient=False)
    cookie = request.cookies.get(session_cookie(request.app.state.beamdesk.portal_origin), "")
    if not cookie or len(cookie) > 128:
        raise NotSignedIn("Sign in first.")
    return Credential(cookie, ambient=True)


async def signed_in(
    request: Request,
    app: Annotated[App, Depends(application)],
    _bearer: Annotated[object, Depends(_bearer_scheme)] = None,
    _cookie: Annotated[object, Depends(_cookie_scheme)] = None,
) -> Caller:
    """Return who is asking.

    Raises:
        NotSignedIn: nobody, or the sign-in ended. Forbidden: a page of another origin is asking with the person's cookie.
    """
    carried = credential(request)
    caller = await identify(app, carried.secret)
    if carried.ambient and request.method not in _SAFE_METHODS:
        async with audited(app, "cross_site_request", actor=caller.person.id):
            if not app.portal_origin or request.headers.get("origin") != app.portal_origin:
                raise Forbidden("This request does not come from a page of this portal.")
    return caller


Application = Annotated[App, Depends(application)]
SignedIn = Annotated[Caller, Depends(signed_in)]

_ID = r"^[a-z][a-z0-9]{0,31}$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
DesktopIdPath = Annotated[DesktopId, Path(pattern=_ID, description="Id of the desktop.", examples=["d2k7x0q4m1n8p5r3"])]
DesktopIdQuery = Annotated[DesktopId | None, Query(pattern=_ID, description="Only events of this desktop.")]
ExperimentIdPath = Annotated[ExperimentId, Path(pattern=_NAME, examples=["heps-2026-0147"])]
ImageIdQuery = Annotated[
    ImageId | None, Query(pattern=_NAME, description="What is on offer with this image.", examples=["imaging"])
]
ExperimentIdQuery = Annotated[
    ExperimentId | None, Query(pattern=_NAME, description="What is on offer for this experiment.", examples=["heps-2026-0147"])
]
