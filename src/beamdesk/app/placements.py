"""Giving a desktop its host and cards, and taking them back, in the caller's transaction."""

from __future__ import annotations

from datetime import datetime

from beamdesk.app.srm_devices import give_back, lend
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.errors import CloudUnavailable, Conflict
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.placement import Placement
from beamdesk.domain.server import name_on_host
from beamdesk.ports.store import Transaction
from beamdesk.protocol.srm import LendMode


async def cards_of(tx: Transaction, desktop: Desktop) -> tuple[str, frozenset[str]] | None:
    """Return a desktop's host and cards: where we placed it, or where agents say that its server has them. None = not known."""
    placement = await tx.placing.placement(desktop.id)
    if placement is not None:
        return placement.host, frozenset(placement.cards)
    if desktop.server_id is None:
        return None
    name = name_on_host(desktop.server_id)
    held = [one for one in await tx.srm.devices() if one.holder == name and one.present]
    return (held[0].host, frozenset(one.address for one in held if one.host == held[0].host)) if held else None


async def record_lent(tx: Transaction, placement: Placement, now: datetime) -> None:
    """Write down that a desktop has its cards, where their states are recorded.

    Raises:
        CloudUnavailable: one is not free any more; decide again.
    """
    for address in placement.cards:
        if await _is_recorded(tx, placement.host, address):
            try:
                await lend(tx, placement.host, address, placement.desktop, now)
            except Conflict as error:
                raise CloudUnavailable(error.message) from error


async def release(tx: Transaction, desktop_id: DesktopId, now: datetime) -> None:
    """Take a desktop off its host. Cards that were passed through are dirty from now on, where their states are recorded."""
    gone = await tx.placing.release(desktop_id)
    if gone is None:
        return
    for address in gone.cards:
        if await _is_recorded(tx, gone.host, address):
            await give_back(tx, gone.host, address, now)


async def _is_recorded(tx: Transaction, host: str, address: str) -> bool:
    """Tell whether lending a card is written down: one that its host's own driver shares out is cleared by that driver."""
    device = await tx.srm.device(host, address)
    return device is not None and device.facts.mode is LendMode.PASSTHROUGH
