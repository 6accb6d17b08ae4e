"""The caller's events: pages for *Activity*, and the live feed behind SSE."""

from __future__ import annotations

from collections.abc import AsyncIterator

from beamdesk.app.context import App
from beamdesk.app.desktops import get_desktop, visible_experiments
from beamdesk.app.logins import Caller
from beamdesk.domain.events import Event
from beamdesk.domain.ids import DesktopId, EventId, ExperimentId, PersonId
from beamdesk.ports.store import Transaction

BATCH = 100


async def list_events(
    app: App, caller: Caller, *, desktop_id: DesktopId | None = None, before: EventId | None = None, limit: int = 50
) -> tuple[Event, ...]:
    """Return the newest events that the caller may see: own, of own experiments' desktops; everything for operators."""
    if desktop_id is not None:
        await get_desktop(app, caller, desktop_id)
    async with app.store.begin() as tx:
        owner, experiments = await _scope(tx, caller)
        return await tx.events.page(
            owner=owner, actor=owner, experiments=experiments, desktop_id=desktop_id, before=before, limit=limit
        )


async def _scope(tx: Transaction, caller: Caller) -> tuple[PersonId | None, tuple[ExperimentId, ...] | None]:
    if caller.person.is_operator:
        return None, None
    experiments = await visible_experiments(tx, caller.person)
    return caller.person.id, tuple(experiment.id for experiment in experiments)


async def follow(
    app: App, caller: Caller, *, after: EventId | None = None, desktop_id: DesktopId | None = None, idle_s: float = 15.0
) -> AsyncIterator[tuple[Event, ...]]:
    """Yield batches of events newer than ``after`` (default: from now), oldest first; an empty batch at least every ``idle_s``.

    Person and teams are read anew for every batch, so that who leaves a team or loses a role stops receiving.
    """
    async with app.store.begin() as tx:
        now = await tx.events.last_id()  # a later id is of a database that was restored since: waiting for it would be for ever
        position = min(after, now) if after is not None else now
    while True:
        async with app.store.begin() as tx:
            newest = await tx.events.last_id()  # read before the page: nothing up to it can be missed
            person = await tx.people.person(caller.person.id)
            if person is None:
                return
            owner, experiments = await _scope(tx, Caller(person, caller.login_id))
            batch = await tx.events.page(
                owner=owner,
                actor=owner,
                experiments=experiments,
                desktop_id=desktop_id,
                after=position,
                limit=BATCH,
                newest_first=False,
            )
        yield batch
        if len(batch) == BATCH:
            position = batch[-1].id
            continue
        position = max(position, newest, batch[-1].id if batch else position)
        await app.store.wait_for_events(position, idle_s)
