"""The sizes on offer, and whether each can be had now."""

from __future__ import annotations

from typing import Any, Literal, cast

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from beamdesk.api.callers import Application, ExperimentIdQuery, ImageIdQuery, SignedIn
from beamdesk.api.models import Items, Resources, Text, Time, answer
from beamdesk.api.problems import documented
from beamdesk.app import offers
from beamdesk.scheduling.vocabulary import write

router = APIRouter(tags=["flavors"])

State = Literal["now", "wait", "quota", "never", "unknown"]


class Availability(BaseModel):
    """Whether a size can be had, looked at over hosts.

    `now`; `wait` = it would queue; `quota` = over it; `never` = no host is large enough; `unknown` = the cloud decides and does
    not tell.
    """

    state: State
    lacking: list[str] = Field(
        description="What is short: `desktops`, `vcpus`, `memory_mib`, `disk_gib`, `gpus`, `gpu_kind` (cards with what it asks "
        "for), `booked`, `stale`, `hosts`, `image`, `together` (all of it on one host), `image_needs` (what the image asks for).",
        examples=[["gpus"]],
    )
    expected_at: Time | None = Field(description="When it could run if leases end when they say and nobody else comes.")
    likely_by: Time | None = Field(description="When it could run if the leases that end by then are extended once.")
    sureness: Literal["sure", "likely", "possible"] | None = Field(
        description="How sure `expected_at` is. `sure`: no lease has to end for it. `likely`: also within an hour if leases are "
        "extended once; with `now`: a card is free, CPU and memory are the cloud's to know. `possible`: it depends on leases."
    )
    largest: Resources | None = Field(description="With `never`: the most of each that one host has.")
    as_of: Time = Field(description="The moment of which this is true; at most a quarter of a minute ago.")

    @classmethod
    def of(cls, offer: offers.FlavorOffer) -> Availability:
        """Return the wire shape."""
        one = offer.outlook
        return cls(
            state=cast(State, str(offer.state)),
            lacking=list(offer.lacking),
            expected_at=one.expected_at,
            likely_by=one.likely_by,
            sureness=None if one.sureness is None else cast(Any, str(one.sureness)),
            largest=None if one.largest is None else Resources.of(one.largest),
            as_of=one.as_of,
        )


class Flavor(BaseModel):
    """A size."""

    id: str = Field(examples=["medium"])
    title: Text
    resources: Resources
    asks: dict[str, str] = Field(
        description="What it asks of a host and its cards beside that, in the scheduler's words.",
        examples=[{"beamdesk:gpu_memory_mib": "40000"}],
    )
    availability: Availability

    @classmethod
    def of(cls, offer: offers.FlavorOffer) -> Flavor:
        """Return the wire shape."""
        return cls(
            id=offer.flavor.id,
            title=Text.of(offer.flavor.title),
            resources=Resources.of(offer.flavor.resources),
            asks=write(offer.flavor.words),
            availability=Availability.of(offer),
        )


@router.get("/flavors", response_model=Items[Flavor], responses=documented("not_found"), summary="Sizes on offer")
async def list_flavors(
    app: Application, caller: SignedIn, experiment: ExperimentIdQuery = None, image: ImageIdQuery = None
) -> Response:
    """Return the sizes, smallest first, with their availability now and later.

    With ``experiment`` its quota counts, and its bookings are its own. With ``image`` what that asks of a host counts too.
    """
    found = await offers.list_flavors(app, caller, experiment, image)
    return answer(Items[Flavor](items=[Flavor.of(offer) for offer in found]))
