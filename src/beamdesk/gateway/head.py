"""Parse the head of an HTTP/1.1 request, strictly: what two programs could read in two ways is refused, not guessed.

Pure functions on bytes. Refused: anything but CRLF line ends, folded lines, control characters, Transfer-Encoding, a repeated
Host, Content-Length, Origin, Upgrade or Sec-WebSocket-* field, a target that is no absolute path. (RFC 9112, sections 2 to 6.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]{0,2047}) HTTP/1\.1\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\x20-\x7e\x80-\xff\t]*?)[ \t]*\Z")
_HOST = re.compile(r"d-([a-z][a-z0-9]{0,30})\.([a-z0-9.-]{1,200})(:[0-9]{1,5})?\Z")
_ONCE = frozenset(
    {"host", "content-length", "content-type", "origin", "upgrade", "cookie", "sec-websocket-key", "sec-websocket-version"}
)
_MAX_FIELDS = 64
_MAX_LENGTH_DIGITS = 9


class HttpError(Exception):
    """A request that gets an error status and no more: the connection is closed after the answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Head:
    """A request head. Field names are lower case; ``desktop_id`` and ``host`` come from the Host field."""

    method: str
    path: str
    query: str
    fields: tuple[tuple[str, str], ...]
    host: str
    desktop_id: str

    def field(self, name: str) -> str:
        """Return a field's value, joined by commas where it was repeated, empty where it is absent."""
        return ", ".join(value for key, value in self.fields if key == name)

    def cookie(self, name: str) -> str:
        """Return a cookie's value; empty where it is absent or sent twice (then somebody else set one of them)."""
        pairs = (part.strip().partition("=") for part in self.field("cookie").split(";"))
        values = [value for key, _, value in pairs if key == name]
        return values[0] if len(values) == 1 else ""

    @property
    def content_length(self) -> int:
        """Return the announced length of the body."""
        return int(self.field("content-length") or "0")

    @property
    def wants_websocket(self) -> bool:
        """Tell whether this is a WebSocket handshake (RFC 6455, 4.2.1), version 13."""
        return (
            self.method == "GET"
            and self.field("upgrade").lower() == "websocket"
            and "upgrade" in _tokens(self.field("connection"))
            and self.field("sec-websocket-version") == "13"
        )

    @property
    def keep_alive(self) -> bool:
        """Tell whether the browser means to send another request."""
        return "close" not in _tokens(self.field("connection"))


def parse_head(raw: bytes) -> Head:
    """Parse everything before the empty line (without it).

    Raises:
        HttpError: malformed, ambiguous, or with a host that is no desktop's.
    """
    first, *lines = raw.split(b"\r\n")
    match = _REQUEST_LINE.match(first)
    if match is None:
        raise HttpError(400, "malformed request line")
    fields = tuple(_field(line) for line in lines)
    if len(fields) > _MAX_FIELDS:
        raise HttpError(431, "too many header fields")
    names = [name for name, _ in fields]
    if any(name in _ONCE and names.count(name) > 1 for name in names):
        raise HttpError(400, "a header field is repeated")
    if "transfer-encoding" in names or "expect" in names:
        raise HttpError(400, "a body must come with a Content-Length")
    host = next((value for name, value in fields if name == "host"), "").lower()
    named = _HOST.match(host)
    if named is None:
        raise HttpError(421, "no desktop has this host name")
    method, target = match[1].decode(), match[2].decode()
    path, _, query = target.partition("?")
    head = Head(method, path, query, fields, host, named[1])
    _check_body(head)
    return head


def _field(line: bytes) -> tuple[str, str]:
    match = _FIELD.match(line)
    if match is None:
        raise HttpError(400, "malformed header field")
    return match[1].decode("ascii").lower(), match[2].decode("latin-1")


def _check_body(head: Head) -> None:
    length = head.field("content-length")
    if length and not (length.isascii() and length.isdigit() and len(length) <= _MAX_LENGTH_DIGITS):
        raise HttpError(400, "malformed Content-Length")
    if head.method != "POST" and int(length or "0"):
        raise HttpError(400, "only a POST has a body")
    if head.method == "POST" and not length:
        raise HttpError(411, "a POST needs a Content-Length")


def _tokens(value: str) -> frozenset[str]:
    return frozenset(part.strip().lower() for part in value.split(","))


_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([0-9]{3})(?: [\x20-\x7e]*)?\Z")


def parse_response_head(raw: bytes) -> tuple[int, dict[str, str]]:
    """Parse the head of a stream server's answer: its status and its fields, lower case, a repeated one only once.

    Raises:
        ValueError: malformed. The sender is not trusted: nothing of this may be copied into an answer of ours.
    """
    first, *lines = raw.split(b"\r\n")
    match = _STATUS_LINE.match(first)
    if match is None or len(lines) > _MAX_FIELDS:
        raise ValueError("not an HTTP response")
    try:
        return int(match[1]), dict(_field(line) for line in lines)
    except HttpError as error:
        raise ValueError(error.reason) from error
