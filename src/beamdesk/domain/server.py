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


@dataclass(frozen=True, slots=True)
class Server:
    """A server as observed. ``address``: ``unix:PATH`` or ``tcp:HOST:PORT`` of its streaming server, once known."""

    id: ServerId
    desktop_id: DesktopId
    status: ServerStatus
    created_at: datetime
    address: str | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """All servers of one desktop. ``complete`` is false when a part of the cloud did not answer."""

    servers: tuple[Server, ...]
    complete: bool = True
