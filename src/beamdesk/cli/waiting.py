"""Waiting for a desktop, with progress: one live line on a terminal, one line a change elsewhere, always on standard error.

It asks again with the desktop's ETag (an unchanged one costs the portal a few bytes), quickly at first, then ever less often. That
survives whatever an event stream does not: proxies that buffer, a portal that restarts.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Any

from beamdesk.cli.client import Api
from beamdesk.cli.failure import Exit, Failure
from beamdesk.cli.output import clean, moment
from beamdesk.cli.words import now_doing, why

_FIRST_S, _LAST_S, _GROWTH = 0.15, 2.0, 1.15
_GOALS = {"running": ("ready",), "stopped": ("stopped",)}


class Progress:
    """Shows the newest line."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = ""

    def show(self, line: str) -> None:
        """Show ``line`` unless it is shown already."""
        line = clean(line)
        if line == self._shown:
            return
        self._shown = line
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\033[K{line[:width]}")
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the terminal tidy."""
        if self._live and self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def wait_for(api: Api, desktop: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
    """Wait until the desktop is as it was wanted and return it; None = it is gone, as wanted.

    Raises:
        Failure: it failed, somebody wanted something else, or the time was up.
    """
    progress, tag, pause = Progress(), None, _FIRST_S
    wanted, deadline = desktop["desired"], time.monotonic() + timeout_s if timeout_s else None
    try:
        while True:
            try:
                fresh, tag = api.get_if_changed(f"/desktops/{desktop['id']}", tag)
            except Failure as failure:
                if wanted == "deleted" and failure.exit_code is Exit.NOT_FOUND:
                    return None
                raise
            if fresh is not None:
                desktop, pause = fresh, _FIRST_S
                progress.show(_line(desktop))
            if _reached(desktop, wanted):
                return desktop
            if deadline and time.monotonic() >= deadline:
                raise Failure(Exit.FAILED, f"{desktop['name']} is not there yet after {timeout_s:g} s: {_line(desktop)}.")
            time.sleep(pause)
            pause = min(pause * _GROWTH, _LAST_S)
    finally:
        progress.end()


def _reached(desktop: dict[str, Any], wanted: str) -> bool:
    if desktop["desired"] != wanted:
        raise Failure(Exit.CONFLICT, f"Somebody else wants {desktop['name']} {desktop['desired']} now.")
    if desktop["phase"] == "failed" and wanted == "running":
        cause = why(desktop) or now_doing(desktop)
        raise Failure(Exit.FAILED, f"{desktop['name']} failed: {cause}. See: beamdesk desktop events {desktop['id']}")
    return desktop["phase"] in _GOALS.get(wanted, ())


def _line(desktop: dict[str, Any]) -> str:
    if desktop["desired"] != "running" or desktop["phase"] == "ready":
        return str(desktop["phase"])
    because = why(desktop)
    expected = (desktop["queue"] or {}).get("expected_at")
    line = now_doing(desktop) + (f" ({because})" if because else "")
    return f"{line}, expected {moment(expected)}" if expected else line
