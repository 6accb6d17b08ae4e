"""The scheduling core's state as a document: what a nova-scheduler reads in the background. Also records as the core's facts.

Used cards are written as claims of whoever holds them, without CPU and memory: those are Nova's to count. A number not known
is 0, so that no request with a minimum ever gets such a card.
"""

from __future__ import annotations

import asyncio
import hmac
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

import structlog

from beamdesk.app.context import App
from beamdesk.domain.errors import NotSignedIn, TooManyRequests
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.srm import UNKNOWN, CardState, DeviceRecord, HostRecord, SrmRules
from beamdesk.protocol import srm as wire
from beamdesk.scheduling.cards import Card, CardMode, Geometry, Profile
from beamdesk.scheduling.claims import Claim, Grant, restore
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.host import HostFacts, NumaNode
from beamdesk.scheduling.state import HostTable
from beamdesk.scheduling.wire import publish, write_snapshot

TOUCH_EVERY = timedelta(minutes=1)
"""A reader that asks every few seconds costs no write each time."""
_LOG = structlog.get_logger("beamdesk.srm")


def core_card(device: DeviceRecord) -> Card:
    """Return a device as the scheduling core sees it. Missing cards are failed."""
    facts = device.facts
    return Card(
        address=device.address,
        model=facts.model,
        memory_mib=facts.memory_mib or 0,
        cores=facts.cores or 0,
        bandwidth_gbs=facts.bandwidth_gbs or 0,
        clock_mhz=facts.clock_mhz or 0,
        state=device.state if device.present else CardState.FAILED,
        mode=CardMode(facts.mode.value),
        numa=facts.numa,
        geometry=_geometry(facts.parts) if facts.parts is not None else None,
    )


def _geometry(parts: wire.PartsFacts) -> Geometry:
    profiles = tuple(Profile(one.name, one.milli, one.span, one.starts) for one in parts.profiles)
    return Geometry(parts.name, parts.slots, profiles, parts.mixed)


def core_host(host: HostRecord, devices: Iterable[DeviceRecord], *, stale: bool) -> HostFacts | None:
    """Return a host as the scheduling core sees it; None when it never reported, or says what the core cannot take."""
    facts = host.facts
    if facts is None:
        return None
    try:
        return HostFacts(
            name=host.name,
            cpu_milli=1000 * facts.cpus,
            memory_mib=facts.memory_mib,
            disk_gib=facts.disk_gib,
            cards=tuple(core_card(device) for device in devices),
            numa=tuple(NumaNode(1000 * node.cpus, node.memory_mib) for node in facts.numa),
            aggregates=frozenset(host.aggregates),
            dedicated=host.dedicated,
            enabled=host.enabled,
            stale=stale,
        )
    except SchedulingError as error:
        _LOG.warning("srm.host_left_out", host=host.name, reason=error.message)
        return None


def core_hosts(
    hosts: Iterable[HostRecord], devices: Iterable[DeviceRecord], now: datetime, rules: SrmRules
) -> tuple[HostFacts, ...]:
    """Return all hosts that reported, as the core's facts, with the states of their cards."""
    of: dict[str, list[DeviceRecord]] = {}
    for device in devices:
        of.setdefault(device.host, []).append(device)
    found = (core_host(host, of.get(host.name, ()), stale=host.is_stale(now, rules)) for host in hosts)
    return tuple(one for one in found if one is not None)


async def core_table(app: App) -> HostTable:
    """Return the state as a table of the core: used cards are claims of their holders."""
    async with app.store.begin() as tx:
        hosts, devices = await tx.srm.hosts(), await tx.srm.devices()
    facts = core_hosts(hosts, devices, app.clock.now(), app.rules.srm)
    return await asyncio.to_thread(_table, facts, devices)


def _table(facts: tuple[HostFacts, ...], devices: Iterable[DeviceRecord]) -> HostTable:
    known = {host.name for host in facts}
    used = [device for device in devices if device.state is CardState.USED and device.present and device.host in known]
    table = HostTable(facts)
    for claim in _claims(used):
        restore(table, claim)
    return table


def _claims(used: Iterable[DeviceRecord]) -> list[Claim]:
    grants: dict[tuple[str, str], list[Grant]] = {}
    for device in used:
        holder = device.holder if device.holder not in {"", UNKNOWN} else f"{UNKNOWN}:{device.address}"
        grants.setdefault((holder, device.host), []).append(Grant(device.address))
    names: set[str] = set()
    claims = []
    for (holder, host), held in grants.items():
        name = f"{holder}@{host}" if holder in names or holder.startswith(UNKNOWN) else holder
        names.add(name)
        claims.append(Claim(name, host, 0, 0, grants=tuple(held)))
    return claims


async def snapshot(app: App, credential: str, *, address: str, known: Callable[[str], bool]) -> tuple[str | None, str]:
    """Return the snapshot document and its tag, which changes with the state and not with the time.

    ``known`` tells whether the reader has the document of a tag; then it is not made again, and None returned.

    Raises:
        NotSignedIn: no program has this credential. TooManyRequests.
    """
    now = app.clock.now()
    await _admit(app, credential, address, now)
    key = await _key(app, now)
    if known(f'"{key}"'):
        return None, f'"{key}"'
    published = app.snapshots.find(key)
    if published is None:
        table = await core_table(app)
        published = await asyncio.to_thread(publish, table, 0.0)  # a quarter of a second for 250 hosts: others go on
        if await _key(app, now) != key:  # it changed while it was read: this one is nobody's to come back to
            key = app.secrets.token()
        else:
            app.snapshots.keep(key, published)
    return await asyncio.to_thread(write_snapshot, replace(published, at=now.timestamp())), f'"{key}"'


async def _key(app: App, now: datetime) -> str:
    """Return a key of all that a snapshot is made of now."""
    async with app.store.begin() as tx:
        digest, heard = await tx.srm.marks()
    silent = [name for name, seen_at in heard if seen_at is None or now - seen_at > app.rules.srm.stale_after]
    return sha256(digest + repr(silent).encode()).hexdigest()[:32]


async def _admit(app: App, credential: str, address: str, now: datetime) -> None:
    digest = hash_secret(credential)
    async with app.store.begin() as tx:
        consumer = await tx.srm.consumer_by_token(digest)
    if consumer is None or not hmac.compare_digest(consumer[1], digest):
        _take(app, "stranger", address)
        raise NotSignedIn("No program has this credential (any more).")
    name, _hash, used_at = consumer
    _take(app, "snapshot", name)
    if used_at is None or now - used_at >= TOUCH_EVERY:
        async with app.store.begin(write=True) as tx:
            await tx.srm.touch_consumer(name, now)


def _take(app: App, kind: str, key: str) -> None:
    limit = app.limits.srm_snapshot if kind == "snapshot" else app.limits.srm_stranger
    wait_s = limit.take(key, app.clock.now())
    if wait_s:
        raise TooManyRequests("Too many requests. Slow down.", retry_after_s=math.ceil(wait_s))
