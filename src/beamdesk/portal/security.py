"""The portal's defences, each a small pure function: headers, cookies, origin and token checks, safe redirects, bounded forms.

CSRF is refused twice: a request that changes something must come from our own origin (`Origin`, or `Sec-Fetch-Site` where a browser
sends none), and a form of a signed-in person carries a token derived from the login's secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request

from beamdesk.domain.errors import Forbidden, Invalid
from beamdesk.portal.config import PortalSettings

MAX_FORM_BYTES = 16 * 1024
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
    "manifest-src 'self'; form-action 'self'{form}; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)
FILE_CSP = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""For bytes that a person or an instrument wrote: nothing in them runs, whatever type a browser makes of them."""


def page_headers(settings: PortalSettings, *, form_target: str = "", referrer: str = "same-origin") -> dict[str, str]:
    """Return the headers of every page. ``form_target``: one more origin to which a form of this page may be posted."""
    headers = {
        "Content-Security-Policy": _PAGE_CSP.format(form=f" {form_target}" if form_target else ""),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": referrer,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
        "Cache-Control": "no-store",
    }
    if settings.secure:
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return headers


def file_headers() -> dict[str, str]:
    """Return the headers of a user's file, picture or preview."""
    return {
        "Content-Security-Policy": FILE_CSP,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def csrf_token(secret: str) -> str:
    """Return the form token of a login: derived from its secret, so that it needs no storage and dies with the login."""
    return hmac.new(secret.encode(), b"beamdesk csrf v1", hashlib.sha256).hexdigest()


def check_csrf(secret: str, form: Mapping[str, str]) -> None:
    """Compare the form's token in constant time.

    Raises:
        Forbidden: missing or wrong.
    """
    if not hmac.compare_digest(csrf_token(secret).encode(), form.get("csrf", "").encode()):
        raise Forbidden("This form is too old or did not come from this site. Open the page again and repeat.")


def check_origin(request: Request, settings: PortalSettings) -> None:
    """Refuse a request that changes something and does not come from our own pages.

    Raises:
        Forbidden: another origin, or none at all from a browser that does not vouch for it.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin != settings.portal_origin and (origin is not None or site != "same-origin"):
        raise Forbidden("This request did not come from this site, so nothing was done. Open the page again and repeat.")


def safe_next(target: str | None, default: str = "/desktops") -> str:
    """Return a path of this site, never another site: browsers read a second slash, a backslash and controls as one."""
    if not target or len(target) > 2000 or not target.startswith("/") or target[1:2] in {"/", "\\"}:
        return default
    if any(ord(character) < 0x21 or character == "\\" or ord(character) == 0x7F for character in target):
        return default
    parts = urlsplit(target)
    return default if parts.scheme or parts.netloc else target


async def read_form(request: Request) -> dict[str, str]:
    """Read a URL-encoded form of bounded size; of a repeated field the last value counts.

    Raises:
        Invalid: another media type, too large, too many fields, or not UTF-8.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise Invalid("This form is too large.")
    if not body:
        return {}
    if media_type != "application/x-www-form-urlencoded":
        raise Invalid("This is not a form of this site.")
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=32, errors="strict"))
    except ValueError as error:
        raise Invalid("This form cannot be read.") from error


def alias_of_loopback(host: str, settings: PortalSettings) -> bool:
    """Tell whether ``host`` is another name of this machine (127.0.0.1 for localhost) while the portal's own is one too."""
    aliases = {re.sub(r"^(localhost|127\.0\.0\.1|\[::1\])(?=:|$)", name, settings.host) for name in _LOOPBACK}
    return len(aliases) == len(_LOOPBACK) and host != settings.host and host in aliases
