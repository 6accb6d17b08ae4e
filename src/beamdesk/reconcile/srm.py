"""The loop that looks after SRM records: silent hosts, late cleanings, old history. Several do no harm."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import structlog

from beamdesk.app.context import App
from beamdesk.app.srm_upkeep import PURGE_AT_ONCE, purge_history, upkeep

log = structlog.get_logger("beamdesk.srm")

LONGEST, PURGE_EVERY = timedelta(seconds=5), timedelta(minutes=10)


async def run(app: App, stop: asyncio.Event) -> None:
    """Work until ``stop``."""
    every = min(LONGEST, app.rules.srm.stale_after / 4)
    purged = app.clock.now() - PURGE_EVERY
    while not stop.is_set():
        try:
            await upkeep(app)
            if app.clock.now() - purged >= PURGE_EVERY and await purge_history(app) < PURGE_AT_ONCE:
                purged = app.clock.now()
        except Exception:  # the outermost frame of the loop: a store that is away comes back
            log.exception("srm.upkeep_failed")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every.total_seconds())
