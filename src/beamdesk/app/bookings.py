"""Use cases of bookings: an experiment's local contact or an operator books desktops for a slot, looks, cancels.

Cards and hosts are chosen by the scheduling core, which promises nothing twice. Times are UTC; half-open intervals.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.desktops import clean_name, visible_experiments
from beamdesk.app.logins import Caller
from beamdesk.app.promises import fits_no_host
from beamdesk.app.sizes import request_of
from beamdesk.app.views import flavor_of
from beamdesk.app.world import World, read_world
from beamdesk.domain.catalog import Flavor
from beamdesk.domain.errors import Forbidden, Invalid, NotFound, NotSupported, SlotTaken
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import ExperimentId, FlavorId
from beamdesk.domain.person import Person
from beamdesk.domain.placement import BookedPart, Booking
from beamdesk.domain.policy import may_book
from beamdesk.domain.srm import SPENDS_BOOKINGS
from beamdesk.ports.store import Transaction
from beamdesk.scheduling import slots
from beamdesk.scheduling.request import Request

MOST_DESKTOPS = 32
LONGEST, FURTHEST = timedelta(days=14), timedelta(days=366)
READ_LATELY = timedelta(minutes=5)
"""A scheduler of the cloud that read the records so long ago is taken to keep what is booked."""


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
        SlotTaken: not enough is free then; the text says what is in the way, and when it would be. NotSupported: the cloud places
        desktops itself, and nothing there would keep what is booked.
    """
    person, now = caller.person, app.clock.now()
    async with audited(app, "book", actor=person.id, experiment=wanted.experiment):
        experiment = await _bookable(app, person, wanted.experiment)
        if app.hosts is None:
            await _check_that_bookings_are_kept(app, now)
        _check_times(wanted, now)
        note, flavor = _clean_note(wanted.note), await _flavor(app, wanted)
        hosts, flavors = await app.hosts() if app.hosts is not None else None, await app.catalog.flavors()
        async with app.store.begin(write=True) as tx:
            await tx.placing.lock()
            world = await read_world(tx, hosts, flavors, now, app.rules.srm, app.rules.policy)
            parts = _parts(world, wanted, flavor)
            if len(parts) == wanted.desktops:
                name = f"b{app.secrets.id()}"[:40]
                booking = Booking(name, experiment.id, flavor.id, wanted.starts, wanted.ends, parts, person.id, now, note)
                await tx.placing.put_booking(booking)
                await _tell(tx, app, caller, EventKind.BOOKING_MADE, booking)
                await tx.desktops.wake_waiting(now)
        if len(parts) < wanted.desktops:  # outside of the transaction: looking for another slot takes a moment
            raise await asyncio.to_thread(_slot_taken, world, wanted, flavor, len(parts))
    app.hint()
    return BookingView(booking, experiment, may_cancel=True)


async def _check_that_bookings_are_kept(app: App, now: datetime) -> None:
    """Where the cloud places servers itself, only our plugins in its scheduler keep what is booked.

    Raises:
        NotSupported: none has read the records lately, or one that has is too old to know of bookings.
    """
    async with app.store.begin() as tx:
        readers = [one for one in await tx.srm.consumers() if one.used_at is not None and now - one.used_at < READ_LATELY]
    if not readers or min(one.speaks for one in readers) < SPENDS_BOOKINGS:
        raise NotSupported("Nothing on this site's cloud would keep what is booked: its scheduler lacks Beamdesk's plugins.")


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
    if app.hosts is None and not flavor.resources.gpus:
        raise Invalid(
            "Only sizes with a GPU can be booked: the cloud of this site counts CPU and memory by itself.", field="flavor"
        )
    if await fits_no_host(app, flavor.resources, flavor.words):
        raise Invalid("No host of this site could ever run this size. Choose a smaller one.", field="flavor")
    return flavor


def _parts(world: World, wanted: NewBooking, flavor: Flavor) -> tuple[BookedPart, ...]:
    """Return a host and cards for each desktop; for fewer where there is no more room."""
    amount, start, end = flavor.resources, wanted.starts.timestamp(), wanted.ends.timestamp()
    found = slots.find(world.table, _request(world, flavor), wanted.desktops, start, end, world.now.timestamp())
    return tuple(BookedPart(one.host, one.cards, 1000 * amount.vcpus, amount.memory_mib) for one in found)


def _request(world: World, flavor: Flavor) -> Request:
    """Return what is booked as a request. Where the cloud counts CPU and memory, only cards can be looked at."""
    request = request_of("new", flavor.resources, None, replace(flavor.words, image_required=None), container=world.ours)
    return request if world.ours else replace(request, cpu_milli=0, memory_mib=0)


def _slot_taken(world: World, wanted: NewBooking, flavor: Flavor, possible: int) -> SlotTaken:
    """Say how many desktops could be booked, what is in the way (without names of other people), and when they could."""
    start, length = wanted.starts.timestamp(), (wanted.ends - wanted.starts).total_seconds()
    now, latest = world.now.timestamp(), (world.now + FURTHEST).timestamp()
    at = slots.nearest(world.table, _request(world, flavor), wanted.desktops, start, length, now, latest)
    text = f"Of {wanted.desktops} desktops {possible} can be booked for this slot: {_in_the_way(world, wanted, flavor)}."
    if at is None:
        return SlotTaken(text, nearest=None, field="starts")
    begin = datetime.fromtimestamp(at, UTC)
    text += f" The nearest slot of this length with room begins at {begin:%Y-%m-%d %H:%M} UTC."
    return SlotTaken(text, nearest=(begin, begin + (wanted.ends - wanted.starts)), field="starts")


def _in_the_way(world: World, wanted: NewBooking, flavor: Flavor) -> str:
    others = [one for one in world.bookings if one.starts < wanted.ends and wanted.starts < one.ends]
    start = wanted.starts.timestamp()
    held = [one for one in world.table.claims.values() if one.grants or not flavor.resources.gpus]
    leases = [one for one in held if one.until is None or one.until > start]
    why = []
    if others:
        why.append(f"other bookings overlap, the last of them until {max(one.ends for one in others):%Y-%m-%d %H:%M} UTC")
    if leases:
        why.append("leases of running desktops run into it")
    return " and ".join(why) or "the hosts have no more of what they need"


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
