"""The agent's side of the SRM API: HTTPS with checked certificates, one connection, kept open. It never logs what it sends."""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from beamdesk.protocol.codec import MAX_MESSAGE_BYTES, MalformedMessage, decode, encode
from beamdesk.protocol.srm import ENROL_PATH, REPORT_PATH, SESSION_PATH, Enrol, Enrolled, Open, Opened, Report, ReportReply
from beamdesk.srm.errors import ApiUnavailable, ConfigError, OutOfStep, Refused

T = TypeVar("T")

TIMEOUT_S = 15.0
_MOST_WAIT_S = 600.0


class SrmApi:
    """Client of the API at ``url``, for use by one thread. ``ca_file``: authorities to trust instead of the system's."""

    def __init__(self, url: str, *, ca_file: Path | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._url = urlsplit(url)
        self._timeout_s = timeout_s
        self._credential = ""
        self._connection: http.client.HTTPConnection | None = None
        self._tls = _tls(ca_file) if self._url.scheme == "https" else None

    def use(self, credential: str) -> None:
        """Authenticate all further requests."""
        self._credential = credential

    def enrol(self, message: Enrol) -> Enrolled:
        """Spend an enrolment token.

        Raises:
            Refused: the token or the machine is not accepted. ApiUnavailable: try again.
        """
        return self._answer(Enrolled, self._post(ENROL_PATH, encode(message)))

    def open(self, message: Open) -> Opened:
        """Begin a session.

        Raises:
            Refused: the credential is not accepted. OutOfStep: the API says why not. ApiUnavailable: try again.
        """
        return self._answer(Opened, self._post(SESSION_PATH, encode(message)))

    def report(self, report: Report) -> ReportReply:
        """Send a report; the same one may be sent again when no answer came.

        Raises:
            Refused, OutOfStep, ApiUnavailable: as above.
        """
        return self._answer(ReportReply, self._post(REPORT_PATH, encode(report)))

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, path: str, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "beamdesk-srm"}
        if self._credential:
            headers["Authorization"] = f"Bearer {self._credential}"
        reused = self._connection is not None
        try:
            response, answer = self._exchange(path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if reused:  # the server may have closed an idle connection: that says nothing about the request
                return self._post(path, body)
            raise ApiUnavailable(f"the API cannot be reached: {error or type(error).__name__}") from error
        self._judge(path, response, answer)
        return answer

    def _exchange(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("POST", path, body, headers)
        response = self._connection.getresponse()
        answer = response.read(MAX_MESSAGE_BYTES + 1)
        if response.read(1):
            self.close()
        return response, answer

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)

    def _judge(self, path: str, response: http.client.HTTPResponse, answer: bytes) -> None:
        """Turn a status that is no success into what the agent has to do about it."""
        status = response.status
        if 200 <= status < 300:
            return
        reason = _detail(answer) or f"status {status}"
        if status in {401, 403} or (path == ENROL_PATH and status < 500 and status != 429):
            raise Refused(reason)
        if status == 429 or status >= 500 or status == 404:
            raise ApiUnavailable(f"the API answers: {reason}", _retry_after(response))
        raise OutOfStep(reason)

    def _answer(self, kind: type[T], answer: bytes) -> T:
        try:
            return decode(kind, answer)
        except MalformedMessage as error:
            raise ApiUnavailable(f"what answers is not the API ({error})") from error


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:
        raise ConfigError(f"cannot read the authorities in {ca_file}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _detail(answer: bytes) -> str:
    """Return the sentence of a problem document, made safe for a log."""
    try:
        detail = json.loads(answer)["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    return "".join(one for one in str(detail) if one.isprintable())[:300]


def _retry_after(response: http.client.HTTPResponse) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), _MOST_WAIT_S) if value.isdecimal() else 0.0
