"""The sizes on offer, and whether each can be had now."""

from __future__ import annotations

from typing import Literal, cast

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from beamdesk.api.callers import Application, ExperimentIdQuery, SignedIn
from beamdesk.api.models import Items, Resources, Text, answer
from beamdesk.api.problems import documented
from beamdesk.app import offers

router = APIRouter(tags=["flavors"])

State = Literal["now", "wait", "quota", "never"]


class Availability(BaseModel):
    """Whether a size can be had: `now`; `wait` = it would queue; `quota` = over it; `never` = this site is too small for it."""

    state: State
    lacking: list[str] = Field(
        description="What is short: `desktops`, `vcpus`, `memory_mib`, `disk_gib`, `gpus`.", examples=[["gpus"]]
    )


class Flavor(BaseModel):
    """A size."""

    id: str = Field(examples=["medium"])
    title: Text
    resources: Resources
    availability: Availability

    @classmethod
    def of(cls, offer: offers.FlavorOffer) -> Flavor:
        """Return the wire shape."""
        return cls(
            id=offer.flavor.id,
            title=Text.of(offer.flavor.title),
            resources=Resources.of(offer.flavor.resources),
            availability=Availability(state=cast(State, offer.state), lacking=list(offer.lacking)),
        )


@router.get("/flavors", response_model=Items[Flavor], responses=documented("not_found"), summary="Sizes on offer")
async def list_flavors(app: Application, caller: SignedIn, experiment: ExperimentIdQuery = None) -> Response:
    """Return the sizes, smallest first, with their availability; with ``experiment`` its quota counts too."""
    return answer(Items[Flavor](items=[Flavor.of(offer) for offer in await offers.list_flavors(app, caller, experiment)]))
