"""System Resource Monitoring: what agents on hosts send, what operators see and set, what schedulers read.

Agents' messages are those of `beamdesk.protocol.srm`, decoded strictly; they are not in the OpenAPI document, because their only
client is our agent.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, Field

from beamdesk.api.callers import Application, SignedIn, credential
from beamdesk.api.models import Input, Items, Time, answer
from beamdesk.api.problems import documented
from beamdesk.api.versions import ETAG_HEADER, IfNoneMatch, unchanged
from beamdesk.app import srm, srm_agents, srm_snapshot
from beamdesk.domain import srm as srm_domain
from beamdesk.domain.errors import Invalid, NotSignedIn
from beamdesk.domain.srm import CardState, DeviceRecord, Sample
from beamdesk.protocol.codec import MalformedMessage, decode, encode
from beamdesk.protocol.srm import MAX_REPORT_BYTES, Enrol, Open, Report

router = APIRouter(tags=["srm"])

_HOST = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$"
_ADDRESS = r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$"
PluginHeader = Annotated[int, Header(ge=1, le=1000, description="Protocol of the scheduler plugins that asks.")]
HostPath = Annotated[str, Path(pattern=_HOST, examples=["gpu01"])]
AddressPath = Annotated[str, Path(pattern=_ADDRESS, examples=["0000:3b:00.0"])]


class Card(BaseModel):
    """A GPU: what it is, its state, what it does. Null = not known."""

    address: str = Field(examples=["0000:3b:00.0"])
    model: str = Field(examples=["RTX A6000"])
    mode: str = Field(examples=["passthrough"])
    state: CardState
    state_since: Time
    reason: str
    detail: str
    holder: str
    present: bool
    numa: int
    memory_mib: int | None
    cores: int | None
    bandwidth_gbs: int | None
    clock_mhz: int | None
    fp32_gflops: int | None
    nvenc: bool | None
    profiles: list[str]
    busy: float | None
    memory_used_mib: int | None
    temperature_c: int | None
    ecc_uncorrected: int | None

    @classmethod
    def of(cls, device: DeviceRecord) -> Card:
        """Return the wire shape."""
        facts, load = device.facts, device.load
        same = ("model", "numa", "memory_mib", "cores", "bandwidth_gbs", "clock_mhz", "fp32_gflops", "nvenc")
        own = ("address", "state", "state_since", "detail", "holder", "present")
        seen = ("busy", "memory_used_mib", "temperature_c", "ecc_uncorrected")
        values: dict[str, Any] = {name: getattr(facts, name) for name in same} | {name: getattr(device, name) for name in own}
        values |= {name: getattr(load, name) if load else None for name in seen}
        profiles = [profile.name for profile in facts.parts.profiles] if facts.parts else []
        return cls(**values, reason=str(device.reason), mode=str(facts.mode), profiles=profiles)


class Host(BaseModel):
    """A host and its cards. ``stale``: its last report is too old to lend its cards by."""

    name: str = Field(examples=["gpu01"])
    enrolled: bool
    enabled: bool
    dedicated: bool
    aggregates: list[str]
    stale: bool
    can_clean: bool
    agent: str
    seen_at: Time | None
    clock_skew_s: float
    cpus: int | None
    memory_mib: int | None
    disk_gib: int | None
    cpu_load: float | None
    memory_used_mib: int | None
    disk_used_gib: int | None
    cards: list[Card]

    @classmethod
    def of(cls, view: srm.HostView) -> Host:
        """Return the wire shape."""
        host, facts, load = view.host, view.host.facts, view.host.load
        return cls(
            name=host.name,
            enrolled=host.token_hash is not None,
            enabled=host.enabled,
            dedicated=host.dedicated,
            aggregates=list(host.aggregates),
            stale=view.stale,
            can_clean=host.can_clean,
            agent=host.agent,
            seen_at=host.seen_at,
            clock_skew_s=round(host.skew_s, 1),
            cpus=facts.cpus if facts else None,
            memory_mib=facts.memory_mib if facts else None,
            disk_gib=facts.disk_gib if facts else None,
            cpu_load=load.cpu if load else None,
            memory_used_mib=load.memory_used_mib if load else None,
            disk_used_gib=load.disk_used_gib if load else None,
            cards=[Card.of(device) for device in view.devices],
        )


class Point(BaseModel):
    """One point of a history."""

    at: Time
    state: str
    busy: float | None
    memory_used_mib: int | None
    temperature_c: int | None

    @classmethod
    def of(cls, sample: Sample) -> Point:
        """Return the wire shape."""
        return cls(**{name: getattr(sample, name) for name in cls.model_fields})


Name = Annotated[str, Field(min_length=1, max_length=64)]


class NewHost(Input):
    """A host to enrol. ``again``: its agent lost its credential, or its machine was replaced."""

    name: str = Field(pattern=_HOST, examples=["gpu01"])
    aggregates: list[Name] = Field(default_factory=list, max_length=srm.MAX_AGGREGATES)
    dedicated: bool = False
    again: bool = False


class Enrolment(BaseModel):
    """A one-time token for the host's agent; it is shown once."""

    host: str
    token: str
    expires_at: Time


class HostChange(Input):
    """What to change; what is left out stays. ``resync`` asks the agent for a full report."""

    enabled: bool | None = None
    dedicated: bool | None = None
    aggregates: list[Name] | None = Field(default=None, max_length=srm.MAX_AGGREGATES)
    resync: bool = False


class DeviceChange(Input):
    """The state to set, and why."""

    state: str = Field(pattern="^(free|dirty|cleaning|failed)$", examples=["failed"])
    why: str = Field(min_length=1, max_length=200, examples=["fan replaced"])


class NewConsumer(Input):
    """A program that may read the scheduling snapshot."""

    name: str = Field(pattern=_HOST, examples=["nova-scheduler-1"])


class Consumer(BaseModel):
    """A program with its credential, which is shown once."""

    name: str
    token: str


class KnownConsumer(BaseModel):
    """A program that may read the scheduling snapshot."""

    name: str
    created_at: Time
    used_at: Time | None
    speaks: int = Field(description="Protocol of the scheduler plugins that it named when it last read.")

    @classmethod
    def of(cls, one: srm_domain.Consumer) -> KnownConsumer:
        """Return the wire shape."""
        return cls(name=one.name, created_at=one.created_at, used_at=one.used_at, speaks=one.speaks)


def _peer(request: Request) -> str:
    return request.client.host if request.client else "local"


def _bearer(request: Request) -> str:
    carried = credential(request)
    if carried.ambient:
        raise NotSignedIn("This endpoint is for programs with a credential of their own.")
    return carried.secret


def _message(kind: type[Any], body: bytes) -> Any:
    try:
        return decode(kind, body, limit=MAX_REPORT_BYTES)
    except MalformedMessage as error:
        raise Invalid(str(error)[:300]) from error


def _json(message: object) -> Response:
    return Response(encode(message), media_type="application/json")


@router.post("/srm/enrolments", include_in_schema=False)
async def enrol_agent(app: Application, request: Request) -> Response:
    """Spend an agent's one-time token."""
    message = _message(Enrol, await request.body())
    return _json(await srm_agents.enrol(app, message, address=_peer(request)))


@router.post("/srm/sessions", include_in_schema=False)
async def open_agent_session(app: Application, request: Request) -> Response:
    """Begin an agent's session."""
    secret, message = _bearer(request), _message(Open, await request.body())
    return _json(await srm_agents.open_session(app, secret, message, address=_peer(request)))


@router.post("/srm/reports", include_in_schema=False)
async def take_report(app: Application, request: Request) -> Response:
    """Take in an agent's report."""
    secret, message = _bearer(request), _message(Report, await request.body())
    return _json(await srm_agents.report(app, secret, message, address=_peer(request)))


@router.get("/srm/hosts", response_model=Items[Host], responses=documented("forbidden"), summary="Hosts and their cards")
async def list_srm_hosts(app: Application, caller: SignedIn) -> Response:
    """Return all hosts. For operators."""
    return answer(Items[Host](items=[Host.of(view) for view in await srm.list_hosts(app, caller)]))


@router.post(
    "/srm/hosts",
    response_model=Enrolment,
    status_code=HTTPStatus.CREATED,
    responses=documented("forbidden", "conflict"),
    summary="Enrol a host",
)
async def enrol_srm_host(app: Application, caller: SignedIn, body: NewHost) -> Response:
    """Return a one-time token for the agent of a host. For operators."""
    made = await srm.make_enrolment(
        app, caller, body.name, aggregates=tuple(body.aggregates), dedicated=body.dedicated, again=body.again
    )
    document = Enrolment(host=made.host, token=made.token, expires_at=made.expires_at)
    return answer(document, HTTPStatus.CREATED)


@router.get("/srm/hosts/{name}", response_model=Host, responses=documented("forbidden", "not_found"), summary="One host")
async def get_srm_host(app: Application, caller: SignedIn, name: HostPath) -> Response:
    """Return a host and its cards. For operators."""
    return answer(Host.of(await srm.get_host(app, caller, name)))


@router.patch("/srm/hosts/{name}", response_model=Host, responses=documented("forbidden", "not_found"), summary="Change a host")
async def change_srm_host(app: Application, caller: SignedIn, name: HostPath, body: HostChange) -> Response:
    """Open or close a host to new servers, say what it is for, ask for a full report. For operators."""
    groups = None if body.aggregates is None else tuple(body.aggregates)
    view = await srm.change_host(
        app, caller, name, enabled=body.enabled, dedicated=body.dedicated, aggregates=groups, resync=body.resync
    )
    return answer(Host.of(view))


@router.delete(
    "/srm/hosts/{name}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented("forbidden", "not_found", "conflict"),
    summary="Forget a host",
)
async def remove_srm_host(app: Application, caller: SignedIn, name: HostPath) -> Response:
    """Forget a host with its history; its agent's credential is void. For operators."""
    await srm.remove_host(app, caller, name)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get(
    "/srm/hosts/{name}/history", response_model=Items[Point], responses=documented("forbidden", "not_found"), summary="History"
)
async def srm_history(
    app: Application,
    caller: SignedIn,
    name: HostPath,
    address: Annotated[str, Query(pattern=rf"^$|{_ADDRESS}", description="A card; empty = the host itself.")] = "",
    hours: Annotated[float, Query(gt=0, le=2400)] = 24.0,
) -> Response:
    """Return what a host or a card did, oldest first, at most 5000 points. For operators."""
    return answer(Items[Point](items=[Point.of(one) for one in await srm.history(app, caller, name, address, hours)]))


@router.put(
    "/srm/hosts/{name}/cards/{address}/state",
    response_model=Card,
    responses=documented("forbidden", "not_found", "conflict"),
    summary="Set a card's state",
)
async def set_srm_device(app: Application, caller: SignedIn, name: HostPath, address: AddressPath, body: DeviceChange) -> Response:
    """Quarantine a card, take it out of quarantine, have it cleaned, or attest that it is clean. For operators."""
    return answer(Card.of(await srm.set_device(app, caller, name, address, CardState(body.state), why=body.why)))


@router.delete(
    "/srm/hosts/{name}/cards/{address}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented("forbidden", "not_found", "conflict"),
    summary="Forget a card",
)
async def forget_srm_device(app: Application, caller: SignedIn, name: HostPath, address: AddressPath) -> Response:
    """Forget a card that was taken out of its host. For operators."""
    await srm.forget_device(app, caller, name, address)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get(
    "/scheduling/consumers",
    response_model=Items[KnownConsumer],
    responses=documented("forbidden"),
    summary="Who may read the snapshot",
)
async def list_snapshot_consumers(app: Application, caller: SignedIn) -> Response:
    """Return the programs that may read the scheduling snapshot. For operators."""
    found = await srm.list_consumers(app, caller)
    return answer(Items[KnownConsumer](items=[KnownConsumer.of(one) for one in found]))


@router.post(
    "/scheduling/consumers",
    response_model=Consumer,
    status_code=HTTPStatus.CREATED,
    responses=documented("forbidden"),
    summary="Let a program read the snapshot",
)
async def make_snapshot_consumer(app: Application, caller: SignedIn, body: NewConsumer) -> Response:
    """Return a credential for a program; one that it had before is void. For operators."""
    token = await srm.make_consumer(app, caller, body.name)
    return answer(Consumer(name=body.name, token=token), HTTPStatus.CREATED)


@router.delete(
    "/scheduling/consumers/{name}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented("forbidden", "not_found"),
    summary="Take the right to read the snapshot away",
)
async def remove_snapshot_consumer(app: Application, caller: SignedIn, name: HostPath) -> Response:
    """Make a program's credential void, at once. For operators."""
    await srm.remove_consumer(app, caller, name)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get(
    "/scheduling/snapshot",
    response_class=Response,
    responses={
        **documented("too_many_requests"),
        200: {"description": "The state", "content": {"application/json": {"schema": {"type": "object"}}}, "headers": ETAG_HEADER},
        304: {"description": "Not modified", "headers": ETAG_HEADER},
    },
    summary="Scheduling snapshot",
)
async def scheduling_snapshot(
    app: Application, request: Request, if_none_match: IfNoneMatch = None, beamdesk_plugin: PluginHeader = 1
) -> Response:
    """Return the scheduling core's state, for a scheduler with a credential of its own (`POST /scheduling/consumers`)."""
    known = partial(unchanged, if_none_match)
    document, tag = await srm_snapshot.snapshot(app, _bearer(request), address=_peer(request), known=known, speaks=beamdesk_plugin)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if document is None:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(document, headers=headers, media_type="application/json")
