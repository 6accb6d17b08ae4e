"""The HTTP side of the command line: requests with the stored token, problems as failures, pages, event streams.

httpx2 is imported when the first request is made: `beamdesk --help` and completion stay quick.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from beamdesk.cli.credentials import is_local, load_credentials, portal_url
from beamdesk.cli.failure import EXIT_OF_CODE, Exit, Failure

if TYPE_CHECKING:
    import httpx2

Json = dict[str, Any]
_TIMEOUT_S, _CONNECT_TIMEOUT_S, _STREAM_SILENCE_S = 30.0, 5.0, 45.0
_RECONNECT_S = 1.0


class Api:
    """A portal's API."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self._token = token
        self._http: httpx2.Client | None = None

    @classmethod
    def signed_in(cls) -> Api:
        """Return the API of the portal in use.

        Raises:
            Failure: not signed in there.
        """
        credentials = load_credentials()
        url = portal_url(None, credentials)
        known = credentials.portals.get(url)
        if known is None:
            raise Failure(Exit.NOT_SIGNED_IN, f"You are not signed in at {url}. Run: beamdesk login")
        return cls(url, known.token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._http is not None:
            self._http.close()

    def _client(self) -> httpx2.Client:
        if self._http is None:
            import httpx2

            headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            self._http = httpx2.Client(
                base_url=f"{self.url}/api/v1",
                headers=headers | {"User-Agent": "beamdesk-cli"},
                timeout=httpx2.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
                trust_env=not is_local(urlsplit(self.url).hostname or ""),
            )
        return self._http

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Json:
        """Return what is at ``path``."""
        return self._body(self._send("GET", path, query=query))

    def get_if_changed(self, path: str, tag: str | None) -> tuple[Json | None, str]:
        """Return what is at ``path`` (None = as it was at ``tag``) and its tag."""
        answer = self._send("GET", path, headers={"If-None-Match": tag} if tag else {})
        unchanged = answer.status_code == 304
        return (None if unchanged else self._body(answer)), answer.headers.get("etag", "")

    def send(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Json:
        """Send ``body`` and return the answer."""
        return self._body(self._send(method, path, body=body, headers=headers))

    def send_again(self, method: str, path: str, body: object, key: str) -> Json:
        """Send with an idempotency key, once more when the first answer got lost: the key makes that safe."""
        try:
            return self.send(method, path, body, {"Idempotency-Key": key})
        except Failure as failure:
            if failure.exit_code is not Exit.UNREACHABLE:
                raise
            time.sleep(_RECONNECT_S)
            return self.send(method, path, body, {"Idempotency-Key": key})

    def pages(self, path: str, query: Mapping[str, Any] | None = None, *, at_most: int | None = None) -> Iterator[Json]:
        """Yield the items of a list, page after page."""
        wanted = dict(query or {}) | {"limit": min(at_most or 100, 100)}
        count = 0
        while True:
            page = self.get(path, wanted)
            for item in page["items"]:
                yield item
                count += 1
                if count == at_most:
                    return
            if page.get("next") is None:
                return
            wanted["cursor"] = page["next"]

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str] | None = None, query: str = "") -> Iterator[httpx2.Response]:
        """Open a response whose body is read as it comes."""
        import httpx2

        client = self._client()
        try:
            with client.stream(
                "GET",
                path + query,
                headers=dict(headers or {}),
                timeout=httpx2.Timeout(_STREAM_SILENCE_S, connect=_CONNECT_TIMEOUT_S),
            ) as answer:
                if answer.status_code >= 300:
                    answer.read()
                    raise self._failure(answer)
                yield answer
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def follow(self, query: str = "") -> Iterator[Json]:
        """Yield events as they happen, for ever: after a break it goes on where it was."""
        last = ""
        while True:
            try:
                with self.stream("/events/stream", {"Last-Event-ID": last} if last else {}, query) as answer:
                    for event in _events(answer.iter_lines()):
                        last = str(event["id"])
                        yield event
            except Failure as failure:
                if failure.exit_code is not Exit.UNREACHABLE and failure.code != "store_unavailable":
                    raise
            time.sleep(_RECONNECT_S)

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        import httpx2

        client = self._client()
        try:
            answer = client.request(method, path, params=query, json=body, headers=dict(headers or {}))
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        if answer.status_code >= 300 and answer.status_code != 304:
            raise self._failure(answer)
        return answer

    def _unreachable(self, error: Exception) -> Failure:
        cause = str(error) or type(error).__name__
        return Failure(Exit.UNREACHABLE, f"{self.url} does not answer ({cause}). Is Beamdesk running, and the address right?")

    def _body(self, answer: httpx2.Response) -> Json:
        if not answer.content:
            return {}
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Failure(Exit.UNREACHABLE, f"What answers at {self.url} is not Beamdesk.")
        return body

    def _failure(self, answer: httpx2.Response) -> Failure:
        try:
            problem = answer.json()
            code, detail = str(problem["code"]), str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            return Failure(Exit.UNREACHABLE, f"What answers at {self.url} is not Beamdesk (status {answer.status_code}).")
        if code == "not_signed_in" and self._token:
            return Failure(Exit.NOT_SIGNED_IN, f"Your sign-in at {self.url} has ended. Run: beamdesk login", code=code)
        return Failure(EXIT_OF_CODE.get(code, Exit.FAILED), detail, code=code)


def _events(lines: Iterator[str]) -> Iterator[Json]:
    """Parse server-sent events whose data is JSON (one line each, as ours are)."""
    for line in lines:
        if line.startswith("data: "):
            event = json.loads(line[6:])
            if isinstance(event, dict):
                yield event
