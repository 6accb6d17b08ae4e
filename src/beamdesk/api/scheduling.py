"""Why a desktop is where it is, the hosts and cards (for operators), and bookings."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, WithJsonSchema

from beamdesk.api.callers import Application, DesktopIdPath, SignedIn
from beamdesk.api.models import Input, Items, Time, answer
from beamdesk.api.problems import documented
from beamdesk.app import bookings
from beamdesk.app.bookings import BookingView
from beamdesk.app.explain import Explanation as Explained
from beamdesk.app.explain import Outcome, explain, words_of
from beamdesk.app.fleet import FleetCard, FleetHost, see_fleet
from beamdesk.app.fleet import Holder as FleetHolder
from beamdesk.domain.ids import ExperimentId, FlavorId
from beamdesk.scheduling.decision import Ranked

router = APIRouter(tags=["scheduling"])

BookingIdPath = Annotated[str, Path(pattern=r"^b[a-z0-9]{1,39}$", examples=["bd2k7x0q4m1n8p5r3"])]


_MOMENT: dict[str, object] = {"type": "string", "format": "date-time", "examples": ["2026-03-01T09:00:00Z"]}


def _written(value: object) -> object:
    """Refuse numbers: nobody who writes 12 means a moment of 1970."""
    if not isinstance(value, str):
        raise ValueError("write a time as 2026-03-01T09:00:00Z")  # noqa: TRY004  # what pydantic turns into a problem
    return value


AnyTime = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written), WithJsonSchema(_MOMENT)]


class Candidate(BaseModel):
    """A host that could take the desktop. ``terms``: what each term of the policy adds to the total; higher is better."""

    host: str
    tier: int = Field(description="Hosts of tier 0 come before those of tier 1, whatever their totals.")
    total: float
    terms: dict[str, float]

    @classmethod
    def of(cls, one: Ranked) -> Candidate:
        """Return the wire shape."""
        return cls(host=one.host, tier=one.tier, total=one.total, terms=dict(one.contributions))


class Refusal(BaseModel):
    """Why a host cannot take it: a stable code and its words. ``host`` is null for a count over hosts."""

    reason: str = Field(examples=["cards_busy"])
    text: str = Field(examples=["too few of the host's suitable cards are free"])
    host: str | None = None
    hosts: int = 1


class Held(BaseModel):
    """A desktop that has something."""

    desktop: str | None = Field(description="Null where a server is not one of this site's desktops.")
    name: str
    owner: str
    until: Time | None

    @classmethod
    def of(cls, one: FleetHolder) -> Held:
        """Return the wire shape."""
        return cls(desktop=one.desktop or None, name=one.name, owner=one.owner, until=one.until)


class HeldCard(BaseModel):
    """Who has a card."""

    host: str
    card: str
    holder: Held


class Explanation(BaseModel):
    """The newest decision about a desktop. ``holders`` is told to operators only."""

    desktop: str
    outcome: Outcome
    host: str | None
    cards: list[str]
    policy: str
    decided_at: Time | None
    possible: int = Field(description="How many hosts could take it.")
    ranking: list[Candidate]
    counts: list[Refusal]
    refused: list[Refusal]
    impossible: str = Field(description="Why no host ever could.")
    behind: bool = Field(description="It would fit, but others came first.")
    place: int | None
    lacking: list[str]
    expected_at: Time | None = Field(description="When it could run if leases end when they say and nobody else comes.")
    holders: list[HeldCard]

    @classmethod
    def of(cls, one: Explained) -> Explanation:
        """Return the wire shape."""
        refused = one.refused or {}
        return cls(
            desktop=one.desktop.id,
            outcome=one.outcome,
            host=one.placement.host if one.placement else None,
            cards=list(one.placement.cards) if one.placement else [],
            policy=one.policy,
            decided_at=one.decided_at,
            possible=one.possible,
            ranking=[Candidate.of(ranked) for ranked in one.ranking],
            counts=[Refusal(reason=reason, text=words_of(reason), hosts=count) for reason, count in one.counts],
            refused=[Refusal(reason=reason, text=words_of(reason), host=host) for host, reason in sorted(refused.items())],
            impossible=one.impossible,
            behind=one.behind,
            place=one.queue.place if one.queue else None,
            lacking=list(one.queue.lacking) if one.queue else [],
            expected_at=one.queue.expected_at if one.queue else None,
            holders=[HeldCard(host=host, card=card, holder=Held.of(holder)) for host, card, holder in one.holders],
        )


class Card(BaseModel):
    """A card of a host. ``state``: free, used, dirty, cleaning, failed, or stale where its host is silent."""

    address: str
    model: str
    memory_mib: int
    state: str
    detail: str
    since: Time | None
    holder: Held | None
    booked_from: Time | None

    @classmethod
    def of(cls, one: FleetCard) -> Card:
        """Return the wire shape."""
        return cls(
            address=one.address,
            model=one.model,
            memory_mib=one.memory_mib,
            state=one.state,
            detail=one.detail,
            since=one.since,
            holder=Held.of(one.holder) if one.holder else None,
            booked_from=one.booked_from,
        )


class Host(BaseModel):
    """A host, what is held of it, and its cards."""

    name: str
    enabled: bool
    stale: bool
    aggregates: list[str]
    cpu_milli: int
    cpu_used: int | None = Field(description="Null where the cloud counts it.")
    memory_mib: int
    memory_used: int | None
    cards: list[Card]
    desktops: list[Held]

    @classmethod
    def of(cls, one: FleetHost) -> Host:
        """Return the wire shape."""
        return cls(
            name=one.name,
            enabled=one.enabled,
            stale=one.stale,
            aggregates=list(one.aggregates),
            cpu_milli=one.cpu_milli,
            cpu_used=one.cpu_used,
            memory_mib=one.memory_mib,
            memory_used=one.memory_used,
            cards=[Card.of(card) for card in one.cards],
            desktops=[Held.of(holder) for holder in one.holders],
        )


class NewBooking(Input):
    """Book ``desktops`` desktops of a size for an experiment. Times with a zone."""

    experiment: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["heps-2026-0147"])
    flavor: str = Field(min_length=1, max_length=64, examples=["gpu.small"])
    starts: AnyTime
    ends: AnyTime
    desktops: int = Field(default=1, ge=1, le=bookings.MOST_DESKTOPS)
    note: str = Field(default="", max_length=60)


class Booking(BaseModel):
    """A booking. ``cards``: all that it promises, as ``host/address``."""

    id: str
    experiment: str
    flavor: str
    desktops: int
    starts: Time
    ends: Time
    hosts: list[str]
    cards: list[str]
    note: str
    may_cancel: bool

    @classmethod
    def of(cls, view: BookingView) -> Booking:
        """Return the wire shape."""
        one = view.booking
        return cls(
            id=one.id,
            experiment=one.experiment,
            flavor=one.flavor,
            desktops=len(one.parts),
            starts=one.starts,
            ends=one.ends,
            hosts=sorted({part.host for part in one.parts}),
            cards=[f"{part.host}/{address}" for part in one.parts for address in part.cards],
            note=one.note,
            may_cancel=view.may_cancel,
        )


@router.get(
    "/desktops/{desktop_id}/explanation",
    response_model=Explanation,
    responses=documented("not_found"),
    summary="Why this host, why not that one, and when",
)
async def explanation(app: Application, caller: SignedIn, desktop_id: DesktopIdPath) -> Response:
    """Return the newest decision of the scheduler about a desktop that the caller may see."""
    return answer(Explanation.of(await explain(app, caller, desktop_id)))


@router.get(
    "/scheduling/hosts", response_model=Items[Host], responses=documented("forbidden"), summary="Hosts and cards, for operators"
)
async def list_hosts(app: Application, caller: SignedIn) -> Response:
    """Return all hosts with their cards, in which state they are and who has what."""
    return answer(Items[Host](items=[Host.of(one) for one in await see_fleet(app, caller)]))


@router.get("/bookings", response_model=Items[Booking], responses=documented(), summary="Bookings that I may see")
async def list_bookings(app: Application, caller: SignedIn) -> Response:
    """Return present and future bookings: own experiments', own beamlines', all to operators; soonest first."""
    return answer(Items[Booking](items=[Booking.of(view) for view in await bookings.list_bookings(app, caller)]))


@router.post(
    "/bookings",
    status_code=HTTPStatus.CREATED,
    response_model=Booking,
    responses=documented("not_found", "forbidden", "conflict", "not_supported"),
    summary="Book desktops for a slot",
)
async def book(app: Application, caller: SignedIn, body: NewBooking) -> Response:
    """Book for an experiment, as its local contact or an operator. What overlaps is refused with the reason."""
    wanted = bookings.NewBooking(
        ExperimentId(body.experiment), FlavorId(body.flavor), body.starts, body.ends, body.desktops, body.note
    )
    return answer(Booking.of(await bookings.book(app, caller, wanted)), HTTPStatus.CREATED)


@router.delete(
    "/bookings/{booking_id}",
    status_code=HTTPStatus.NO_CONTENT,
    response_class=Response,
    responses=documented("not_found", "forbidden"),
    summary="Cancel a booking",
)
async def cancel_booking(app: Application, caller: SignedIn, booking_id: BookingIdPath) -> Response:
    """Take a booking back."""
    await bookings.cancel(app, caller, booking_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)
