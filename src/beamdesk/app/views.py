"""What pages, API and gateway show of a desktop: one read, one shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from beamdesk.app.context import App
from beamdesk.domain.catalog import Flavor, Image
from beamdesk.domain.desktop import Desktop, Phase
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import FlavorId, ImageId
from beamdesk.domain.lease import can_extend
from beamdesk.domain.person import Person
from beamdesk.domain.policy import Action, allowed_actions
from beamdesk.domain.progress import ProgressStep, progress
from beamdesk.domain.use import Use, use_of
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
    use: Use | None = None


_GUEST_MATTERS = frozenset({Phase.BUILDING, Phase.BOOTING, Phase.READY, Phase.REPAIRING, Phase.FAILED})
"""Phases in which a guest has something to tell: its steps, or how much the desktop is used."""


async def image_of(app: App, image_id: ImageId) -> Image | None:
    """Return an image of the catalogue."""
    return next((image for image in await app.catalog.images() if image.id == image_id), None)


async def flavor_of(app: App, flavor_id: FlavorId) -> Flavor | None:
    """Return a flavor of the catalogue."""
    return next((flavor for flavor in await app.catalog.flavors() if flavor.id == flavor_id), None)


async def view_desktop(app: App, tx: Transaction, person: Person, desktop: Desktop) -> DesktopView | None:
    """Assemble the view for ``person``; None when the person may not even see it."""
    views = await view_desktops(app, tx, person, (desktop,))
    return views[0] if views else None


async def view_desktops(app: App, tx: Transaction, person: Person, desktops: Sequence[Desktop]) -> tuple[DesktopView, ...]:
    """Assemble the views of those desktops that ``person`` may see, reading each experiment and person once."""
    images = {image.id: image for image in await app.catalog.images()}
    flavors = {flavor.id: flavor for flavor in await app.catalog.flavors()}
    experiments = {key: await tx.people.experiment(key) for key in dict.fromkeys(desktop.experiment for desktop in desktops)}
    others = dict.fromkeys(desktop.owner for desktop in desktops if desktop.owner != person.id)
    owners = {person.id: person} | {key: await tx.people.person(key) for key in others}
    guests = await tx.guests.many([desktop.id for desktop in desktops if desktop.phase in _GUEST_MATTERS])
    now, views = app.clock.now(), []
    for desktop in desktops:
        experiment, owner = experiments[desktop.experiment], owners[desktop.owner]
        if experiment is None or owner is None or not (actions := allowed_actions(person, desktop, experiment)):
            continue
        guest = guests.get(desktop.id)
        view = DesktopView(
            desktop=desktop,
            experiment=experiment,
            owner=owner,
            image=images.get(desktop.image),
            flavor=flavors.get(desktop.flavor),
            steps=progress(desktop, guest),
            actions=actions,
            can_extend=Action.EXTEND in actions and can_extend(app.rules.lease, desktop.lease_ends_at, now),
            last_active_at=desktop.last_active_at,
            use=use_of(desktop, guest, app.rules.lease, now) if guest else None,
        )
        views.append(view)
    return tuple(views)
