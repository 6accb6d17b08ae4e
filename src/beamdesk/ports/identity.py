"""The sign-in port."""

from __future__ import annotations

from typing import Protocol

from beamdesk.domain.ids import PersonId


class PasswordSignIn(Protocol):
    """Verify a login name and password (the built-in demo accounts, on loopback only)."""

    async def verify(self, login: str, password: str) -> PersonId | None:
        """Return the person, or None; takes the same time for an unknown login and a wrong password."""
