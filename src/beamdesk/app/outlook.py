"""What can be had of each size, now and later: the scheduling core's answer over hosts.

An answer is kept as long as nothing changed that it rests on, a quarter of a minute at most, and says of when it is. Where the
cloud places servers, only the records of cards are known: what they do not tell is not said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from beamdesk.app.context import App
from beamdesk.app.promises import never
from beamdesk.app.sizes import request_of
from beamdesk.app.world import Rows, World, read_rows, world_of
from beamdesk.domain.catalog import Flavor, Image, Resources, wanted
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.errors import CloudError, NotSupported
from beamdesk.domain.ids import ExperimentId, FlavorId
from beamdesk.domain.lease import after_the_wait
from beamdesk.domain.outlook import IMAGE_NEEDS, Outlook, Outlooks, State, Sureness
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.future import Chance, chances
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.line import Asked, own
from beamdesk.scheduling.snapshot import take
from beamdesk.scheduling.vocabulary import Words

FRESH_S = 15
"""For so many seconds an answer may be given again: leases and bookings come nearer meanwhile."""
_HOUR_S = 3600


async def outlooks(app: App, experiment: ExperimentId | None = None, image: Image | None = None) -> Outlooks:
    """Return what can be had of each size on offer, with an image and for an experiment if given (its bookings are its own)."""
    now, flavors = app.clock.now(), await app.catalog.flavors()
    try:
        hosts = await app.hosts() if app.hosts is not None else None
    except NotSupported:
        return {one.id: Outlook(State.NEVER, now, ("hosts",)) for one in flavors}
    except CloudError:
        return {one.id: Outlook(State.UNKNOWN, now) for one in flavors}
    async with app.outlooks.lock:
        key, mine = await _key(app, hosts, flavors, experiment, image, now)
        known = app.outlooks.find(key)
        if known is None:
            async with app.store.begin() as tx:
                rows, line = await read_rows(tx, now), await tx.placing.waiting()
            known = await asyncio.to_thread(_look, app, rows, line, hosts, flavors, mine, image)
            app.outlooks.keep(key, known)
    return known


async def _key(
    app: App,
    hosts: tuple[HostFacts, ...] | None,
    flavors: tuple[Flavor, ...],
    experiment: ExperimentId | None,
    image: Image | None,
    now: datetime,
) -> tuple[Hashable, tuple[str, ...]]:
    """Return a key of all that an answer rests on, and the experiment's bookings."""
    async with app.store.begin() as tx:
        marks = await tx.srm.marks(), await tx.placing.marks(now), await tx.placing.line_marks()
        booked = await tx.placing.bookings(now)
    mine = tuple(one.id for one in booked if one.experiment == experiment)
    asked = None if image is None else (image.ref, image.words)
    records = marks[0][0] if hosts is not None else marks[0]
    return (int(now.timestamp() / FRESH_S), hash(hosts), flavors, asked, mine, records, marks[1:]), mine


def _look(
    app: App,
    rows: Rows,
    line: tuple[Desktop, ...],
    hosts: tuple[HostFacts, ...] | None,
    flavors: tuple[Flavor, ...],
    mine: tuple[str, ...],
    image: Image | None,
) -> Outlooks:
    """Ask the core. Pure but for the rules of the site; takes a moment, so that it runs beside the loop."""
    world = world_of(rows, hosts, flavors, app.rules.srm, app.rules.policy)
    found: Outlooks = {}
    probes: dict[FlavorId, Asked] = {}
    for flavor in flavors:
        try:
            words = flavor.words if image is None else wanted(flavor, image)
        except SchedulingError:
            found[flavor.id] = Outlook(State.NEVER, rows.now, (IMAGE_NEEDS,))
            continue
        probe = _probe(app, world, flavor, words, image)
        if probe is None:
            found[flavor.id] = Outlook(State.UNKNOWN, rows.now)
        else:
            probes[flavor.id] = own(world.table, probe.request, mine, rows.now.timestamp())
    now, waiting = rows.now.timestamp(), [_waiting(world, one) for one in line] if world.ours else []
    extension = app.rules.lease.extension.total_seconds()
    result = chances(take(world.table), world.policy, waiting, list(probes.values()), now, extension)
    for name, asked in probes.items():
        found[name] = _outlook(world, asked, result[asked.request.id])
    return {flavor.id: found[flavor.id] for flavor in flavors}


def _waiting(world: World, desktop: Desktop) -> Asked:
    return world.asked(desktop, after_the_wait(desktop.lease_ends_at, desktop.queued_at, world.now))


def _probe(app: App, world: World, flavor: Flavor, words: Words, image: Image | None) -> Asked | None:
    """Return an application for a size as the core's request; None where nothing is known of it."""
    until = world.now + app.rules.lease.initial
    ref = None if image is None else image.ref
    if image is None:
        words = replace(words, image_required=None)
    request = request_of(f"size:{flavor.id}", flavor.resources, until, words, ref, container=world.ours)
    if world.ours:
        return Asked(request)
    if request.cards is None or not world.table.suits(request.cards).any():
        return None
    # The cloud counts CPU and memory, and knows what its hosts are for.
    return Asked(replace(request, cpu_milli=0, memory_mib=0, disk_gib=0, aggregates=frozenset(), image_required=False))


def _outlook(world: World, asked: Asked, chance: Chance) -> Outlook:
    if chance.never:
        if not world.ours:
            return Outlook(State.UNKNOWN, world.now)
        return Outlook(State.NEVER, world.now, never(world.table, asked.request), largest=_largest(world, asked))
    at, by = _time(chance.at), _time(chance.by)
    if not chance.answer.lacking:
        return Outlook(State.NOW, world.now, (), world.now, world.now, Sureness.SURE if world.ours else Sureness.LIKELY)
    if at is None:
        return Outlook(State.WAIT, world.now, chance.answer.lacking)
    return Outlook(State.WAIT, world.now, chance.answer.lacking, at, by, _sureness(world, at, by))


def _time(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def _sureness(world: World, at: datetime, by: datetime | None) -> Sureness:
    if not world.ours or by is None:
        return Sureness.POSSIBLE
    if by <= at:
        return Sureness.SURE
    return Sureness.LIKELY if (by - at).total_seconds() <= _HOUR_S else Sureness.POSSIBLE


def _largest(world: World, asked: Asked) -> Resources:
    """Return the most of each that one host has, with cards of the kind that is asked for."""
    table, cards = world.table, asked.request.cards
    suited = table.suits(cards).sum(axis=1) if cards is not None else (table.state >= 0).sum(axis=1)
    most = [int(np.max(one, initial=0)) for one in (table.cpu_total, table.memory_total, table.disk_total, suited)]
    return Resources(most[0] // 1000, *most[1:])
