"""Experiments as the user office tells of them. A change of a team takes effect at once: who left loses streams and desktops."""

from __future__ import annotations

from beamdesk.app.context import App
from beamdesk.domain.desktop import Desired, Reason
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import PersonId
from beamdesk.ports.store import Transaction

_ALL = 1000


async def put_experiment(app: App, experiment: Experiment) -> None:
    """Insert or replace an experiment and its team.

    In the same transaction the viewer sessions of those who are not in the team any more end (the gateway cuts their streams within
    one second), and their running desktops are stopped, because those have the experiment's data mounted. Homes are kept.
    """
    now = app.clock.now()
    async with app.store.begin(write=True) as tx:
        before = await tx.people.experiment(experiment.id)
        await tx.people.put_experiment(experiment)
        for person in sorted((before.team if before else frozenset()) - experiment.team):
            await tx.sessions.end_sessions(now, "team_changed", person=person, experiment=experiment.id)
            await _stop_desktops(app, tx, person, experiment)
    app.hint()


async def _stop_desktops(app: App, tx: Transaction, person: PersonId, experiment: Experiment) -> None:
    now = app.clock.now()
    for desktop in await tx.desktops.page(owner=person, limit=_ALL):
        if desktop.experiment != experiment.id or desktop.desired is not Desired.RUNNING:
            continue
        await tx.desktops.change_intent(desktop.id, now=now, desired=Desired.STOPPED, reason=Reason.OPERATOR)
        await tx.sessions.end_sessions(now, "team_changed", desktop=desktop.id)
        data = {"desired": str(Desired.STOPPED), "name": desktop.name}
        await tx.events.add(now, NewEvent(EventKind.DESKTOP_INTENT, None, desktop.id, person, experiment.id, data))
