"""Experiments as the user office tells of them. A change of a team takes effect at once: who left loses streams and desktops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.logins import Caller
from beamdesk.domain.desktop import Desired, Reason
from beamdesk.domain.errors import Forbidden, Invalid, NotFound
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import ExperimentId, PersonId
from beamdesk.domain.person import Person
from beamdesk.domain.policy import may_see_team
from beamdesk.ports.store import Transaction

_ALL = 1000


@dataclass(frozen=True, slots=True)
class Team:
    """An experiment with the people of its team, by login."""

    experiment: Experiment
    members: tuple[Person, ...]


async def show_team(app: App, caller: Caller, experiment_id: ExperimentId) -> Team:
    """Return the team, for its members, the beamline's local contacts and operators.

    Raises:
        NotFound: no such experiment, or not for this person; recorded.
    """
    async with audited(app, "see_team", actor=caller.person.id, experiment=experiment_id), app.store.begin() as tx:
        return await _team(tx, await _seen(tx, caller, experiment_id))


async def change_team(
    app: App, caller: Caller, experiment_id: ExperimentId, *, add: Sequence[str] = (), remove: Sequence[str] = ()
) -> Team:
    """Take people (by login) into a team and out of it, for operators; see :func:`put_experiment` for what follows.

    Adding a member and removing a stranger are fine: the team is as asked afterwards.

    Raises:
        NotFound: no such experiment, or not for this person. Forbidden: not an operator. Both are recorded.
        Invalid: nobody has such a login.
    """
    async with audited(app, "change_team", actor=caller.person.id, experiment=experiment_id), app.store.begin(write=True) as tx:
        experiment = await _seen(tx, caller, experiment_id)
        if not caller.person.is_operator:
            raise Forbidden("Only an operator may change a team. Ask the user office.")
        joining, leaving = await _ids(tx, add, "add"), await _ids(tx, remove, "remove")
        changed = replace(experiment, team=(experiment.team | joining) - leaving)
        await _put(app, tx, changed, caller.person.id)
        team = await _team(tx, changed)
    app.hint()
    return team


async def put_experiment(app: App, experiment: Experiment) -> None:
    """Insert or replace an experiment and its team.

    In the same transaction the viewer sessions of those who are not in the team any more end (the gateway cuts their streams within
    one second), and their running desktops are stopped, because those have the experiment's data mounted. Homes are kept.
    """
    async with app.store.begin(write=True) as tx:
        await _put(app, tx, experiment, None)
    app.hint()


async def _put(app: App, tx: Transaction, experiment: Experiment, actor: PersonId | None) -> None:
    now = app.clock.now()
    before = await tx.people.experiment(experiment.id)
    if before == experiment:
        return
    await tx.people.put_experiment(experiment)
    team = before.team if before else frozenset()
    for person in sorted(experiment.team - team):
        await tx.events.add(now, await _told(tx, experiment, actor, person, "joined"))
    for person in sorted(team - experiment.team):
        await tx.events.add(now, await _told(tx, experiment, actor, person, "left"))
        await tx.sessions.end_sessions(now, "team_changed", person=person, experiment=experiment.id)
        await _stop_desktops(app, tx, person, experiment)


async def _told(tx: Transaction, experiment: Experiment, actor: PersonId | None, person: PersonId, state: str) -> NewEvent:
    member = await tx.people.person(person)
    data = {"member": member.full_name if member else person, "state": state}
    return NewEvent(EventKind.TEAM_CHANGED, actor, None, person, experiment.id, data)


async def _seen(tx: Transaction, caller: Caller, experiment_id: ExperimentId) -> Experiment:
    experiment = await tx.people.experiment(experiment_id)
    if experiment is None or not may_see_team(caller.person, experiment):
        raise NotFound("There is no such experiment, or you are not in its team.")
    return experiment


async def _ids(tx: Transaction, logins: Sequence[str], field: str) -> frozenset[PersonId]:
    found = set()
    for login in logins:
        person = await tx.people.person_by_login(login)
        if person is None:
            raise Invalid(f"Nobody has the login name {login}.", field=field)
        found.add(person.id)
    return frozenset(found)


async def _team(tx: Transaction, experiment: Experiment) -> Team:
    people = [await tx.people.person(person) for person in experiment.team]
    return Team(experiment, tuple(sorted((one for one in people if one is not None), key=lambda one: one.login)))


async def _stop_desktops(app: App, tx: Transaction, person: PersonId, experiment: Experiment) -> None:
    now = app.clock.now()
    for desktop in await tx.desktops.page(owner=person, limit=_ALL):
        if desktop.experiment != experiment.id or desktop.desired is not Desired.RUNNING:
            continue
        await tx.desktops.change_intent(desktop.id, now=now, desired=Desired.STOPPED, reason=Reason.OPERATOR)
        await tx.sessions.end_sessions(now, "team_changed", desktop=desktop.id)
        data = {"desired": str(Desired.STOPPED), "name": desktop.name}
        await tx.events.add(now, NewEvent(EventKind.DESKTOP_INTENT, None, desktop.id, person, experiment.id, data))
