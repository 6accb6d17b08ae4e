"""Sign in and out."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response

from beamdesk.app import logins
from beamdesk.domain.errors import NotSignedIn, TooManyRequests
from beamdesk.portal.say import error_text
from beamdesk.portal.security import safe_next
from beamdesk.portal.site import Visit, redirect, render, status_of

_LONGEST = 256


async def show(visit: Visit) -> Response:
    """Show the sign-in form, or go on when somebody is signed in already."""
    target = safe_next(visit.query("next"))
    if visit.signed_in is not None:
        return redirect(target)
    return _form(visit, target, ended=visit.query("ended") == "1")


async def submit(visit: Visit) -> Response:
    """Check name and password, set the session cookie and go on to where the person wanted to be."""
    target = safe_next(visit.form.get("next"))
    login, password = visit.form.get("login", "").strip(), visit.form.get("password", "")
    errors = {
        name: visit.words(f"sign_in.{name}_missing") for name, value in (("login", login), ("password", password)) if not value
    }
    if errors:
        return _form(visit, target, login=login[:_LONGEST], errors=errors, status=HTTPStatus.BAD_REQUEST)
    if len(login) > _LONGEST or len(password) > _LONGEST:
        return _form(visit, target, errors={"password": visit.words("sign_in.too_long")}, status=HTTPStatus.BAD_REQUEST)
    address = visit.request.client.host if visit.request.client else "local"
    try:
        signed_in = await logins.sign_in(visit.app, login, password, kind="browser", address=address)
    except (NotSignedIn, TooManyRequests) as error:
        return _form(visit, target, login=login, errors={"password": error_text(visit.words, error)}, status=status_of(error))
    if visit.signed_in is not None:
        await logins.sign_out(visit.app, visit.signed_in)
    answer = redirect(target)
    _set_session(visit, answer, signed_in.secret)
    return answer


async def leave(visit: Visit) -> Response:
    """End the login: its streams and live updates end with it."""
    await logins.sign_out(visit.app, visit.caller)
    answer = redirect("/sign-in?left=1")
    settings = visit.site.settings
    answer.delete_cookie(
        logins.session_cookie(settings.portal_origin), path="/", secure=settings.secure, httponly=True, samesite="lax"
    )
    answer.headers["Clear-Site-Data"] = '"cache"'
    return answer


def _set_session(visit: Visit, answer: Response, secret: str) -> None:
    settings = visit.site.settings
    answer.set_cookie(
        logins.session_cookie(settings.portal_origin),
        secret,
        max_age=int(visit.app.rules.login_ttl.total_seconds()),
        path="/",
        secure=settings.secure,
        httponly=True,
        samesite="lax",
    )


def _form(
    visit: Visit,
    target: str,
    *,
    login: str = "",
    errors: dict[str, str] | None = None,
    status: int = HTTPStatus.OK,
    ended: bool = False,
) -> Response:
    return render(
        visit,
        "sign_in.html",
        status=status,
        next=target,
        login=login,
        errors={"login": "", "password": ""} | (errors or {}),
        ended=ended,
        left=visit.query("left") == "1",
        possible=visit.app.sign_in is not None,
        nav="",
    )
