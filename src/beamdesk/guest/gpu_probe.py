"""The meter's own process: looks at the desktop's cards once a second and says on one line how busy the busiest is.

A process of its own, without rights but the person's, because asking a card means asking its driver, which may block for ever or
take the asking program with it. A line is ``<use> <words>``: a share 0..1, ``?`` for a card that may be in use without saying how
much, or ``-`` where no card works; the words tell what is wrong, or nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from beamdesk.guest import cards, nvml
from beamdesk.guest.drm import DrmMeter
from beamdesk.guest.nvml import Nvml, Use

PERIOD_S = 1.0


class Look:
    """Looks at all cards; called once a period."""

    def __init__(self, load: Callable[[], object] = nvml.load, *, dev: Path = Path("/dev"), sys: Path = Path("/sys")) -> None:
        self._dev = dev
        self._sys = sys
        self._words: list[str] = []
        self._nvml = Nvml(load, self._words.append, our_programs)
        self._drm = DrmMeter(time.monotonic, our_programs)

    def __call__(self) -> str:
        """Return the line."""
        uses = self._nvml.uses(cards.nvidia_cards(self._dev)) + self._drm.uses(cards.render_nodes(self._dev, self._sys))
        words = "; ".join(self._words)
        self._words.clear()
        return f"{_busiest(uses)} {words}".rstrip()


def _busiest(uses: list[Use]) -> str:
    known = [use for use in uses if use is not None]
    if len(known) < len(uses):
        return "?"
    return f"{max(known):.3f}" if known else "-"


def our_programs(proc: Path = Path("/proc")) -> frozenset[int]:
    """Return the agent and the programs that it started: display, stream, panel. What they start is the person's and counts."""
    agent = os.getppid()
    return frozenset(
        int(entry.name)
        for entry in proc.iterdir()
        if entry.name.isdigit() and (int(entry.name) == agent or _parent(entry / "stat") == agent)
    )


def _parent(stat: Path) -> int | None:
    try:
        line = stat.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(line[line.rfind(")") + 2 :].split()[1])


def run(look: Callable[[], str]) -> None:
    """Say what is seen until nobody listens."""
    while True:
        try:
            os.write(sys.stdout.fileno(), f"{look()}\n".encode())
        except BrokenPipeError:
            return
        time.sleep(PERIOD_S)


if __name__ == "__main__":
    run(Look())
