"""Use cases of bookings: an experiment's local contact or an operator books desktops for a slot, looks, cancels.

Cards and hosts are chosen by the scheduling core, which promises nothing twice. Times are UTC; half-open intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.desktops import clean_name, visible_experiments
from beamdesk.app.logins import Caller
from beamdesk.app.promises import fits_no_host
from beamdesk.app.views import flavor_of
from beamdesk.app.world import World, demand_of, read_world
from beamdesk.domain.catalog import Flavor
from beamdesk.domain.errors import Conflict, Forbidden, Invalid, NotFound, NotSupported
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import ExperimentId, FlavorId
from beamdesk.domain.person import Person
from beamdesk.domain.placement import BookedPart, Booking
from beamdesk.domain.policy import may_book
from beamdesk.ports.store import Transaction
from beamdesk.scheduling import bookings as core
from beamdesk.scheduling.errors import NotFree
from beamdesk.scheduling.state import FAILED

MOST_DESKTOPS = 32
LONGEST, FURTHEST = timedelta(days=14), timedelta(days=366)


@dataclass(frozen=True, slots=True)
class NewBooking:
    """What is booked: so many desktops of a size, for an experiment, from when to when."""

    experiment: ExperimentId
    flavor: FlavorId
    starts: datetime
    ends: datetime
    desktops: int = 1
    note: str = ""


@dataclass(frozen=True, slots=True)
class BookingView:
    """A booking with its experiment. ``may_cancel``: the caller may take it back."""

    booking: Booking
    experiment: Experiment
    may_cancel: bool


async def book(app: App, caller: Caller, wanted: NewBooking) -> BookingView:
    """Book desktops for a slot.

    Raises:
        Forbidden: the caller is neither local contact of the experiment nor operator. Invalid: times, size or number cannot be.
        Conflict: not enough is free then; the text says what is in the way. NotSupported: the cloud places desktops itself.
    """
    person, now = caller.person, app.clock.now()
    async with audited(app, "book", actor=person.id, experiment=wanted.experiment):
        if app.hosts is None:
            raise NotSupported("Desktops of this site are placed by its cloud; bookings are made there.")
        experiment = await _bookable(app, person, wanted.experiment)
        _check_times(wanted, now)
        note, flavor = _clean_note(wanted.note), await _flavor(app, wanted)
        hosts, flavors = await app.hosts(), await app.catalog.flavors()
        async with app.store.begin(write=True) as tx:
            await tx.placing.lock()
            world = await read_world(tx, hosts, flavors, now, app.rules.srm, app.rules.policy)
            parts = _parts(world, wanted, flavor)
            booking = Booking(
                f"b{app.secrets.id()}"[:40], experiment.id, flavor.id, wanted.starts, wanted.ends, parts, person.id, now, note
            )
            await tx.placing.put_booking(booking)
            await _tell(tx, app, caller, EventKind.BOOKING_MADE, booking)
            await tx.desktops.wake_waiting(now)
    app.hint()
    return BookingView(booking, experiment, may_cancel=True)


async def _bookable(app: App, person: Person, experiment_id: ExperimentId) -> Experiment:
    async with app.store.begin() as tx:
        experiment = await tx.people.experiment(experiment_id)
        seen = experiment is not None and (may_book(person, experiment) or experiment.has_member(person.id))
    if experiment is None or not seen:
        raise NotFound("There is no such experiment, or you are not its local contact.")
    if not may_book(person, experiment):
        raise Forbidden("Only the local contact of an experiment, or an operator, may book for it.", field="experiment")
    return experiment


def _check_times(wanted: NewBooking, now: datetime) -> None:
    if wanted.ends <= wanted.starts:
        raise Invalid("A booking ends after it begins.", field="ends")
    if wanted.ends <= now:
        raise Invalid("This slot is over already.", field="ends")
    if wanted.ends - wanted.starts > LONGEST:
        raise Invalid(f"A booking is at most {LONGEST.days} days long.", field="ends")
    if wanted.starts > now + FURTHEST:
        raise Invalid("A booking begins within a year.", field="starts")
    if not 1 <= wanted.desktops <= MOST_DESKTOPS:
        raise Invalid(f"A booking is for 1 to {MOST_DESKTOPS} desktops.", field="desktops")


def _clean_note(note: str) -> str:
    try:
        return clean_name(note)
    except Invalid as error:
        raise Invalid("A note is one line of at most 60 characters, none of them invisible.", field="note") from error


async def _flavor(app: App, wanted: NewBooking) -> Flavor:
    flavor = await flavor_of(app, wanted.flavor)
    if flavor is None:
        known = ", ".join(one.id for one in await app.catalog.flavors())
        raise Invalid(f"There is no size of this name. Sizes on offer: {known}.", field="flavor")
    if await fits_no_host(app, flavor.resources, flavor.words):
        raise Invalid("No host of this site could ever run this size. Choose a smaller one.", field="flavor")
    return flavor


def _parts(world: World, wanted: NewBooking, flavor: Flavor) -> tuple[BookedPart, ...]:
    """Find a host and cards for each desktop, the tightest host first, so that large ones stay whole.

    Raises:
        Conflict: there are not enough; the text says how many there are and what is in the way.
    """
    parts: list[BookedPart] = []
    for number in range(wanted.desktops):
        part = _part(world, wanted, flavor, number)
        if part is None:
            raise Conflict(_in_the_way(world, wanted, len(parts)), field="starts")
        parts.append(part)
    return tuple(parts)


def _part(world: World, wanted: NewBooking, flavor: Flavor, number: int) -> BookedPart | None:
    table, amount = world.table, flavor.resources
    demand = demand_of(amount, flavor.words)
    start, end = wanted.starts.timestamp(), wanted.ends.timestamp()
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for row, name in enumerate(table.names):
        if not table.enabled[row] or table.dedicated[row]:
            continue
        cards: list[str] = []
        if demand is not None:
            taken = core.blocked(table, row, start, end, None)
            usable = table.suits(demand)[row] & (table.state[row] != FAILED)
            cards = [address for at, address in enumerate(table.addresses[row]) if usable[at] and address not in taken]
            cards = [address for address in cards if not _held(world, row, address, start)]
        if len(cards) >= amount.gpus:
            found.append((len(table.addresses[row]) if demand is None else len(cards), name, tuple(cards[: amount.gpus])))
    for _, name, chosen in sorted(found):
        promise = core.Booking(f"new.{number}", name, start, end, chosen, 1000 * amount.vcpus, amount.memory_mib)
        try:
            core.add(table, promise, world.now.timestamp())
        except NotFree:
            continue
        return BookedPart(name, chosen, promise.cpu_milli, promise.memory_mib)
    return None


def _held(world: World, row: int, address: str, start: float) -> bool:
    """Tell whether a present desktop's lease on a card runs into the slot."""
    for name in world.table.holders[row]:
        claim = world.table.claims[name]
        if any(grant.address == address for grant in claim.grants) and (claim.until is None or claim.until > start):
            return True
    return False


def _in_the_way(world: World, wanted: NewBooking, possible: int) -> str:
    """Say how many desktops could be booked and why not more, without names of other people."""
    others = [one for one in world.bookings if one.starts < wanted.ends and wanted.starts < one.ends]
    leases = [one.until for one in world.table.claims.values() if one.until is None or one.until > wanted.starts.timestamp()]
    why = []
    if others:
        why.append(f"other bookings overlap, the last of them until {max(one.ends for one in others):%Y-%m-%d %H:%M} UTC")
    if leases:
        why.append("leases of running desktops run into it")
    text = f"Of {wanted.desktops} desktops {possible} can be booked for this slot"
    return f"{text}: {' and '.join(why)}." if why else f"{text}: the hosts have no more of what they need."


async def list_bookings(app: App, caller: Caller) -> tuple[BookingView, ...]:
    """Return present and future bookings: all to operators, else those of own experiments and of own beamlines."""
    person, now = caller.person, app.clock.now()
    async with app.store.begin() as tx:
        experiments = await tx.people.all_experiments() if person.is_operator else await visible_experiments(tx, person)
        bookings = await tx.placing.bookings(now)
    known = {one.id: one for one in experiments}
    return tuple(
        BookingView(one, known[one.experiment], may_book(person, known[one.experiment]))
        for one in bookings
        if one.experiment in known
    )


async def bookable_experiments(app: App, caller: Caller) -> tuple[Experiment, ...]:
    """Return the experiments for which the caller may book."""
    async with app.store.begin() as tx:
        return tuple(one for one in await tx.people.all_experiments() if may_book(caller.person, one))


async def cancel(app: App, caller: Caller, booking_id: str) -> None:
    """Take a booking back; what it promised is free at once. Cancelling twice is not found.

    Raises:
        NotFound: there is none, or it is not the caller's to know of. Forbidden: the caller may see it only.
    """
    person, now = caller.person, app.clock.now()
    async with audited(app, "cancel_booking", actor=person.id), app.store.begin(write=True) as tx:
        booking = await tx.placing.booking(booking_id)
        experiment = await tx.people.experiment(booking.experiment) if booking is not None else None
        if booking is None or experiment is None or not (may_book(person, experiment) or experiment.has_member(person.id)):
            raise NotFound("There is no such booking.")
        if not may_book(person, experiment):
            raise Forbidden("Only the local contact of the experiment, or an operator, may cancel its bookings.")
        await tx.placing.remove_booking(booking_id)
        await _tell(tx, app, caller, EventKind.BOOKING_CANCELLED, booking)
        await tx.desktops.wake_waiting(now)
    app.hint()


async def _tell(tx: Transaction, app: App, caller: Caller, kind: EventKind, booking: Booking) -> None:
    data: dict[str, str | int | float | bool | None] = {
        "booking": booking.id,
        "flavor": booking.flavor,
        "desktops": len(booking.parts),
        "starts": booking.starts.isoformat(),
        "ends": booking.ends.isoformat(),
    }
    await tx.events.add(app.clock.now(), NewEvent(kind, caller.person.id, experiment=booking.experiment, data=data))
