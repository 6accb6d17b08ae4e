"""The scheduling core's table for this site: hosts, what their agents report, who is admitted, what is booked.

Built anew for each question from the store and the hosts: there is no state in a process that could differ from another's. Nothing
is decided here. Hosts are asked for before a transaction, everything else is read inside the caller's. Where the cloud places
servers itself, hosts are those of the SRM records, and who has a card is what they report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from beamdesk.app.hosts import as_free, claims_of, core_hosts, overlaid
from beamdesk.app.sizes import mix_of, part_name, request_of
from beamdesk.domain.catalog import Flavor
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.ids import DesktopId, ExperimentId
from beamdesk.domain.placement import Booking, Placement
from beamdesk.domain.server import name_on_host
from beamdesk.domain.srm import DeviceRecord, HostRecord, SrmRules
from beamdesk.ports.store import Transaction
from beamdesk.scheduling import bookings as core_bookings
from beamdesk.scheduling.bookings import Booking as CoreBooking
from beamdesk.scheduling.claims import Claim, restore
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.fragment import Mix
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.line import Asked, decide, own, reduced, take
from beamdesk.scheduling.policy import DEFAULT, Policy, make
from beamdesk.scheduling.state import HostTable

_Held = dict[ExperimentId, list[Claim]]


@dataclass(frozen=True, slots=True)
class World:
    """The table, how it is decided over, and the bookings as the site knows them.

    ``ours``: desktops are placed by us. ``adrift``: admitted desktops that no placement was kept of (from before there were any),
    with where they are counted meanwhile.
    """

    scheduler: Scheduler
    mix: Mix
    now: datetime
    bookings: tuple[Booking, ...]
    placements: dict[DesktopId, Placement]
    adrift: dict[DesktopId, Placement]
    ours: bool

    @property
    def table(self) -> HostTable:
        """Return the table."""
        return self.scheduler.table

    def policy(self, table: HostTable) -> Policy:
        """Make the policy for a copy of the table."""
        return make(self.scheduler.policy.name, table, self.mix)

    def asked(self, desktop: Desktop, until: datetime) -> Asked:
        """Return what a desktop asks of the scheduler, with a lease until then. The bookings of its experiment are its own."""
        request = request_of(desktop.id, desktop.resources, until, desktop.words, desktop.image_ref, container=self.ours)
        names = [one.id for one in self.bookings if one.experiment == desktop.experiment]
        return own(self.table, request, names, self.now.timestamp())


@dataclass(frozen=True, slots=True)
class Rows:
    """What the store knows of a site at one moment."""

    now: datetime
    records: tuple[HostRecord, ...]
    devices: tuple[DeviceRecord, ...]
    admitted: tuple[Desktop, ...]
    placements: tuple[Placement, ...]
    bookings: tuple[Booking, ...]


async def read_rows(tx: Transaction, now: datetime) -> Rows:
    """Read what a world is made of. In one transaction, so that it is one moment's state."""
    return Rows(
        now,
        await tx.srm.hosts(),
        await tx.srm.devices(),
        await tx.desktops.holders(),
        await tx.placing.placements(),
        await tx.placing.bookings(now),
    )


async def read_world(
    tx: Transaction,
    hosts: Sequence[HostFacts] | None,
    flavors: Iterable[Flavor],
    now: datetime,
    rules: SrmRules,
    policy: str = DEFAULT,
) -> World:
    """Read everything into a table (`world_of`)."""
    return world_of(await read_rows(tx, now), hosts, flavors, rules, policy)


def world_of(
    rows: Rows, hosts: Sequence[HostFacts] | None, flavors: Iterable[Flavor], rules: SrmRules, policy: str = DEFAULT
) -> World:
    """Return the table of those rows. ``hosts``: the driver's, None where the cloud places servers itself."""
    now, placements = rows.now, {one.desktop: one for one in rows.placements} if hosts is not None else {}
    if hosts is None:
        table, held = _of_records(rows, rules)
    else:
        table, held = _of_placements(overlaid(hosts, rows.records, rows.devices, now, rules), rows.admitted, placements, now)
    for booking in rows.bookings:
        _restore_booking(table, booking, held.get(booking.experiment, ()), now)
    mix = mix_of(flavors, container=hosts is not None)
    scheduler = Scheduler(table, make(policy, table, mix), keep=5)
    world = World(scheduler, mix, now, rows.bookings, placements, {}, ours=hosts is not None)
    for desktop in rows.admitted if world.ours else ():
        if desktop.id not in placements:
            _count_adrift(world, desktop)
    return world


def _of_placements(
    hosts: Iterable[HostFacts], admitted: Iterable[Desktop], placements: Mapping[DesktopId, Placement], now: datetime
) -> tuple[HostTable, _Held]:
    """Return the hosts under the desktops that were placed on them."""
    lent = {(one.host, address) for one in placements.values() for address in one.cards}
    table, held = HostTable(as_free(host, lent) for host in hosts), _Held()
    for desktop in admitted:
        placement = placements.get(desktop.id)
        if placement is not None and placement.host in table.row:
            claim = claim_of(desktop, placement, now)
            restore(table, claim)
            held.setdefault(desktop.experiment, []).append(claim)
    return table, held


def claim_of(desktop: Desktop, placement: Placement, now: datetime) -> Claim:
    """Return what an admitted desktop holds."""
    amount = desktop.resources
    cpu, until = 1000 * amount.vcpus, _end(desktop, now)
    return Claim(desktop.id, placement.host, cpu, amount.memory_mib, amount.disk_gib, placement.grants, placement.node, until)


def _end(desktop: Desktop, now: datetime) -> float | None:
    return desktop.lease_ends_at.timestamp() if desktop.lease_ends_at > now else None


def _of_records(rows: Rows, rules: SrmRules) -> tuple[HostTable, _Held]:
    """Return the hosts of the records under whoever their agents say has a card. Only desktops of ours have a lease."""
    ours = {name_on_host(one.server_id): one for one in rows.admitted if one.server_id is not None}
    table, held = HostTable(core_hosts(rows.records, rows.devices, rows.now, rules)), _Held()
    ends = {name: _end(desktop, rows.now) for name, desktop in ours.items()}
    for name, claim in claims_of(rows.devices, table.row, ends).items():
        restore(table, claim)
        if (desktop := ours.get(name)) is not None:
            # The cloud counts CPU and memory, but of what a booking keeps its desktops use theirs.
            amount = desktop.resources
            with_amounts = replace(claim, cpu_milli=1000 * amount.vcpus, memory_mib=amount.memory_mib)
            held.setdefault(desktop.experiment, []).append(with_amounts)
    return table, held


def _count_adrift(world: World, desktop: Desktop) -> None:
    """Count an admitted desktop without a placement where it would be put now; where nothing fits it is left out."""
    decision = decide(world.scheduler, world.asked(desktop, desktop.lease_ends_at), world.now.timestamp())
    if decision.host is not None:
        claim = take(world.table, decision)
        world.adrift[desktop.id] = Placement(desktop.id, claim.host, claim.grants, claim.node, world.now)


def _restore_booking(table: HostTable, booking: Booking, held: Sequence[Claim], now: datetime) -> None:
    """Write a booking's parts, less what desktops of its experiment use of them already while it lasts."""
    used = set[str]()
    for number, part in enumerate(booking.parts):
        name = part_name(booking, number)
        promise = CoreBooking(
            name, part.host, booking.starts.timestamp(), booking.ends.timestamp(), part.cards, part.cpu_milli, part.memory_mib
        )
        spender = None
        if booking.starts <= now:
            spender = next((one for one in held if one.id not in used and _spends(one, part.host, part.cards)), None)
        left = promise if spender is None else reduced(promise, (spender,))
        if spender is not None:
            used.add(spender.id)
        if left is not None:
            core_bookings.restore(table, left)


def _spends(claim: Claim, host: str, cards: tuple[str, ...]) -> bool:
    mine = {grant.address for grant in claim.grants}
    return claim.host == host and (bool(mine & set(cards)) if cards else not mine)
