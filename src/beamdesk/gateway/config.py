"""What the gateway is told at its start. Nothing here is a global: `server.run` takes it as an argument."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one browser, or all of them, can make the gateway hold. Sizes in bytes, times in seconds."""

    head_bytes: int = 16 * 1024
    body_bytes: int = 4 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 10.0
    idle_timeout_s: float = 75.0
    handling_timeout_s: float = 20.0
    upstream_timeout_s: float = 5.0
    upstream_head_bytes: int = 8 * 1024
    connections: int = 4096
    streams_per_session: int = 4
    write_high: int = 512 * 1024
    write_low: int = 128 * 1024


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Where the gateway listens and what it trusts.

    ``portal_origin`` is the only origin whose forms may open a session without asking. ``desktop_domain`` is what follows
    ``d-<id>.`` in a desktop's host name. ``selkies_web_dir`` is the directory that `beamdesk.gateway.webclient` filled.
    ``run_dir_prefix`` is the only directory below which a stream socket may lie. Certificate and key together turn TLS on.
    """

    host: str
    port: int
    portal_origin: str
    desktop_domain: str
    selkies_web_dir: Path
    run_dir_prefix: Path
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    revocation_poll_s: float = 0.25
    store_grace_s: float = 300.0
    limits: Limits = field(default_factory=Limits)

    @property
    def secure(self) -> bool:
        """Tell whether the browser reaches us by https (our own TLS, or a proxy's that the portal's origin tells of)."""
        return self.tls_certificate is not None or self.portal_origin.startswith("https://")

    def tls(self) -> ssl.SSLContext | None:
        """Return the context to listen with; None = plain HTTP (loopback, or TLS ends in a proxy)."""
        if self.tls_certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self.tls_certificate, self.tls_key)
        return context
