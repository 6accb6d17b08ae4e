"""What the engine's tests share: a clock that stands still, counted secrets, and rows to begin with."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import DesktopId, ExperimentId, FlavorId, ImageId, PersonId
from beamdesk.domain.person import Person
from beamdesk.domain.text import Text
from beamdesk.ports.store import Store

T0 = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
ADA = Person(PersonId("p-ada"), "ada", "Ada Lin", 20001)
EXPERIMENT = Experiment(
    ExperimentId("heps-2026-0147"), "2026-0147", Text("Bones", "骨"), "B7", Text("Imaging", "成像"),
    frozenset({ADA.id}), T0, T0 + timedelta(days=30), "heps-2026-0147", 30147,
)  # fmt: skip


class FrozenClock:
    """A clock that moves when it is told to."""

    def __init__(self, now: datetime = T0) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    def advance_to(self, when: datetime) -> None:
        self._now = max(self._now, when)


class CountedSecrets:
    """Secrets that are the same in every run."""

    def __init__(self, prefix: str = "s") -> None:
        self._prefix = prefix
        self._numbers = itertools.count(1)

    def id(self) -> str:
        return f"{self._prefix}{next(self._numbers):015d}"

    def token(self) -> str:
        return f"{self._prefix}-token-{next(self._numbers)}"


def make_desktop(desktop_id: str = "desktop01", now: datetime = T0, **changes: Any) -> Desktop:
    """Return a desktop as the use case inserts it."""
    desktop = Desktop(
        id=DesktopId(desktop_id),
        name="Bones",
        owner=ADA.id,
        experiment=EXPERIMENT.id,
        image=ImageId("imaging"),
        image_ref="0123456789abcdef",
        flavor=FlavorId("small"),
        resources=Resources(1, 2048, 10, 0),
        desired=Desired.RUNNING,
        desired_reason=Reason.USER,
        generation=1,
        lease_ends_at=now + timedelta(hours=8),
        phase=Phase.QUEUED,
        phase_since=now,
        reason=Reason.NONE,
        detail="",
        observed_generation=0,
        admitted=False,
        server_id=None,
        address=None,
        attempts=0,
        queued_at=now,
        queue=None,
        created_at=now,
        due_at=now,
        version=1,
        last_active_at=now,
    )
    return replace(desktop, **changes)


async def add_people(store: Store) -> None:
    """Write the person and the experiment that `make_desktop` names."""
    async with store.begin(write=True) as tx:
        await tx.people.put_person(ADA)
        await tx.people.put_experiment(EXPERIMENT)
