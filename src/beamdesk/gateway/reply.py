"""Answers of the gateway itself, and the security headers that each of them carries.

No answer ever contains a byte that came from a desktop.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass, field
from http import HTTPStatus

_WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# Everything that a page of ours could ask of a browser and that none of them needs.
_PERMISSIONS = (
    "accelerometer=(), autoplay=(self), camera=(), clipboard-read=(self), clipboard-write=(self), display-capture=(), "
    "fullscreen=(self), geolocation=(), gyroscope=(), hid=(), magnetometer=(), microphone=(), midi=(), payment=(), "
    "publickey-credentials-get=(), serial=(), usb=(), xr-spatial-tracking=()"
)
COMMON_FIELDS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", _PERMISSIONS),
)
# For answers that show nothing: errors, JSON, redirects.
BARE_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
IMMUTABLE = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. ``fields`` come on top of the security headers; ``policy`` is the Content-Security-Policy."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    fields: tuple[tuple[str, str], ...] = ()
    policy: str = BARE_POLICY
    referrer: str = "no-referrer"
    cache: str = "no-store"
    close: bool = field(default=False)

    def encode(self, *, secure: bool, keep_alive: bool, head_only: bool = False) -> bytes:
        """Return the bytes to send."""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            f"Cache-Control: {self.cache}",
            f"Content-Security-Policy: {self.policy}",
            f"Referrer-Policy: {self.referrer}",
            f"Connection: {'keep-alive' if keep_alive and not self.close else 'close'}",
            *(f"{name}: {value}" for name, value in (*COMMON_FIELDS, *self.fields)),
        ]
        if secure:
            lines.append("Strict-Transport-Security: max-age=31536000")
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header value contains a line break")
        return "\r\n".join((*lines, "", "")).encode("latin-1") + (b"" if head_only else self.body)


def redirect(location: str, *fields: tuple[str, str]) -> Reply:
    """Return a 303: go there with GET."""
    return Reply(303, fields=(("Location", location), *fields))


def websocket_accept(key: str) -> str:
    """Return what a WebSocket server must answer to a key (RFC 6455, 4.2.2)."""
    return b64encode(hashlib.sha1((key + _WEBSOCKET_GUID).encode(), usedforsecurity=False).digest()).decode()


def switching_protocols(key: str) -> bytes:
    """Return our own 101: the stream server's is checked and thrown away."""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {websocket_accept(key)}\r\n\r\n"
    ).encode()
