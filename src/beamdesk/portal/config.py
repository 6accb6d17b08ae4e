"""What the portal is told at start-up. Wiring builds it; nothing here reads files or the environment."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class DemoHint:
    """Help on the sign-in page of a demo deployment: (login, who that is) pairs, and the password where it may be shown."""

    people: tuple[tuple[str, str], ...]
    password: str | None = None


@dataclass(frozen=True, slots=True)
class PortalSettings:
    """``portal_origin``: where browsers find the portal (scheme, host and port, no path). ``contact``: where users get help."""

    portal_origin: str
    demo_hint: DemoHint | None = None
    site_name: str = "Beamdesk"
    contact: str = ""
    desktops_per_page: int = 24
    live_idle_s: float = 10.0
    streams_per_login: int = 16

    @property
    def secure(self) -> bool:
        """Tell whether browsers come by HTTPS, so that cookies can be `Secure` and carry the `__Host-` prefix."""
        return urlsplit(self.portal_origin).scheme == "https"

    @property
    def host(self) -> str:
        """Return the authority (`host:port`) of the origin."""
        return urlsplit(self.portal_origin).netloc
