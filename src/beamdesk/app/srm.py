"""Use cases of operators around System Resource Monitoring: hosts, devices, their history, and who may read the snapshot.

Only operators may. Every refusal is audited, every change is an event.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.logins import Caller
from beamdesk.app.srm_devices import state_event
from beamdesk.domain.errors import Conflict, Forbidden, Invalid, NotFound
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.srm import OPERATOR_MAY_SET, CardState, Consumer, DeviceRecord, HostRecord, Mean, Sample, StateReason
from beamdesk.domain.srm_checks import check_host_name, text
from beamdesk.ports.store import Transaction

MAX_SAMPLES = 5000
PLOTTED = 240
MAX_AGGREGATES = 32


@dataclass(frozen=True, slots=True)
class HostView:
    """A host with its devices; ``stale`` as it is now."""

    host: HostRecord
    devices: tuple[DeviceRecord, ...]
    stale: bool


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A one-time token for a host's agent, shown once."""

    host: str
    expires_at: datetime
    token: str = field(repr=False)


@asynccontextmanager
async def _operator(app: App, caller: Caller, action: str) -> AsyncIterator[None]:
    """Let only operators through, and record what was refused."""
    async with audited(app, action, actor=caller.person.id):
        if not caller.person.is_operator:
            raise Forbidden("Only operators may do this.")
        yield


def is_stale(app: App, host: HostRecord) -> bool:
    """Tell whether a host's last report is too old to lend its cards by."""
    return host.is_stale(app.clock.now(), app.rules.srm)


async def list_hosts(app: App, caller: Caller) -> tuple[HostView, ...]:
    """Return all hosts, by name."""
    async with _operator(app, caller, "srm_hosts"), app.store.begin() as tx:
        devices = await tx.srm.devices()
        hosts = await tx.srm.hosts()
    return tuple(
        HostView(host, tuple(device for device in devices if device.host == host.name), is_stale(app, host)) for host in hosts
    )


async def get_host(app: App, caller: Caller, name: str) -> HostView:
    """Return one host.

    Raises:
        NotFound.
    """
    async with _operator(app, caller, "srm_hosts"), app.store.begin() as tx:
        host = await _host(tx, name)
        return HostView(host, await tx.srm.devices(name), is_stale(app, host))


async def history(app: App, caller: Caller, name: str, address: str, hours: float, limit: int = MAX_SAMPLES) -> tuple[Sample, ...]:
    """Return the newest points of a card's (or, with an empty address, the host's) history, oldest first."""
    async with _operator(app, caller, "srm_history"), app.store.begin() as tx:
        await _host(tx, name)
        return await tx.srm.samples(name, address, app.clock.now() - timedelta(hours=hours), limit)


async def means(app: App, caller: Caller, name: str, hours: int) -> tuple[tuple[Mean, ...], timedelta]:
    """Return the history of a host and all its cards in about `PLOTTED` stretches, and how long a stretch is."""
    every = max(60, math.ceil(hours * 3600 / PLOTTED / 60) * 60)
    async with _operator(app, caller, "srm_history"), app.store.begin() as tx:
        await _host(tx, name)
        since = app.clock.now() - timedelta(hours=hours)
        return await tx.srm.means(name, since, every), timedelta(seconds=every)


async def make_enrolment(
    app: App, caller: Caller, name: str, *, aggregates: tuple[str, ...] = (), dedicated: bool = False, again: bool = False
) -> Enrolment:
    """Make a one-time token with which a host's agent may enrol.

    ``again``: the host is enrolled already (its machine was replaced, its credential lost): the old credential is void at once.

    Raises:
        Conflict: it is enrolled and ``again`` was not said. Invalid: no name of a host.
    """
    now, token = app.clock.now(), app.secrets.token()
    expires = now + app.rules.srm.enrolment_ttl
    async with _operator(app, caller, "srm_enrolment"), app.store.begin(write=True) as tx:
        check_host_name(name)
        _check_aggregates(aggregates)
        known = await tx.srm.host(name, lock=True)
        if known is not None and known.token_hash is not None and not again:
            raise Conflict(f"Host {name} is enrolled already. Say that its agent shall enrol again.", field="name")
        host = known or HostRecord(name, now, aggregates=aggregates, dedicated=dedicated)
        fresh = replace(host, enrol_hash=hash_secret(token), enrol_expires_at=expires, version=host.version + 1)
        await tx.srm.put_host(replace(fresh, machine="", token_hash=None, session=""))
        await _tell(tx, app, caller, name, "enrolment")
    return Enrolment(name, expires, token)


def _check_aggregates(names: tuple[str, ...]) -> None:
    if len(names) > MAX_AGGREGATES or len(set(names)) != len(names):
        raise Invalid(f"A host is in at most {MAX_AGGREGATES} aggregates, each named once.", field="aggregates")
    for name in names:
        text("aggregates", name, 64)
        if not name:
            raise Invalid("An aggregate has a name.", field="aggregates")


async def change_host(
    app: App,
    caller: Caller,
    name: str,
    *,
    enabled: bool | None = None,
    dedicated: bool | None = None,
    aggregates: tuple[str, ...] | None = None,
    resync: bool = False,
) -> HostView:
    """Open or close a host, say what it is for, or ask its agent for a full report; None = as it is."""
    async with _operator(app, caller, "srm_host"), app.store.begin(write=True) as tx:
        host = await _host(tx, name, lock=True)
        _check_aggregates(aggregates or ())
        fresh = replace(
            host,
            enabled=host.enabled if enabled is None else enabled,
            dedicated=host.dedicated if dedicated is None else dedicated,
            aggregates=host.aggregates if aggregates is None else aggregates,
            resync=host.resync or resync,
            version=host.version + 1,
        )
        await tx.srm.put_host(fresh)
        await _tell(tx, app, caller, name, "changed")
        return HostView(fresh, await tx.srm.devices(name), is_stale(app, fresh))


async def remove_host(app: App, caller: Caller, name: str) -> None:
    """Forget a host, its devices and its history; its agent's credential is void at once. Absent is fine.

    Raises:
        Conflict: a card of it is in use.
    """
    async with _operator(app, caller, "srm_host"), app.store.begin(write=True) as tx:
        if any(device.state is CardState.USED for device in await tx.srm.devices(name)):
            raise Conflict(f"A card of {name} is in use. Stop its servers first.")
        if await tx.srm.remove_host(name):
            await _tell(tx, app, caller, name, "removed")


async def set_device(app: App, caller: Caller, host: str, address: str, state: CardState, *, why: str) -> DeviceRecord:
    """Move a device to another state by hand; ``why`` is kept with it. ``cleaning`` runs the host's hook, where it has one.

    Raises:
        NotFound. Conflict: not one of `OPERATOR_MAY_SET`: free comes after cleaning only, and used is nobody's to set.
    """
    now = app.clock.now()
    async with _operator(app, caller, "srm_device"), app.store.begin(write=True) as tx:
        text("why", why, 200)
        await _host(tx, host, lock=True)
        device = await tx.srm.device(host, address)
        if device is None:
            raise NotFound(f"There is no card {address} on a host {host}.")
        if state is device.state:
            return device
        if state not in OPERATOR_MAY_SET[device.state]:
            may = ", ".join(sorted(OPERATOR_MAY_SET[device.state]))
            raise Conflict(f"A card that is {device.state} can be set to: {may}.", field="state")
        if state in {CardState.FREE, CardState.CLEANING} and (not device.present or (device.load is not None and device.load.held)):
            raise Conflict("A server still holds this card, or its host does not report it.", field="state")
        moved = device.moved(state, StateReason.OPERATOR, now, why, holder=device.holder if state is CardState.FAILED else "")
        fresh = replace(moved, attempts=0, version=device.version + 1)
        await tx.srm.put_device(fresh)
        told = state_event(fresh, device.state)
        await tx.events.add(now, replace(told, actor=caller.person.id))
        return fresh


async def forget_device(app: App, caller: Caller, host: str, address: str) -> None:
    """Forget a card that was taken out of its host; absent is fine.

    Raises:
        Conflict: the host still reports it.
    """
    async with _operator(app, caller, "srm_device"), app.store.begin(write=True) as tx:
        await _host(tx, host, lock=True)
        device = await tx.srm.device(host, address)
        if device is not None and device.present:
            raise Conflict("Its host still reports this card. Take it out first.", field="address")
        await tx.srm.remove_device(host, address)
        await _tell(tx, app, caller, host, "device_forgotten")


async def make_consumer(app: App, caller: Caller, name: str) -> str:
    """Let a program read the scheduling snapshot; return its credential, shown once. The one it had is void."""
    token = app.secrets.token()
    async with _operator(app, caller, "srm_consumer"), app.store.begin(write=True) as tx:
        check_host_name(name, "name")
        await tx.srm.put_consumer(name, hash_secret(token), caller.person.id, app.clock.now())
        await _tell(tx, app, caller, name, "consumer_made")
    return token


async def list_consumers(app: App, caller: Caller) -> tuple[Consumer, ...]:
    """Return the programs that may read the snapshot: name, since when, last used."""
    async with _operator(app, caller, "srm_consumer"), app.store.begin() as tx:
        return await tx.srm.consumers()


async def remove_consumer(app: App, caller: Caller, name: str) -> None:
    """Take a program's right to read the snapshot away, at once; absent is fine."""
    async with _operator(app, caller, "srm_consumer"), app.store.begin(write=True) as tx:
        if await tx.srm.remove_consumer(name):
            await _tell(tx, app, caller, name, "consumer_removed")


async def _host(tx: Transaction, name: str, *, lock: bool = False) -> HostRecord:
    host = await tx.srm.host(name, lock=lock)
    if host is None:
        raise NotFound(f"There is no host {name}.")
    return host


async def _tell(tx: Transaction, app: App, caller: Caller, host: str, change: str) -> None:
    event = NewEvent(EventKind.SRM_HOST, caller.person.id, data={"host": host, "change": change})
    await tx.events.add(app.clock.now(), event)
