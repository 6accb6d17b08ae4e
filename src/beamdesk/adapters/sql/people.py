"""People and experiments, as far as Beamdesk must know them to decide and to make accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select, true

from beamdesk.adapters.sql import schema
from beamdesk.adapters.sql.tables import Tables
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import ExperimentId, PersonId
from beamdesk.domain.person import Person, Role
from beamdesk.domain.text import Text

_person = schema.person
_experiment = schema.experiment
_member = schema.experiment_member


class SqlPeople(Tables):
    """`beamdesk.ports.store.People` on a database."""

    async def person(self, person_id: PersonId) -> Person | None:
        """Return a person."""
        return await self._one_person(_person.c.id == person_id)

    async def person_by_login(self, login: str) -> Person | None:
        """Return a person by login name."""
        return await self._one_person(_person.c.login == login)

    async def _one_person(self, which: ColumnElement[bool]) -> Person | None:
        row = await self._read_one(select(_person).where(which))
        return _person_from(row) if row else None

    async def put_person(self, person: Person) -> None:
        """Insert or replace a person."""
        names = ("id", "login", "full_name", "uid", "language")
        values = {name: getattr(person, name) for name in names}
        values |= {"role": str(person.role), "beamlines": sorted(person.beamlines)}
        await self._upsert(_person, "id", values)

    async def experiment(self, experiment_id: ExperimentId) -> Experiment | None:
        """Return an experiment with its team."""
        found = await self._experiments(_experiment.c.id == experiment_id)
        return found[0] if found else None

    async def experiments_of(self, person_id: PersonId) -> tuple[Experiment, ...]:
        """Return the experiments with this person in the team, newest first."""
        mine = select(_member.c.experiment_id).where(_member.c.person_id == person_id)
        return await self._experiments(_experiment.c.id.in_(mine))

    async def all_experiments(self) -> tuple[Experiment, ...]:
        """Return all experiments, newest first."""
        return await self._experiments(true())

    async def _experiments(self, which: ColumnElement[bool]) -> tuple[Experiment, ...]:
        rows = await self._read(select(_experiment).where(which).order_by(_experiment.c.starts.desc(), _experiment.c.id))
        chosen = select(_experiment.c.id).where(which)
        teams: dict[str, set[PersonId]] = {row["id"]: set() for row in rows}
        for member in await self._read(select(_member).where(_member.c.experiment_id.in_(chosen))):
            teams.setdefault(member["experiment_id"], set()).add(PersonId(member["person_id"]))
        return tuple(_experiment_from(row, frozenset(teams[row["id"]])) for row in rows)

    async def put_experiment(self, experiment: Experiment) -> None:
        """Insert or replace an experiment and its team."""
        names = ("id", "proposal", "beamline", "starts", "ends", "folder", "gid")
        values = {name: getattr(experiment, name) for name in names}
        values |= {"title_en": experiment.title.en, "title_zh": experiment.title.zh}
        values |= {"beamline_title_en": experiment.beamline_title.en, "beamline_title_zh": experiment.beamline_title.zh}
        await self._upsert(_experiment, "id", values)
        await self._write(delete(_member).where(_member.c.experiment_id == experiment.id))
        for person_id in sorted(experiment.team):
            await self._write(insert(_member).values(experiment_id=experiment.id, person_id=person_id))


def _person_from(row: Mapping[Any, Any]) -> Person:
    return Person(**{**row, "role": Role(row["role"]), "beamlines": frozenset(row["beamlines"])})


def _experiment_from(row: Mapping[Any, Any], team: frozenset[PersonId]) -> Experiment:
    names = ("id", "proposal", "beamline", "starts", "ends", "folder", "gid")
    return Experiment(
        **{name: row[name] for name in names},
        title=Text(row["title_en"], row["title_zh"]),
        beamline_title=Text(row["beamline_title_en"], row["beamline_title_zh"]),
        team=team,
    )
