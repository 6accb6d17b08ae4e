"""Who has which card when: leases and bookings of every card in a stretch of time, for whoever may book. Reads only.

Names are told of what the caller may see; of everything else only that it is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.desktops import visible_experiments
from beamdesk.app.logins import Caller
from beamdesk.app.world import Rows, World, read_rows, world_of
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.errors import CloudError, Forbidden
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import ExperimentId, PersonId
from beamdesk.domain.placement import Booking
from beamdesk.domain.policy import may_book
from beamdesk.domain.server import name_on_host
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.state import STATES


class SpanKind(StrEnum):
    """What takes a card for a time."""

    LEASE = "lease"
    BOOKING = "booking"


@dataclass(frozen=True, slots=True)
class Span:
    """A card is taken from ``start`` to ``end`` (None = no end is known). Empty ``desktop`` and ``booking``: somebody else's.

    ``proposal``: whose experiment it is; ``name``: of the desktop, or the booking's note; ``person``: who has it.
    """

    kind: SpanKind
    start: datetime
    end: datetime | None
    proposal: str = ""
    name: str = ""
    person: str = ""
    desktop: str = ""
    booking: str = ""


@dataclass(frozen=True, slots=True)
class Track:
    """One card, or, with an empty ``card``, what is booked of a host without one."""

    host: str
    card: str
    model: str
    state: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """What the caller may be told: experiments, and the names of people."""

    experiments: Mapping[ExperimentId, Experiment]
    people: Mapping[PersonId, str]

    def lease(self, desktop: Desktop | None, start: datetime, end: datetime | None) -> Span:
        """Return what a desktop takes."""
        experiment = self.experiments.get(desktop.experiment) if desktop is not None else None
        if desktop is None or experiment is None:
            return Span(SpanKind.LEASE, start, end)
        person = self.people.get(desktop.owner, "")
        return Span(SpanKind.LEASE, start, end, experiment.proposal, desktop.name, person, desktop=desktop.id)

    def booking(self, booking: Booking) -> Span:
        """Return what a booking takes."""
        experiment = self.experiments.get(booking.experiment)
        if experiment is None:
            return Span(SpanKind.BOOKING, booking.starts, booking.ends)
        return Span(SpanKind.BOOKING, booking.starts, booking.ends, experiment.proposal, booking.note, booking=booking.id)


async def see_timeline(app: App, caller: Caller) -> tuple[Track, ...]:
    """Return what takes every card from now on, by host and address.

    Raises:
        Forbidden: the caller may book for no experiment.
    """
    now, flavors = app.clock.now(), await app.catalog.flavors()
    hosts = await _hosts(app)
    async with audited(app, "see_timeline", actor=caller.person.id), app.store.begin() as tx:
        everything = await tx.people.all_experiments()
        if not any(may_book(caller.person, one) for one in everything):
            raise Forbidden("Only local contacts of experiments and operators may see who has which card.")
        visible = everything if caller.person.is_operator else await visible_experiments(tx, caller.person)
        rows = await read_rows(tx, now)
        experiments = {one.id: one for one in visible}
        owners = {one.owner for one in rows.admitted if one.experiment in experiments}
        people = {owner: person.full_name for owner in owners if (person := await tx.people.person(owner)) is not None}
    world = world_of(rows, hosts, flavors, app.rules.srm, app.rules.policy)
    return tuple(_tracks(world, rows, _Known(experiments, people)))


async def _hosts(app: App) -> tuple[HostFacts, ...] | None:
    """Return the driver's hosts, none while it does not answer; None where the cloud places servers itself."""
    if app.hosts is None:
        return None
    try:
        return await app.hosts()
    except CloudError:
        return ()


def _tracks(world: World, rows: Rows, known: _Known) -> Iterable[Track]:
    table = world.table
    for row, host in enumerate(table.hosts):
        leases = _leases(world, rows, row, known)
        for card in sorted(host.cards, key=lambda one: one.address):
            state = STATES[table.state[row, table.position(row, card.address)]]
            booked = [known.booking(one) for one in world.bookings if _of_card(one, host.name, card.address)]
            spans = sorted((*leases.get(card.address, ()), *booked), key=lambda one: one.start)
            yield Track(host.name, card.address, card.model, str(state), tuple(spans))
        whole = tuple(
            known.booking(one) for one in world.bookings for part in one.parts if part.host == host.name and not part.cards
        )
        if whole:
            yield Track(host.name, "", "", "", whole)


def _of_card(booking: Booking, host: str, address: str) -> bool:
    return any(part.host == host and address in part.cards for part in booking.parts)


def _leases(world: World, rows: Rows, row: int, known: _Known) -> dict[str, list[Span]]:
    """Return what is lent of a host's cards now, by address."""
    desktops = {str(one.id): one for one in rows.admitted}
    desktops |= {name_on_host(one.server_id): one for one in rows.admitted if one.server_id is not None}
    since = {(one.host, one.address): one.state_since for one in rows.devices}
    found: dict[str, list[Span]] = {}
    for name in sorted(world.table.holders[row]):
        claim = world.table.claims[name]
        desktop = desktops.get(name)
        placement = world.placements.get(desktop.id) if desktop is not None else None
        end = None if claim.until is None else datetime.fromtimestamp(claim.until, UTC)
        for grant in claim.grants:
            start = placement.at if placement is not None else since.get((claim.host, grant.address), world.now)
            found.setdefault(grant.address, []).append(known.lease(desktop, start, end))
    return found
