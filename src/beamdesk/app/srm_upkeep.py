"""What has to happen without anybody asking: silent hosts go stale, cleanings that do not end fail, old history goes.

Run it every few seconds, in as many processes as you like: each step looks again under its transaction.
"""

from __future__ import annotations

from dataclasses import replace

from beamdesk.app.context import App
from beamdesk.app.srm import is_stale
from beamdesk.app.srm_devices import too_late
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.srm import CardState

PURGE_AT_ONCE = 2000


async def upkeep(app: App) -> None:
    """Do one round."""
    now = app.clock.now()
    async with app.store.begin() as tx:
        silent = [host.name for host in await tx.srm.hosts() if host.seen_at is not None and not host.stale and is_stale(app, host)]
        late = [
            (device.host, device.address)
            for device in await tx.srm.devices()
            if device.state is CardState.CLEANING and device.job_until is not None and device.job_until <= now
        ]
    for name in silent:
        await _silent(app, name)
    for host, address in late:
        await _late(app, host, address)


async def _silent(app: App, name: str) -> None:
    async with app.store.begin(write=True) as tx:
        host = await tx.srm.host(name, lock=True)
        if host is None or host.stale or not is_stale(app, host):
            return
        await tx.srm.put_host(replace(host, stale=True, version=host.version + 1))
        data = {"host": name, "kind": "host_silent", "detail": "no report: its cards are not lent until it is back"}
        await tx.events.add(app.clock.now(), NewEvent(EventKind.SRM_ALARM, data=dict(data)))


async def _late(app: App, host: str, address: str) -> None:
    now = app.clock.now()
    async with app.store.begin(write=True) as tx:
        await tx.srm.host(host, lock=True)
        device = await tx.srm.device(host, address)
        if device is None or device.state is not CardState.CLEANING or device.job_until is None or device.job_until > now:
            return
        fresh, events = too_late(device, app.rules.srm, now)
        await tx.srm.put_device(replace(fresh, version=device.version + 1))
        await tx.events.add(now, *events)


async def purge_history(app: App) -> int:
    """Delete a batch of history that is older than the site keeps; returns how many points."""
    async with app.store.begin(write=True) as tx:
        return await tx.srm.purge_samples(app.clock.now() - app.rules.srm.history, PURGE_AT_ONCE)
