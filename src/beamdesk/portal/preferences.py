"""Language and colours: remembered in cookies of this browser, changed by small forms in the header."""

from __future__ import annotations

from starlette.responses import Response

from beamdesk.domain.errors import Invalid
from beamdesk.portal.i18n import LANGUAGES
from beamdesk.portal.security import safe_next
from beamdesk.portal.site import LANGUAGE_COOKIE, THEME_COOKIE, THEMES, YEAR_S, Visit, redirect


async def choose_language(visit: Visit) -> Response:
    """Remember the language and show the same page in it."""
    return _remember(visit, LANGUAGE_COOKIE, visit.form.get("language", ""), tuple(LANGUAGES))


async def choose_theme(visit: Visit) -> Response:
    """Remember light or dark; without a choice the device decides."""
    return _remember(visit, THEME_COOKIE, visit.form.get("theme", ""), THEMES)


def _remember(visit: Visit, cookie: str, value: str, allowed: tuple[str, ...]) -> Response:
    if value not in allowed:
        raise Invalid("There is no such choice.")
    answer = redirect(safe_next(visit.form.get("next")))
    answer.set_cookie(cookie, value, max_age=YEAR_S, path="/", secure=visit.site.settings.secure, httponly=True, samesite="lax")
    return answer
