"""The server behind a desktop, as a driver observes it. `beamdesk.ports.cloud` offers these names to drivers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from beamdesk.domain.ids import DesktopId, ServerId


class ServerStatus(StrEnum):
    """The part of Nova's server status that matters here."""

    BUILD = "BUILD"
    ACTIVE = "ACTIVE"
    SHUTOFF = "SHUTOFF"
    ERROR = "ERROR"
    DELETING = "DELETING"
    UNKNOWN = "UNKNOWN"


class Remedy(StrEnum):
    """What helps a server in ERROR.

    ``AGAIN``: making it anew; ``LATER``: the same, after a while; ``WAIT``: room somewhere; ``PERSON``: only somebody who changes
    the cause.
    """

    AGAIN = "again"
    LATER = "later"
    WAIT = "wait"
    PERSON = "person"


class HostState(StrEnum):
    """A server's host, as far as the cloud tells: DOWN = an operator says that it is off, SILENT = nobody knows."""

    UP = "up"
    SILENT = "silent"
    DOWN = "down"


def name_on_host(server_id: ServerId) -> str:
    """Return the name that the server's host knows it by: drivers of clouds with several places put the place before it."""
    return server_id.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Server:
    """A server as observed. ``address``: ``unix:PATH`` or ``tcp:HOST:PORT`` of its streaming server, once known.

    ``launched`` false: its system never ran, so nothing is lost with it. ``fault``: why it is in ERROR, ``remedy`` what helps;
    of one that is off and has no host any more (WAIT): why it may not come back at once.
    ``tied``: the home hangs on its host, so that while nobody knows whether the host still writes, no other server may have it.
    """

    id: ServerId
    desktop_id: DesktopId
    status: ServerStatus
    created_at: datetime
    address: str | None = None
    fault: str = ""
    launched: bool = True
    remedy: Remedy = Remedy.PERSON
    host: HostState = HostState.UP
    tied: bool = False

    @property
    def lost(self) -> bool:
        """Tell whether its host is gone and another server may take its place."""
        return self.host is HostState.DOWN or (self.host is HostState.SILENT and not self.tied)


@dataclass(frozen=True, slots=True)
class Observation:
    """All servers of one desktop. ``complete`` is false when a part of the cloud did not answer."""

    servers: tuple[Server, ...]
    complete: bool = True
