"""Sign in with a name and password for a token, sign out, and who am I."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from beamdesk.api.callers import Application, SignedIn
from beamdesk.api.models import Input, PersonName, Time, answer
from beamdesk.api.problems import documented
from beamdesk.app import logins
from beamdesk.domain.person import Person

router = APIRouter(tags=["logins"])


class NewLogin(Input):
    """A name and password."""

    login: str = Field(min_length=1, max_length=64, examples=["ada"])
    password: str = Field(min_length=1, max_length=256, repr=False, examples=["correct horse battery staple"])


class Me(PersonName):
    """The signed-in person."""

    language: str = Field(examples=["zh"])
    role: str = Field(examples=["scientist"])
    beamlines: list[str] = Field(description="Of a beamline scientist.", examples=[[]])

    @classmethod
    def of(cls, somebody: Person) -> Me:
        """Return the wire shape."""
        return cls(
            id=somebody.id,
            login=somebody.login,
            full_name=somebody.full_name,
            language=somebody.language,
            role=somebody.role,
            beamlines=sorted(somebody.beamlines),
        )


class FreshLogin(BaseModel):
    """A token, shown once: send it as `Authorization: Bearer TOKEN`."""

    token: str = Field(repr=False, examples=["0wA3bq0Yv8n5nqkY3xv1o5d2rJk1v0m9Q6h8sT4uWzE"])
    expires_at: Time
    person: Me


@router.post(
    "/logins",
    status_code=HTTPStatus.CREATED,
    response_model=FreshLogin,
    responses=documented("too_many_requests"),
    summary="Sign in",
)
async def sign_in(request: Request, app: Application, body: NewLogin) -> Response:
    """Exchange a name and password for a token. Failed attempts are limited per name and per address."""
    address = request.client.host if request.client else "local"
    fresh = await logins.sign_in(app, body.login, body.password, kind="cli", address=address)
    model = FreshLogin(token=fresh.secret, expires_at=fresh.login.expires_at, person=Me.of(fresh.caller.person))
    return answer(model, HTTPStatus.CREATED)


@router.delete("/logins/current", status_code=HTTPStatus.NO_CONTENT, responses=documented("forbidden"), summary="Sign out")
async def sign_out(app: Application, caller: SignedIn) -> Response:
    """End this sign-in, its tickets and every stream that it opened."""
    await logins.sign_out(app, caller)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get("/me", response_model=Me, responses=documented(), summary="Who am I")
async def me(caller: SignedIn) -> Response:
    """Return the signed-in person."""
    return answer(Me.of(caller.person))
