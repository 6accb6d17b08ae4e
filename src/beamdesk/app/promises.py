"""What can be promised at all: sizes that no host could ever run, leases that would run into a booking."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from beamdesk.app.context import App
from beamdesk.app.hosts import overlaid
from beamdesk.app.placements import cards_of
from beamdesk.app.sizes import request_of
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.errors import CloudError, Conflict
from beamdesk.ports.store import Transaction
from beamdesk.scheduling import filters
from beamdesk.scheduling.request import Request
from beamdesk.scheduling.state import HostTable
from beamdesk.scheduling.vocabulary import Words


async def fits_no_host(app: App, amount: Resources, words: Words) -> tuple[str, ...]:
    """Name the resources of which no host has enough for a size, even empty; empty = one could run it, or that is not known now."""
    if app.hosts is None:
        return ()
    try:
        hosts = await app.hosts()
    except CloudError:
        return ()
    async with app.store.begin() as tx:
        known = overlaid(hosts, await tx.srm.hosts(), await tx.srm.devices(), app.clock.now(), app.rules.srm)
    return never(HostTable(known), request_of("any", amount, None, replace(words, image_required=None), container=True))


def never(table: HostTable, request: Request) -> tuple[str, ...]:
    """Name the resources of which no host has enough, even empty; all of them together where each alone would do."""
    cards = request.cards.count if request.cards is not None else 0
    most = int((table.state >= 0).sum(axis=1).max(initial=0))
    suited = int(table.suits(request.cards).sum(axis=1).max(initial=0)) if request.cards is not None else 0
    pairs = (
        ("vcpus", request.cpu_milli, table.cpu_total),
        ("memory_mib", request.memory_mib, table.memory_total),
        ("disk_gib", request.disk_gib, table.disk_total),
    )
    short = tuple(name for name, asked, total in pairs if asked > int(total.max(initial=0)))
    if cards > suited:
        short += ("gpus",) if cards > most else ("gpu_kind",)
    return short or (("together",) if filters.impossible(table, request) is not None else ())


async def refuse_to_run_into_a_booking(tx: Transaction, desktop: Desktop, ends_at: datetime, now: datetime) -> None:
    """Keep a desktop's cards for the experiment that booked them.

    Raises:
        Conflict: with the new end the lease would run into a booking of one of its cards; the text says when that begins.
    """
    if ends_at <= desktop.lease_ends_at or (held := await cards_of(tx, desktop)) is None:
        return
    host, cards = held
    for booking in await tx.placing.bookings(now):
        if booking.experiment == desktop.experiment or booking.starts >= ends_at:
            continue
        if any(part.host == host and cards & set(part.cards) for part in booking.parts):
            raise Conflict(
                f"This desktop's GPU is booked from {booking.starts:%Y-%m-%d %H:%M} UTC on. Save your work before; "
                "afterwards a new desktop can have another."
            )
