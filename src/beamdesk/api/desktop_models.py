"""What a client sees of a desktop. Never its address, its server or its secrets."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from beamdesk.api.models import Input, PersonName, Resources, Text, Time
from beamdesk.app.views import DesktopView
from beamdesk.domain import use as domain
from beamdesk.domain.desktop import Desired, Phase, QueuePlace
from beamdesk.domain.policy import Action
from beamdesk.domain.use import GpuState, Work
from beamdesk.protocol.guest import StepState

_NAME = "At most 60 characters, none of them invisible."


class NewDesktop(Input):
    """An application for a desktop. Without a name it gets a sensible one."""

    experiment: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["heps-2026-0147"])
    image: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["imaging"])
    flavor: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["medium"])
    name: str = Field(default="", max_length=200, description=_NAME, examples=["Sandstone, run 3"])


class DesktopPatch(Input):
    """What can be changed of a desktop."""

    name: str = Field(min_length=1, max_length=200, description=_NAME, examples=["Sandstone, run 3"])


class Size(Input):
    """The size that a desktop shall have."""

    flavor: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["large"])


class ExperimentName(BaseModel):
    """The experiment of a desktop."""

    id: str = Field(examples=["heps-2026-0147"])
    proposal: str = Field(examples=["HEPS-2026-0147"])
    title: Text
    beamline: str = Field(examples=["B7"])


class Titled(BaseModel):
    """Something of the catalogue. The title is null when it is not on offer any more."""

    id: str = Field(examples=["imaging"])
    title: Text | None


class Step(BaseModel):
    """One step on the way up. ``name``: `queue`, `server`, `enrol`, `account`, `storage`, `display`, `desktop`, `stream`."""

    name: str = Field(examples=["display"])
    state: StepState
    detail: str = Field(description="The cause, when it failed; of one that is done, a remark of the agent.", examples=[""])


class Queue(BaseModel):
    """The place in the line for resources: 1 = next."""

    place: int = Field(examples=[2])
    lacking: list[str] = Field(examples=[["memory_mib"]])
    expected_at: datetime | None = Field(description="An estimate from the ends of leases, if there is one.", examples=[None])

    @classmethod
    def of(cls, place: QueuePlace | None) -> Queue | None:
        """Return the wire shape."""
        if place is None:
            return None
        return cls(place=place.place, lacking=list(place.lacking), expected_at=place.expected_at)


class Use(BaseModel):
    """How much a ready desktop is used now, by the newest report of its agent; one comes every two seconds."""

    at: Time = Field(description="When its agent said so.")
    cpu: float = Field(ge=0, le=1, description="Share of all its CPUs that programs used.", examples=[0.42])
    gpu: float | None = Field(
        ge=0, le=1, description="Share of its busiest GPU; null where `gpu_state` is not `known`.", examples=[0.93]
    )
    gpu_state: GpuState = Field(
        description="`none`: it has no GPU. `unknown`: its GPU does not tell how much it is used. `unusable`: its size has one, "
        "and inside there is none that works."
    )
    works: list[Work] = Field(
        description="What computes so much that the desktop counts as used with nobody there. A GPU that does not tell counts.",
        examples=[["gpu"]],
    )
    stops_at: Time = Field(description="When it is stopped as unused, if nothing uses it any more.")

    @classmethod
    def of(cls, use: domain.Use | None) -> Use | None:
        """Return the wire shape."""
        if use is None:
            return None
        return cls(
            at=use.at,
            cpu=round(use.cpu, 3),
            gpu=None if use.gpu is None else round(use.gpu, 3),
            gpu_state=use.gpu_state,
            works=list(use.works),
            stops_at=use.stops_at,
        )


class Desktop(BaseModel):
    """A desktop, with what the caller may do with it."""

    id: str = Field(examples=["d2k7x0q4m1n8p5r3"])
    name: str = Field(examples=["Sandstone, run 3"])
    owner: PersonName
    experiment: ExperimentName
    image: Titled
    flavor: Titled
    resources: Resources
    desired: Desired
    phase: Phase
    phase_since: Time
    reason: str = Field(description="Why it is where it is: a stable code, empty for none.", examples=["waiting_for_capacity"])
    detail: str = Field(description="The cause in words, when something failed.", examples=[""])
    queue: Queue | None
    steps: list[Step]
    actions: list[Action] = Field(description="What the caller may do.", examples=[["connect", "delete", "see"]])
    can_extend: bool
    lease_ends_at: Time
    created_at: Time
    last_active_at: Time
    use: Use | None = Field(description="How much it is used; null where that is not known: not ready, or its agent is silent.")
    version: int = Field(description="Grows with every change of the desktop.", examples=[7])

    @classmethod
    def of(cls, view: DesktopView) -> Desktop:
        """Return the wire shape."""
        one, experiment = view.desktop, view.experiment
        return cls(
            id=one.id,
            name=one.name,
            owner=PersonName.of(view.owner),
            experiment=ExperimentName(
                id=experiment.id,
                proposal=experiment.proposal,
                title=Text.of(experiment.title),
                beamline=experiment.beamline,
            ),
            image=Titled(id=one.image, title=Text.of(view.image.title) if view.image else None),
            flavor=Titled(id=one.flavor, title=Text.of(view.flavor.title) if view.flavor else None),
            resources=Resources.of(one.resources),
            desired=one.desired,
            phase=one.phase,
            phase_since=one.phase_since,
            reason=str(one.reason),
            detail=one.detail,
            queue=Queue.of(one.queue),
            steps=[Step(name=step.name, state=step.state, detail=step.detail) for step in view.steps],
            actions=sorted(view.actions),
            can_extend=view.can_extend,
            lease_ends_at=one.lease_ends_at,
            created_at=one.created_at,
            last_active_at=view.last_active_at,
            use=Use.of(view.use),
            version=one.version,
        )
