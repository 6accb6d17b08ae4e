"""The agent's log: one line an event on stdout, which is the machine's console. Secrets it was told about never get through."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_MAX_LINE = 400


class Console:
    """Writes events with their keys and the time since the agent's first instruction."""

    def __init__(self, out: TextIO = sys.stdout, *, started: float | None = None) -> None:
        self._out = out
        self._started = time.monotonic() if started is None else started
        self._secrets: list[str] = []

    def hide(self, secret: str) -> None:
        """Never show ``secret`` from now on."""
        if len(secret) >= 4:
            self._secrets.append(secret)

    def say(self, event: str, **keys: object) -> None:
        """Write one event."""
        details = "".join(f" {key}={value}" for key, value in keys.items())
        text = self.clean(f"{event}{details}")
        self._out.write(f"beamdesk-guest {time.monotonic() - self._started:8.3f} {text}\n")
        self._out.flush()

    def clean(self, text: str) -> str:
        """Return ``text`` as it may be shown: no secrets, no control characters, not endless."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return "".join(char if char.isprintable() else " " for char in text[:_MAX_LINE])
