"""The scheduling core's table for this site: the driver's hosts, what their agents report, who is admitted, what is booked.

Built anew for each question from the store and the hosts: there is no state in a process that could differ from another's. Nothing
is decided here. Hosts are asked for before a transaction, everything else is read inside the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from beamdesk.app.srm_snapshot import core_hosts
from beamdesk.domain.catalog import Flavor, Resources, sized
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.ids import DesktopId, ExperimentId
from beamdesk.domain.placement import Booking, Placement
from beamdesk.domain.srm import DeviceRecord, HostRecord, SrmRules
from beamdesk.ports.store import Transaction
from beamdesk.scheduling import bookings as core_bookings
from beamdesk.scheduling.bookings import Booking as CoreBooking
from beamdesk.scheduling.cards import Card, CardState
from beamdesk.scheduling.claims import Claim, restore
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.fragment import Mix, Task
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.line import Asked, decide, reduced, take
from beamdesk.scheduling.policy import DEFAULT, Policy, make
from beamdesk.scheduling.request import CardDemand, Request
from beamdesk.scheduling.state import HostTable
from beamdesk.scheduling.vocabulary import Words, demand, request_for


@dataclass(frozen=True, slots=True)
class World:
    """The table, how it is decided over, and the bookings as the site knows them.

    ``adrift``: admitted desktops that no placement was kept of (from before there were any), with where they are counted meanwhile.
    """

    scheduler: Scheduler
    mix: Mix
    now: datetime
    bookings: tuple[Booking, ...]
    placements: dict[DesktopId, Placement]
    adrift: dict[DesktopId, Placement]

    @property
    def table(self) -> HostTable:
        """Return the table."""
        return self.scheduler.table

    def policy(self, table: HostTable) -> Policy:
        """Make the policy for a copy of the table."""
        return make(self.scheduler.policy.name, table, self.mix)

    def asked(self, desktop: Desktop, until: datetime) -> Asked:
        """Return what a desktop asks of the scheduler, with a lease until then."""
        request = request_of(desktop.id, desktop.resources, until, desktop.words, desktop.image_ref)
        return asked_of(request, desktop.experiment, self.bookings, self.now)


def demand_of(amount: Resources, words: Words) -> CardDemand | None:
    """Return the cards of a size. A local desktop is a container and may use those that the host drives."""
    return demand(sized(words, amount), container=True)


def request_of(name: str, amount: Resources, until: datetime | None, words: Words, image_ref: str | None = None) -> Request:
    """Return a size as the core's request.

    Raises:
        InvalidRequest: an image is required on the host, and none is named.
    """
    return request_for(
        name,
        sized(words, amount),
        vcpus=amount.vcpus,
        memory_mib=amount.memory_mib,
        disk_gib=amount.disk_gib,
        image_ref=image_ref,
        container=True,
        until=until.timestamp() if until is not None else None,
    )


def mix_of(flavors: Iterable[Flavor]) -> Mix:
    """Return the sizes on offer as the typical requests, each as often as any other."""
    return tuple(
        Task(1000 * one.resources.vcpus, one.resources.memory_mib, demand_of(one.resources, one.words), 1) for one in flavors
    )


def asked_of(request: Request, experiment: ExperimentId, bookings: Sequence[Booking], now: datetime) -> Asked:
    """Return a request with the bookings of its experiment: those do not keep it away, and the present ones are used first."""
    own = [one for one in bookings if one.experiment == experiment]
    present = [one for one in own if one.starts <= now < one.ends]
    names = {one.id: tuple(part_name(one, number) for number in range(len(one.parts))) for one in own}
    spend = tuple(
        name
        for one in present
        for name, part in zip(names[one.id], one.parts, strict=True)
        if len(part.cards) >= (request.cards.count if request.cards else 0)
    )
    return Asked(request, tuple(name for parts in names.values() for name in parts), spend)


def part_name(booking: Booking, number: int) -> str:
    """Return the core's name of one part of a booking."""
    return f"{booking.id}.{number}"


async def read_world(
    tx: Transaction,
    hosts: Sequence[HostFacts],
    flavors: Iterable[Flavor],
    now: datetime,
    rules: SrmRules,
    policy: str = DEFAULT,
    *,
    ours: bool = True,
) -> World:
    """Read everything into a table. In one transaction, so that it is one moment's state.

    ``ours``: desktops are placed by us, so that one without a placement has to be counted somewhere all the same.
    """
    records = await tx.srm.hosts()
    devices = await tx.srm.devices()
    admitted = await tx.desktops.holders()
    placements = {one.desktop: one for one in await tx.placing.placements()}
    booked = await tx.placing.bookings(now)
    lent = {(one.host, address) for one in placements.values() for address in one.cards}
    table = HostTable(_as_free(host, lent) for host in overlaid(hosts, records, devices, now, rules))
    placed = [(one, placements[one.id]) for one in admitted if one.id in placements and placements[one.id].host in table.row]
    claims = {desktop.experiment: [] for desktop, _ in placed}  # type: dict[ExperimentId, list[Claim]]
    for desktop, placement in placed:
        claim = claim_of(desktop, placement, now)
        restore(table, claim)
        claims[desktop.experiment].append(claim)
    for booking in booked:
        _restore_booking(table, booking, claims.get(booking.experiment, ()), now)
    mix = mix_of(flavors)
    world = World(Scheduler(table, make(policy, table, mix), keep=5), mix, now, booked, placements, {})
    for desktop in admitted:
        if ours and desktop.id not in placements:
            _count_adrift(world, desktop)
    return world


def claim_of(desktop: Desktop, placement: Placement, now: datetime) -> Claim:
    """Return what an admitted desktop holds."""
    amount, until = desktop.resources, desktop.lease_ends_at
    return Claim(
        desktop.id,
        placement.host,
        1000 * amount.vcpus,
        amount.memory_mib,
        amount.disk_gib,
        placement.grants,
        placement.node,
        until.timestamp() if until > now else None,
    )


def _count_adrift(world: World, desktop: Desktop) -> None:
    """Count an admitted desktop without a placement where it would be put now; where nothing fits it is left out."""
    decision = decide(world.scheduler, world.asked(desktop, desktop.lease_ends_at), world.now.timestamp())
    if decision.host is not None:
        claim = take(world.table, decision)
        world.adrift[desktop.id] = Placement(desktop.id, claim.host, claim.grants, claim.node, world.now)


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


def _as_free(host: HostFacts, lent: set[tuple[str, str]]) -> HostFacts:
    """Return a host as it is without our desktops: a card that is reported as used by one of them becomes used by its claim."""
    cards = tuple(
        replace(card, state=CardState.FREE) if card.state is CardState.USED and (host.name, card.address) in lent else card
        for card in host.cards
    )
    return replace(host, cards=cards)


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
