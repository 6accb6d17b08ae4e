"""Admission by the scheduling core: which host and cards a desktop gets, or what it waits for. One decision at a time per site.

Used where the driver lets us choose among hosts. Decisions are kept with their desktop, so that `explain` can say why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from beamdesk.app.placements import record_lent
from beamdesk.app.promises import never
from beamdesk.app.world import read_world
from beamdesk.domain.catalog import Flavor
from beamdesk.domain.desktop import Desktop, QueuePlace
from beamdesk.domain.errors import CloudUnavailable
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.placement import Placement, StoredDecision
from beamdesk.domain.srm import SrmRules
from beamdesk.ports.store import Claimed, Store, Transaction
from beamdesk.reconcile.apply import ClaimLost, after_the_wait, follow_the_wait
from beamdesk.scheduling.future import expected
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.line import Answer, Line, walk
from beamdesk.scheduling.policy import DEFAULT
from beamdesk.scheduling.snapshot import take
from beamdesk.scheduling.wire import read_decision, write_decision

KEPT_DECISIONS = 10
MOST_VERDICTS = 100
"""Hosts of which is kept why they were not taken."""


@dataclass(frozen=True, slots=True)
class Placer:
    """``hosts`` and ``flavors`` are asked for before a transaction begins."""

    hosts: Callable[[], Awaitable[tuple[HostFacts, ...]]]
    flavors: Callable[[], Awaitable[tuple[Flavor, ...]]]
    srm: SrmRules
    policy: str = DEFAULT

    async def admit(
        self, store: Store, claimed: Claimed, hosts: tuple[HostFacts, ...], now: datetime
    ) -> tuple[QueuePlace | None, tuple[str, ...]]:
        """Place the desktop and return (None, ()), or return its place in the line, or what no host could ever give it.

        Raises:
            ClaimLost: somebody else holds the desktop now.
        """
        flavors, desktop = await self.flavors(), claimed.desktop
        async with store.begin(write=True) as tx:
            await tx.placing.lock()
            try:
                line = await tx.placing.line(desktop.id, claimed.token, now)
            except LookupError as error:
                raise ClaimLost from error
            world = await read_world(tx, hosts, flavors, now, self.srm, self.policy)
            before = take(world.table)
            asked = [world.asked(one, after_the_wait(one, now)) for one in _up_to(line, desktop.id)]
            every = world.scheduler.verdicts(asked[-1].request, now.timestamp())  # as the table is before the line is walked
            verdicts = dict(islice(every.items(), MOST_VERDICTS))
            walked = walk(world.scheduler, asked, now.timestamp())
            answer = walked.answers[desktop.id]
            await _keep(tx, desktop, answer, verdicts, now)
            if answer.decision.impossible is not None:
                return None, never(world.table, asked[-1].request)
            if not answer.lacking:
                await self._place(tx, claimed, answer, now)
                return None, ()
        at = expected(before, world.policy, asked, desktop.id, now.timestamp())
        return _queue_place(walked, desktop.id, at), ()

    async def _place(self, tx: Transaction, claimed: Claimed, answer: Answer, now: datetime) -> None:
        desktop, decision = claimed.desktop, answer.decision
        if decision.host is None:
            raise ValueError("nothing was decided")
        placement = Placement(desktop.id, decision.host, decision.grants, decision.node, now)
        if not await tx.placing.place(placement, claimed.token):
            raise ClaimLost
        await record_lent(tx, placement, now)
        await follow_the_wait(tx, desktop, now)

    async def placement(self, tx: Transaction, desktop: Desktop, hosts: tuple[HostFacts, ...], now: datetime) -> Placement:
        """Return where an admitted desktop is to run; one from before placements were kept gets one.

        Raises:
            CloudUnavailable: no host can take it now.
        """
        known = await tx.placing.placement(desktop.id)
        if known is not None:
            return known
        await tx.placing.lock()
        world = await read_world(tx, hosts, await self.flavors(), now, self.srm, self.policy)
        found = world.adrift.get(desktop.id)
        if found is None:
            raise CloudUnavailable("No host has room for it now.")
        await tx.placing.put(found)
        await record_lent(tx, found, now)
        return found


def _up_to(line: tuple[Desktop, ...], wanted: DesktopId) -> list[Desktop]:
    return list(line[: next(number for number, one in enumerate(line) if one.id == wanted) + 1])


async def _keep(tx: Transaction, desktop: Desktop, answer: Answer, verdicts: dict[str, str], now: datetime) -> None:
    """Keep a decision unless it says what the last one said: waiting desktops are looked at every few seconds."""
    fresh = StoredDecision(desktop.id, now, write_decision(answer.decision), verdicts, answer.behind)
    last = next(iter(await tx.placing.decisions(desktop.id, 1)), None)
    if last is not None and answer.decision.host is None and (last.verdicts, last.behind) == (verdicts, answer.behind):
        known = read_decision(last.document)
        if (known.host, known.impossible) == (None, answer.decision.impossible):
            return
    await tx.placing.add_decision(fresh, keep=KEPT_DECISIONS)


def _queue_place(line: Line, wanted: DesktopId, at: float | None) -> QueuePlace:
    moment = None if at is None else datetime.fromtimestamp(at, UTC)
    return QueuePlace(line.place(wanted), line.answers[wanted].lacking, moment)
