"""The helper's log: one line an event on standard error, where the supervisor of the process collects it. Never a secret."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Write one line."""
    sys.stderr.write(f"beamdesk helper: {text}\n")
    sys.stderr.flush()
