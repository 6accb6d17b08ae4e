"""Time and randomness of this machine, behind the ports."""

from __future__ import annotations

import secrets
import string
from datetime import UTC, datetime


class SystemClock:
    """`beamdesk.ports.clock.Clock`: the machine's clock."""

    def now(self) -> datetime:
        """Return the present time, UTC."""
        return datetime.now(UTC)


class SystemSecrets:
    """`beamdesk.ports.clock.Secrets`: the operating system's random numbers."""

    def id(self) -> str:
        """Return a new identifier: 16 lower-case letters and digits, first a letter (82 bits)."""
        rest = (secrets.choice(string.ascii_lowercase + string.digits) for _ in range(15))
        return secrets.choice(string.ascii_lowercase) + "".join(rest)

    def token(self) -> str:
        """Return a new secret of 256 bits, URL-safe base64."""
        return secrets.token_urlsafe(32)
