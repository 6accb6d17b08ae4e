"""What pages, API and gateway show of a desktop: one read, one shape."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from beamdesk.app.context import App
from beamdesk.domain.catalog import Flavor, Image
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.guest import Guest
from beamdesk.domain.ids import FlavorId, ImageId
from beamdesk.domain.lease import can_extend
from beamdesk.domain.person import Person
from beamdesk.domain.policy import Action, allowed_actions
from beamdesk.domain.progress import ProgressStep, progress
from beamdesk.ports.store import Transaction


@dataclass(frozen=True, slots=True)
class DesktopView:
    """A desktop with everything that a page shows beside it. ``image`` or ``flavor`` is None when it left the catalogue."""

    desktop: Desktop
    experiment: Experiment
    owner: Person
    image: Image | None
    flavor: Flavor | None
    steps: tuple[ProgressStep, ...]
    actions: frozenset[Action]
    can_extend: bool
    last_active_at: datetime


async def image_of(app: App, image_id: ImageId) -> Image | None:
    """Return an image of the catalogue."""
    return next((image for image in await app.catalog.images() if image.id == image_id), None)


async def flavor_of(app: App, flavor_id: FlavorId) -> Flavor | None:
    """Return a flavor of the catalogue."""
    return next((flavor for flavor in await app.catalog.flavors() if flavor.id == flavor_id), None)


async def view_desktop(app: App, tx: Transaction, person: Person, desktop: Desktop) -> DesktopView | None:
    """Assemble the view for ``person``; None when the person may not even see it."""
    experiment = await tx.people.experiment(desktop.experiment)
    owner = await tx.people.person(desktop.owner)
    if experiment is None or owner is None:
        return None
    actions = allowed_actions(person, desktop, experiment)
    if not actions:
        return None
    guest: Guest | None = await tx.guests.get(desktop.id)
    return DesktopView(
        desktop=desktop,
        experiment=experiment,
        owner=owner,
        image=await image_of(app, desktop.image),
        flavor=await flavor_of(app, desktop.flavor),
        steps=progress(desktop, guest),
        actions=actions,
        can_extend=Action.EXTEND in actions and can_extend(app.rules.lease, desktop.lease_ends_at, app.clock.now()),
        last_active_at=desktop.last_active_at,
    )
