"""The images that desktops can be made from."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from beamdesk.api.callers import Application, ExperimentIdQuery, SignedIn
from beamdesk.api.models import Items, Text, answer
from beamdesk.api.problems import documented
from beamdesk.app import offers
from beamdesk.domain import catalog

router = APIRouter(tags=["images"])


class Software(BaseModel):
    """A program in an image's menu."""

    name: str = Field(examples=["silx view"])
    description: Text


class Image(BaseModel):
    """An image. No beamlines = for every experiment."""

    id: str = Field(examples=["imaging"])
    title: Text
    description: Text
    software: list[Software]
    beamlines: list[str] = Field(examples=[["B7"]])

    @classmethod
    def of(cls, image: catalog.Image) -> Image:
        """Return the wire shape."""
        return cls(
            id=image.id,
            title=Text.of(image.title),
            description=Text.of(image.description),
            software=[Software(name=one.name, description=Text.of(one.description)) for one in image.software],
            beamlines=sorted(image.beamlines),
        )


@router.get("/images", response_model=Items[Image], responses=documented("not_found"), summary="Images on offer")
async def list_images(app: Application, caller: SignedIn, experiment: ExperimentIdQuery = None) -> Response:
    """Return the images, with ``experiment`` only those made for its beamline, the most specific first."""
    beamline = (await offers.get_experiment(app, caller, experiment)).beamline if experiment else None
    return answer(Items[Image](items=[Image.of(image) for image in await offers.list_images(app, beamline)]))
