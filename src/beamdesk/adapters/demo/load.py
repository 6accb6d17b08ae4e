"""Puts the demo people and experiments into the store. Running it again changes nothing; desktops are left alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from beamdesk.domain.experiment import Experiment
from beamdesk.domain.person import Person
from beamdesk.ports.store import Store


async def load_demo(store: Store, people: Iterable[Person], experiments: Iterable[Experiment]) -> None:
    """Insert or replace those people and experiments that differ from what the store has; a team that was changed stays so."""
    people, experiments = tuple(people), tuple(experiments)
    async with store.begin() as tx:
        stale = [person for person in people if await tx.people.person(person.id) != person]
        known = [(one, await tx.people.experiment(one.id)) for one in experiments]
    wanted = [(replace(one, team=before.team) if before else one, before) for one, before in known]
    changed = [one for one, before in wanted if one != before]
    if not stale and not changed:
        return
    async with store.begin(write=True) as tx:
        for person in stale:
            await tx.people.put_person(person)
        for experiment in changed:
            await tx.people.put_experiment(experiment)
