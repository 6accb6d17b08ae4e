"""Time, randomness and identifiers as ports, so that the rules can be tested at any time and twice alike."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time in UTC."""

    def now(self) -> datetime:
        """Return the present time, timezone-aware UTC."""


class Secrets(Protocol):
    """Identifiers and secrets."""

    def id(self) -> str:
        """Return a new identifier: 16 lower-case letters and digits, first a letter."""

    def token(self) -> str:
        """Return a new secret of 256 bits, URL-safe base64."""
