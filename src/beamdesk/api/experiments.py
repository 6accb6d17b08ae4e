"""The caller's experiments, and their teams."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from beamdesk.api.callers import Application, ExperimentIdPath, SignedIn
from beamdesk.api.models import Items, Text, Time, answer
from beamdesk.api.problems import documented
from beamdesk.app import experiments, offers
from beamdesk.domain import experiment

router = APIRouter(tags=["experiments"])


class Experiment(BaseModel):
    """An experiment: proposal, beamline and dates."""

    id: str = Field(examples=["heps-2026-0147"])
    proposal: str = Field(examples=["HEPS-2026-0147"])
    title: Text
    beamline: str = Field(examples=["B7"])
    beamline_title: Text
    starts: Time
    ends: Time

    @classmethod
    def of(cls, one: experiment.Experiment) -> Experiment:
        """Return the wire shape."""
        return cls(
            id=one.id,
            proposal=one.proposal,
            title=Text.of(one.title),
            beamline=one.beamline,
            beamline_title=Text.of(one.beamline_title),
            starts=one.starts,
            ends=one.ends,
        )


class Member(BaseModel):
    """One of a team."""

    login: str = Field(examples=["ada"])
    full_name: str = Field(examples=["Ada Lin"])


class TeamChange(BaseModel):
    """Who is taken into a team and who out of it, by login name."""

    model_config = ConfigDict(extra="forbid")

    add: list[str] = Field(default=[], max_length=100, examples=[["bob"]])
    remove: list[str] = Field(default=[], max_length=100, examples=[[]])


def _members(team: experiments.Team) -> Response:
    return answer(Items[Member](items=[Member(login=one.login, full_name=one.full_name) for one in team.members]))


@router.get("/experiments", response_model=Items[Experiment], responses=documented(), summary="My experiments")
async def list_experiments(app: Application, caller: SignedIn) -> Response:
    """Return the experiments whose team the caller is in, newest first."""
    return answer(Items[Experiment](items=[Experiment.of(one) for one in await offers.list_experiments(app, caller)]))


@router.get("/experiments/{experiment_id}", response_model=Experiment, responses=documented("not_found"), summary="One experiment")
async def get_experiment(app: Application, caller: SignedIn, experiment_id: ExperimentIdPath) -> Response:
    """Return one of the caller's experiments."""
    return answer(Experiment.of(await offers.get_experiment(app, caller, experiment_id)))


@router.get(
    "/experiments/{experiment_id}/team", response_model=Items[Member], responses=documented("not_found"), summary="Its team"
)
async def show_team(app: Application, caller: SignedIn, experiment_id: ExperimentIdPath) -> Response:
    """Return the people of an experiment's team, for its members, its local contacts and operators."""
    return _members(await experiments.show_team(app, caller, experiment_id))


@router.patch(
    "/experiments/{experiment_id}/team",
    response_model=Items[Member],
    responses=documented("not_found", "forbidden", "invalid"),
    summary="Change its team",
)
async def change_team(app: Application, caller: SignedIn, experiment_id: ExperimentIdPath, change: TeamChange) -> Response:
    """Change a team, for operators. Who leaves loses open streams within a second, and running desktops are stopped."""
    return _members(await experiments.change_team(app, caller, experiment_id, add=change.add, remove=change.remove))
