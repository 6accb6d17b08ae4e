"""Logins, tickets and viewer sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from beamdesk.domain.ids import DesktopId, PersonId, SessionId


class ViewerRole(StrEnum):
    """What a session may do on the desktop."""

    CONTROLLER = "controller"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody signed in at the portal or with a token of the CLI. Only the hash of the secret is stored."""

    id: str
    person: PersonId
    secret_hash: bytes = field(repr=False)
    kind: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Ticket:
    """The short-lived single-use right to open one desktop. Only its hash is stored."""

    hash: bytes = field(repr=False)
    desktop_id: DesktopId
    person: PersonId
    login_id: str
    role: ViewerRole
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """One viewer attached to a desktop through the gateway, from ticket to end.

    ``ended_at`` set = revoked or closed: the gateway's feed cuts its streams within one second.
    """

    id: SessionId
    desktop_id: DesktopId
    person: PersonId
    login_id: str
    role: ViewerRole
    secret_hash: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    end_reason: str = ""
