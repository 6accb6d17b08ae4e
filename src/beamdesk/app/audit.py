"""Every refusal becomes an event before it reaches the caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from beamdesk.app.context import App
from beamdesk.domain.errors import Invalid, Refused
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.ids import DesktopId, ExperimentId, PersonId


@asynccontextmanager
async def audited(
    app: App,
    what: str,
    *,
    actor: PersonId | None = None,
    desktop: DesktopId | None = None,
    experiment: ExperimentId | None = None,
    kind: EventKind = EventKind.REFUSED,
) -> AsyncIterator[None]:
    """Record a refusal of ``what`` raised inside the block (malformed input is no refusal), then let it pass on."""
    try:
        yield
    except Invalid:
        raise
    except Refused as refusal:
        event = NewEvent(kind, actor, desktop, None, experiment, {"action": what, "code": refusal.code})
        async with app.store.begin(write=True) as tx:
            await tx.events.add(app.clock.now(), event)
        raise
