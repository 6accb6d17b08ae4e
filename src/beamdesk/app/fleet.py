"""The operators' map: all hosts and cards, in which state they are, who has what, what is booked. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.hosts import core_host
from beamdesk.app.logins import Caller
from beamdesk.app.world import World, read_world
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.errors import CloudError, Forbidden
from beamdesk.domain.placement import Booking
from beamdesk.domain.server import name_on_host
from beamdesk.domain.srm import DeviceRecord, HostRecord
from beamdesk.ports.store import Transaction
from beamdesk.scheduling.cards import Card, CardState
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.state import STATES

STALE = "stale"
CARD_STATES = (*(str(state) for state in CardState), STALE)
"""What a card can be on the map: a free card of a host that is silent is stale, for nobody may have it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A desktop and its owner's name. ``desktop`` is empty where a server is not one of our desktops; ``name`` says its id."""

    desktop: str
    name: str
    owner: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class FleetCard:
    """One card. ``booked_from``: when the next booking of it begins (or began)."""

    address: str
    model: str
    memory_mib: int
    state: str
    detail: str = ""
    since: datetime | None = None
    holder: Holder | None = None
    booked_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class FleetHost:
    """One host. CPU in thousandths, memory in MiB; ``used`` is what our desktops hold, None where the cloud counts that.

    ``recorded``: an agent tells of it, so that it has a history.
    """

    name: str
    cpu_milli: int
    cpu_used: int | None
    memory_mib: int
    memory_used: int | None
    cards: tuple[FleetCard, ...]
    holders: tuple[Holder, ...]
    enabled: bool = True
    stale: bool = False
    aggregates: tuple[str, ...] = ()
    seen_at: datetime | None = None
    recorded: bool = False

    @property
    def states(self) -> frozenset[str]:
        """Return the states of its cards."""
        return frozenset(card.state for card in self.cards)


async def see_fleet(app: App, caller: Caller) -> tuple[FleetHost, ...]:
    """Return all hosts, by name.

    Raises:
        Forbidden: the caller is no operator.
    """
    async with audited(app, "see_fleet", actor=caller.person.id):
        if not caller.person.is_operator:
            raise Forbidden("Only operators may see the hosts.")
    now, driver_hosts = app.clock.now(), await _driver_hosts(app)
    flavors = await app.catalog.flavors()
    async with app.store.begin() as tx:
        records = {record.name: record for record in await tx.srm.hosts()}
        devices = {(one.host, one.address): one for one in await tx.srm.devices()}
        hosts = None if app.hosts is None else _all(driver_hosts, records, devices)
        world = await read_world(tx, hosts, flavors, now, app.rules.srm, app.rules.policy)
        desktops = await _holders(tx, await tx.desktops.holders())
    return tuple(_host(world, host, records.get(host.name), devices, desktops) for host in world.table.hosts)


async def _driver_hosts(app: App) -> tuple[HostFacts, ...]:
    """Return the hosts that the driver offers; none while it does not answer: the map shows what else is known."""
    try:
        return await app.hosts() if app.hosts is not None else ()
    except CloudError:
        return ()


def _all(
    hosts: tuple[HostFacts, ...], records: Mapping[str, HostRecord], devices: Mapping[tuple[str, str], DeviceRecord]
) -> tuple[HostFacts, ...]:
    """Return the driver's hosts, and those that only their agents tell of."""
    known = {host.name for host in hosts}
    others = (
        core_host(record, [one for (host, _), one in devices.items() if host == name], stale=False)
        for name, record in records.items()
        if name not in known
    )
    return hosts + tuple(host for host in others if host is not None)


@dataclass(frozen=True, slots=True)
class _Desktops:
    by_id: Mapping[str, Holder]
    by_server: Mapping[str, Holder]

    def of(self, name: str) -> Holder | None:
        """Return who a holder's id stands for."""
        return self.by_id.get(name) or self.by_server.get(name) or (Holder("", name) if name else None)


async def _holders(tx: Transaction, admitted: Iterable[Desktop]) -> _Desktops:
    by_id: dict[str, Holder] = {}
    by_server: dict[str, Holder] = {}
    for desktop in admitted:
        owner = await tx.people.person(desktop.owner)
        holder = Holder(desktop.id, desktop.name, owner.full_name if owner else desktop.owner, desktop.lease_ends_at)
        by_id[desktop.id] = holder
        if desktop.server_id is not None:
            by_server[name_on_host(desktop.server_id)] = holder
    return _Desktops(by_id, by_server)


def _host(
    world: World,
    host: HostFacts,
    record: HostRecord | None,
    devices: Mapping[tuple[str, str], DeviceRecord],
    desktops: _Desktops,
) -> FleetHost:
    table, row = world.table, world.table.row[host.name]
    here = {name for name in table.holders[row] if name in desktops.by_id}
    lent = {grant.address: name for name in here for grant in table.claims[name].grants}
    stale = bool(table.stale[row])
    cards = tuple(
        _card(world, host, card, devices.get((host.name, card.address)), desktops, lent.get(card.address, ""), stale=stale)
        for card in sorted(host.cards, key=lambda one: one.address)
    )
    return FleetHost(
        host.name,
        host.cpu_milli,
        host.cpu_milli - int(table.cpu_free[row]) if world.ours else None,
        host.memory_mib,
        host.memory_mib - int(table.memory_free[row]) if world.ours else None,
        cards,
        tuple(sorted((desktops.by_id[name] for name in here), key=lambda one: one.name)),
        bool(table.enabled[row]),
        stale,
        tuple(sorted(host.aggregates)),
        record.seen_at if record is not None else None,
        record is not None,
    )


def _card(
    world: World, host: HostFacts, card: Card, device: DeviceRecord | None, desktops: _Desktops, lent: str, *, stale: bool
) -> FleetCard:
    row = world.table.row[host.name]
    state = str(STATES[world.table.state[row, world.table.position(row, card.address)]])
    return FleetCard(
        card.address,
        card.model,
        card.memory_mib,
        STALE if stale and state == CardState.FREE else state,
        device.detail if device is not None else "",
        device.state_since if device is not None else None,
        desktops.of(lent or (device.holder if device is not None else "")),
        _booked_from(world.bookings, host.name, card.address),
    )


def _booked_from(bookings: Iterable[Booking], host: str, address: str) -> datetime | None:
    begins = (one.starts for one in bookings for part in one.parts if part.host == host and address in part.cards)
    return min(begins, default=None)
