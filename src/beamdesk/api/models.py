"""Shapes that several nouns share, and how a model becomes a response. Inside, domain objects; here, what a client sees of them."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from beamdesk.domain import catalog, person, text

ItemT = TypeVar("ItemT")


class Input(BaseModel):
    """A body that is sent to us: exactly the declared fields, exactly the declared types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Text(BaseModel):
    """The same words in English and Simplified Chinese."""

    en: str = Field(examples=["Imaging beamline"])
    zh: str = Field(examples=["成像线站"])

    @classmethod
    def of(cls, words: text.Text) -> Text:
        """Return the wire shape."""
        return cls(en=words.en, zh=words.zh)


class Resources(BaseModel):
    """An amount of what a host has."""

    vcpus: int = Field(examples=[2])
    memory_mib: int = Field(examples=[4096])
    disk_gib: int = Field(examples=[20])
    gpus: int = Field(examples=[0])

    @classmethod
    def of(cls, amount: catalog.Resources) -> Resources:
        """Return the wire shape."""
        return cls(vcpus=amount.vcpus, memory_mib=amount.memory_mib, disk_gib=amount.disk_gib, gpus=amount.gpus)


class PersonName(BaseModel):
    """Who somebody is, as others may know."""

    id: str = Field(examples=["ada"])
    login: str = Field(examples=["ada"])
    full_name: str = Field(examples=["Ada Lin"])

    @classmethod
    def of(cls, somebody: person.Person) -> PersonName:
        """Return the wire shape."""
        return cls(id=somebody.id, login=somebody.login, full_name=somebody.full_name)


class Items(BaseModel, Generic[ItemT]):
    """A whole list."""

    items: list[ItemT]


class Page(BaseModel, Generic[ItemT]):
    """A part of a list; ``next`` is the cursor of the next part, also in the ``Link`` header; null at the end."""

    items: list[ItemT]
    next: str | None = Field(description="Cursor of the next page.", examples=[None])


Limit = Annotated[int, Query(ge=1, le=100, description="At most so many items.")]
Time = Annotated[datetime, Field(description="UTC.", examples=["2026-03-01T09:30:00Z"])]

LINK_HEADER = {"Link": {"description": 'Address of the next page, `rel="next"`, if there is one.', "schema": {"type": "string"}}}


def answer(model: BaseModel, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    """Return a model as JSON. Endpoints declare the model for the document and answer with this, which serialises once."""
    return Response(model.model_dump_json(), status, headers, "application/json")


def answer_page(request: Request, page: Page[ItemT]) -> Response:
    """Return a page with the link to the next one (a relative reference: nothing of the request's Host is repeated)."""
    headers = {}
    if page.next is not None:
        query = [(key, value) for key, value in request.query_params.multi_items() if key != "cursor"]
        headers["Link"] = f'<{request.url.path}?{urlencode([*query, ("cursor", page.next)])}>; rel="next"'
    return answer(page, headers=headers)
