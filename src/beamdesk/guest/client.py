"""The agent's side of the guest API: HTTP over a Unix socket or HTTPS. It never retries and never logs what it sends."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import TypeVar
from urllib.parse import urlsplit

from beamdesk.guest.errors import ApiError, ApiUnavailable, ConfigError, Refused
from beamdesk.protocol.codec import MAX_MESSAGE_BYTES, MalformedMessage, decode, encode
from beamdesk.protocol.guest import ENROL_PATH, REPORT_PATH, THUMBNAIL_PATH, Enrol, Identity, Report, ReportReply

T = TypeVar("T")

TIMEOUT_S = 5.0


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class GuestApi:
    """Client of the guest API at ``url``; one connection, kept open, for use by one thread.

    ``ca``: certificates (PEM) of the only authorities trusted for ``https``; empty = the system's.

    Raises:
        ConfigError: the URL is neither ``http+unix:`` nor ``https:``, or ``ca`` holds no certificate.
    """

    def __init__(self, url: str, *, ca: str = "", timeout: float = TIMEOUT_S) -> None:
        self._url = urlsplit(url)
        self._timeout = timeout
        self._tls = _tls(ca) if self._url.scheme == "https" else None
        self._token = ""
        self._connection: http.client.HTTPConnection | None = None
        if self._url.scheme not in ("http+unix", "https"):
            raise ConfigError("enrol_url must begin with http+unix: or https:")

    def use_token(self, token: str) -> None:
        """Authenticate all further requests with ``token``."""
        self._token = token

    def enrol(self, nonce: str) -> Identity:
        """Spend the nonce.

        Raises:
            Refused: the nonce is wrong, expired or was spent before.
            ApiUnavailable: try again later.
        """
        return self._decoded(Identity, self._post(ENROL_PATH, encode(Enrol(nonce))))

    def report(self, report: Report) -> ReportReply:
        """Send the state.

        Raises:
            Refused: the identity is no longer valid.
            ApiUnavailable: try again later.
        """
        return self._decoded(ReportReply, self._post(REPORT_PATH, encode(report)))

    def thumbnail(self, picture: bytes, content_type: str) -> None:
        """Send a small picture of the screen (``image/png`` or ``image/jpeg``)."""
        self._post(THUMBNAIL_PATH, picture, content_type)

    def close(self) -> None:
        """Drop the connection."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _connect(self) -> http.client.HTTPConnection:
        if self._url.scheme == "http+unix":
            return _UnixConnection(self._url.path, self._timeout)
        return http.client.HTTPSConnection(self._url.hostname or "", self._url.port, timeout=self._timeout, context=self._tls)

    def _post(self, path: str, body: bytes, content_type: str = "application/json") -> bytes:
        headers = {"Content-Type": content_type}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        reused = self._connection is not None
        try:
            status, answer = self._exchange(path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise ApiUnavailable(f"the guest API's certificate is not trusted: {error.verify_message}") from error
            if not reused:
                raise ApiUnavailable(f"the guest API cannot be reached ({type(error).__name__})") from error
            # the server may have closed the idle connection: that says nothing about the request
            return self._post(path, body, content_type)
        if status in (401, 403):
            raise Refused("the guest API refuses the nonce" if path == ENROL_PATH else "this desktop's identity is no longer valid")
        if status >= 500 or status == 429:
            raise ApiUnavailable(f"the guest API answered {status}")
        if not 200 <= status < 300:
            raise ApiError(f"the guest API answered {status} to {path}")
        return answer

    def _exchange(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("POST", path, body, headers)
        response = self._connection.getresponse()
        answer = response.read(MAX_MESSAGE_BYTES + 1)
        if response.read(1):
            self.close()
        return response.status, answer

    def _decoded(self, kind: type[T], answer: bytes) -> T:
        try:
            return decode(kind, answer)
        except MalformedMessage as error:
            raise ApiError(f"the guest API's answer is malformed: {error}") from error


def _tls(ca: str) -> ssl.SSLContext:
    """Return the context for a server that must prove its name; trusts ``ca`` only, where it is given."""
    try:
        context = ssl.create_default_context(cadata=ca or None)
    except ssl.SSLError as error:
        raise ConfigError("ca holds no certificate in PEM form") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
