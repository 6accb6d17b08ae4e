"""Tells at the end how long the truth took: the promise is 10 s on a machine that is not overloaded."""

from __future__ import annotations

import sys
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the slowest truth of each kind."""
    world = sys.modules.get("controlplane.world")
    slowest: dict[str, float] = {}
    for reason, seconds in world.truths if world else ():
        slowest[reason] = max(seconds, slowest.get(reason, 0))
    if slowest:
        words = ", ".join(f"{reason} {seconds:.1f} s" for reason, seconds in sorted(slowest.items()))
        terminalreporter.write_line(f"told to the user at the latest after: {words}")
