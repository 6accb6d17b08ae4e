"""Which sizes no host takes, learned from how builds end: for clouds that do not let Beamdesk ask (`why`).

"No valid host" is also what Nova says right after an outage, so one that hears it is tried again later. It is not where the
size itself is known to be the cause: it was refused half a minute ago already, and since then the cloud took others and none of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from beamdesk.adapters.openstack.records import NovaServer
from beamdesk.domain.server import Remedy

PROVEN = timedelta(seconds=30)
"""An outage that lasts longer than this refuses others too."""
FORGOTTEN = timedelta(minutes=10)
"""A refusal so long after the one before is the first of its kind: hosts come and go."""
_Size = tuple[object, ...]


class RefusedSizes:
    """What one place took and what it refused, by Nova's dates alone."""

    def __init__(self) -> None:
        self._refused: dict[_Size, tuple[datetime, datetime]] = {}
        self._taken: dict[_Size, datetime] = {}

    def took(self, server: NovaServer) -> None:
        """Take note of a server that ran."""
        size = _size(server)
        newest = self._taken[size] = max(server.created_at, self._taken.get(size, server.created_at))
        if size in self._refused and self._refused[size][0] < newest:
            del self._refused[size]

    def refused(self, server: NovaServer, helps: Remedy) -> Remedy:
        """Take note of one in ERROR, of which no more is known than what usually ``helps``; return what does."""
        if helps is not Remedy.LATER:
            return helps
        size, at = _size(server), server.created_at
        if size in self._taken and at <= self._taken[size]:
            return helps
        first, last = self._refused.get(size, (at, at))
        if at - last > FORGOTTEN:
            first = at
        self._refused[size] = (min(first, at), max(last, at))
        took_others = any(taken > first for other, taken in self._taken.items() if other != size)
        return Remedy.PERSON if took_others and at - first >= PROVEN else helps


def _size(server: NovaServer) -> _Size:
    return (server.size, tuple(sorted(server.specs.items())))
