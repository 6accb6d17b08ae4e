"""The HTML of the gateway and the policy under which a browser may show it."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from beamdesk.gateway.assets import Assets
from beamdesk.gateway.lookup import Look
from beamdesk.gateway.reply import Reply
from beamdesk.gateway.words import CONSENT_BUTTON, MESSAGES, page_words, why

_HTML = "text/html; charset=utf-8"
_SCRIPT_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def session_json(look: Look, portal: str, language: str) -> dict[str, Any]:
    """Return what the connect page is told of its session, again and again."""
    title, text = why(look, language)
    return {
        "state": str(look.state),
        "session": look.session.id if look.session else "",
        "name": look.desktop.name if look.desktop else "",
        "role": str(look.session.role) if look.session else "",
        "left_s": look.lease_left_s,
        "may_extend": look.may_extend,
        "title": title,
        "text": text,
        "portal": portal,
    }


class Pages:
    """Renders pages. ``portal`` is where "back to the portal" leads."""

    def __init__(self, assets: Assets, portal: str) -> None:
        self._assets = assets
        self._portal = portal + "/"
        self._environment = Environment(
            loader=PackageLoader("beamdesk.gateway", "templates"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,  # an upgrade under a running process must not mix old code and new pages
        )

    def connect(self, look: Look, origin: str, language: str) -> Reply:
        """Return the page that shows the desktop."""
        boot = {
            "words": page_words(language),
            "look": session_json(look, self._portal, language),
            "client": f"{self._assets.client}/selkies-core.js",
            "worklet": f"{self._assets.client}/audio-worklet.js",
        }
        body = self._render(
            "connect.html",
            language=language,
            client=self._assets.client,
            boot=json.dumps(boot, ensure_ascii=False).translate(_SCRIPT_UNSAFE),
            name=look.desktop.name if look.desktop else "",
        )
        return Reply(200, body, _HTML, policy=self._connect_policy(origin))

    def message(self, status: int, key: str, language: str) -> Reply:
        """Return a page that says why not, with a way back."""
        title, text = MESSAGES[key]
        return self._message(status, title.get(language), text.get(language), language)

    def ended(self, look: Look, language: str) -> Reply:
        """Return the page for a session that shows no desktop."""
        return self._message(403, *why(look, language), language)

    def consent(self, name: str, desktop: str, language: str, *fields: tuple[str, str]) -> Reply:
        """Return the page that asks whether to go on as somebody."""
        title, text = MESSAGES["consent"]
        body = self._render(
            "consent.html",
            language=language,
            title=title.get(language).format(name=name),
            text=text.get(language).format(name=name, desktop=desktop),
            button=CONSENT_BUTTON.get(language).format(name=name),
        )
        policy = self._plain_policy("'self'")
        return Reply(200, body, _HTML, fields, policy=policy, referrer="same-origin")

    def _message(self, status: int, title: str, text: str, language: str) -> Reply:
        body = self._render("message.html", language=language, title=title, text=text)
        return Reply(status, body, _HTML, policy=self._plain_policy("'none'"))

    def _render(self, template: str, *, language: str, **values: str) -> bytes:
        page = self._environment.get_template(template)
        words = page_words(language)
        return page.render(static=self._assets.static, portal=self._portal, words=words, language=language, **values).encode()

    @staticmethod
    def _plain_policy(form_action: str) -> str:
        allowed = f"default-src 'none'; style-src 'self'; img-src 'self'; form-action {form_action}"
        return f"{allowed}; base-uri 'none'; frame-ancestors 'none'"

    def _connect_policy(self, origin: str) -> str:
        # blob: workers: the stream client makes its socket and decoder workers from text of its own. data: and blob: images: the
        # desktop's mouse cursor. The hash admits the one style sheet that it writes. Nothing inline, no eval, no other host.
        socket = origin.replace("http", "ws", 1)
        return (
            "default-src 'none'; script-src 'self'; worker-src blob:; "
            f"style-src 'self' '{self._assets.style_hash}'; connect-src 'self' {socket}; img-src 'self' data: blob:; "
            "media-src 'self' blob:; manifest-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
