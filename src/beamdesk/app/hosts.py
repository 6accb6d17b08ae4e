"""Hosts as the scheduling core sees them: what drivers and SRM records say of them. Pure; who reads them is `world.py`.

A number not known is 0, so that no request with a minimum ever gets such a card. Used cards of records are claims of whoever holds
them, without CPU and memory: where only records tell of hosts, those are the cloud's to count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

import structlog

from beamdesk.domain.srm import UNKNOWN, CardState, DeviceRecord, HostRecord, SrmRules
from beamdesk.protocol import srm as wire
from beamdesk.scheduling.cards import Card, CardMode, Geometry, Profile
from beamdesk.scheduling.claims import Claim, Grant
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.host import HostFacts, NumaNode

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


def overlaid(
    hosts: Iterable[HostFacts], records: Iterable[HostRecord], devices: Iterable[DeviceRecord], now: datetime, rules: SrmRules
) -> tuple[HostFacts, ...]:
    """Return the driver's hosts with what their agents know better: purpose, switch, age of the report, cards and their states."""
    known = {host.name: host for host in core_hosts(records, devices, now, rules)}
    return tuple(_overlaid(host, known.get(host.name)) for host in hosts)


def _overlaid(host: HostFacts, record: HostFacts | None) -> HostFacts:
    if record is None:
        return host
    reported = {card.address: card for card in record.cards}
    nodes = len(host.nodes)
    cards = tuple(_known(card, reported.get(card.address), nodes) for card in host.cards)
    return replace(
        host,
        cards=cards,
        aggregates=host.aggregates | record.aggregates,
        dedicated=record.dedicated,
        enabled=host.enabled and record.enabled,
        stale=record.stale,
    )


def _known(card: Card, reported: Card | None, nodes: int) -> Card:
    """Return a card with the facts of its report; how it is lent is the driver's to say."""
    if reported is None:
        return card
    return replace(
        card,
        model=reported.model,
        memory_mib=reported.memory_mib,
        cores=reported.cores,
        bandwidth_gbs=reported.bandwidth_gbs,
        clock_mhz=reported.clock_mhz,
        state=reported.state,
        numa=min(reported.numa, nodes - 1),
    )


def as_free(host: HostFacts, lent: set[tuple[str, str]]) -> HostFacts:
    """Return a host as it is without our desktops: a card that is reported as used by one of them becomes used by its claim."""
    cards = tuple(
        replace(card, state=CardState.FREE) if card.state is CardState.USED and (host.name, card.address) in lent else card
        for card in host.cards
    )
    return replace(host, cards=cards)


def claims_of(devices: Iterable[DeviceRecord], known: Iterable[str], ends: Mapping[str, float | None]) -> dict[str, Claim]:
    """Return who holds the used cards of the hosts that are known, as claims by their ids.

    ``ends``: the end of a server's lease, where it has one. Holders that cannot be told apart are one each.
    """
    hosts = set(known)
    grants: dict[tuple[str, str], list[Grant]] = {}
    for device in devices:
        if device.state is CardState.USED and device.present and device.host in hosts:
            holder = device.holder if device.holder not in {"", UNKNOWN} else f"{UNKNOWN}:{device.address}"
            grants.setdefault((holder, device.host), []).append(Grant(device.address))
    claims: dict[str, Claim] = {}
    for (holder, host), held in grants.items():
        name = f"{holder}@{host}" if holder in claims or holder.startswith(UNKNOWN) else holder
        claims[name] = Claim(name, host, 0, 0, grants=tuple(held), until=ends.get(holder))
    return claims
