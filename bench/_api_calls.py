"""Counts the HTTP requests that this process sends through `requests`, as openstacksdk does: method, service, path without ids."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests

_ID = re.compile(r"/[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}(?=/|$)")


class Calls:
    """A count. ``services``: port -> name."""

    def __init__(self, services: Mapping[int, str]) -> None:
        self._services = services
        self._lock = threading.Lock()
        self.count: Counter[str] = Counter()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count within."""
        send = requests.adapters.HTTPAdapter.send

        def counted(adapter: Any, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
            self._note(request)
            return send(adapter, request, *args, **more)

        requests.adapters.HTTPAdapter.send = counted  # type: ignore[method-assign]
        try:
            yield
        finally:
            requests.adapters.HTTPAdapter.send = send  # type: ignore[method-assign]

    def _note(self, request: requests.PreparedRequest) -> None:
        address = str(request.url).partition("://")[2]
        where, _, rest = address.partition("/")
        path, _, query = f"/{rest}".partition("?")
        news = "?changes-since" if "changes-since" in query else ""
        service = self._services.get(int(where.rpartition(":")[2]), where)
        with self._lock:
            self.count[f"{request.method} {service} {_ID.sub('/*', path)}{news}"] += 1


def told(calls: Counter[str], desktops: int) -> list[str]:
    """Return one line for each kind of request, most first, with its number and how many that is for each desktop."""
    kinds = [f"{number:6} {number / desktops:6.2f}  {kind}" for kind, number in calls.most_common()]
    return [f"{calls.total():6} {calls.total() / desktops:6.2f}  all API calls, and for each desktop", *kinds]
