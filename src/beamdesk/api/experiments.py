"""The caller's experiments."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from beamdesk.api.callers import Application, ExperimentIdPath, SignedIn
from beamdesk.api.models import Items, Text, Time, answer
from beamdesk.api.problems import documented
from beamdesk.app import offers
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


@router.get("/experiments", response_model=Items[Experiment], responses=documented(), summary="My experiments")
async def list_experiments(app: Application, caller: SignedIn) -> Response:
    """Return the experiments whose team the caller is in, newest first."""
    return answer(Items[Experiment](items=[Experiment.of(one) for one in await offers.list_experiments(app, caller)]))


@router.get("/experiments/{experiment_id}", response_model=Experiment, responses=documented("not_found"), summary="One experiment")
async def get_experiment(app: Application, caller: SignedIn, experiment_id: ExperimentIdPath) -> Response:
    """Return one of the caller's experiments."""
    return answer(Experiment.of(await offers.get_experiment(app, caller, experiment_id)))
