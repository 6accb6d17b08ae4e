"""Use cases that have a desktop's server made anew: rebuild it from its image, or give it another size. The home stays.

Both are intents like the others (`app.desktops`): the old server gives way at the next start, `lifecycle` decides how.
"""

from __future__ import annotations

from beamdesk.app.audit import audited
from beamdesk.app.choice import check_quota, choose, refuse_what_never_fits
from beamdesk.app.context import App
from beamdesk.app.desktops import intend, permitted
from beamdesk.app.logins import Caller
from beamdesk.app.views import DesktopView, flavor_of, image_of, view_desktop
from beamdesk.domain.desktop import Desired, Desktop, Phase, Shape
from beamdesk.domain.errors import Conflict, NotFound, StaleWrite
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.ids import DesktopId, FlavorId
from beamdesk.domain.policy import Action

_IMAGE_GONE = "Its image is not on offer any more. Make a new desktop; experiment data stay where they are."


async def rebuild(app: App, caller: Caller, desktop_id: DesktopId, *, if_version: int | None = None) -> DesktopView:
    """Start a stopped or failed desktop on a server made anew from its image as it is now on offer.

    Raises:
        NotFound, Forbidden. Conflict: it runs, it is being deleted, or its image is gone. QuotaExceeded.
    """

    async def remake(desktop: Desktop) -> Shape:
        if desktop.phase not in (Phase.STOPPED, Phase.FAILED):
            raise Conflict(
                "It is not stopped. Stop the desktop first, so that nothing is lost that is open in it; then rebuild it."
            )
        if await image_of(app, desktop.image) is None:
            raise Conflict(_IMAGE_GONE)
        if await flavor_of(app, desktop.flavor) is None:
            raise Conflict("Its size is not on offer any more. Stop the desktop and choose another size.")
        image, _, words = await choose(app, desktop.image, desktop.flavor)
        return Shape(image.ref, desktop.flavor, desktop.resources, words)

    return await intend(app, caller, desktop_id, Action.REBUILD, Desired.RUNNING, if_version, remake)


async def resize(
    app: App, caller: Caller, desktop_id: DesktopId, flavor_id: FlavorId, *, if_version: int | None = None
) -> DesktopView:
    """Give a stopped desktop, or a failed one that holds nothing, another size from its next start on. The same changes nothing.

    Raises:
        NotFound, Forbidden. Invalid: no such size, or it fits neither image nor site. QuotaExceeded: it could not be started.
        Conflict: it is not stopped, it is being deleted, or its image is gone. StaleWrite: its version is another.
    """
    person, now = caller.person, app.clock.now()
    async with audited(app, "resize", actor=person.id, desktop=desktop_id):
        async with app.store.begin() as tx:
            desktop, _ = await permitted(tx, person, desktop_id, Action.RESIZE)
        if await image_of(app, desktop.image) is None:
            raise Conflict(_IMAGE_GONE)
        image, flavor, words = await choose(app, desktop.image, flavor_id)
        await refuse_what_never_fits(app, flavor, words)
        shape = Shape(image.ref, flavor.id, flavor.resources, words)
        async with app.store.begin(write=True) as tx:
            desktop, experiment = await permitted(tx, person, desktop_id, Action.RESIZE)
            if desktop.desired is Desired.DELETED:
                raise Conflict("This desktop is being deleted.")
            if not desktop.resizable:
                raise Conflict("It is not stopped. Stop the desktop and wait until it is; then choose its size.")
            if if_version not in (None, desktop.version):
                raise StaleWrite("Somebody changed this desktop meanwhile. Look at it again and repeat.")
            if (desktop.flavor, desktop.resources) != (flavor.id, flavor.resources):
                await tx.desktops.lock_usage(desktop.owner, experiment.id)
                await check_quota(app, tx, desktop.owner, experiment.id, flavor.resources, new_desktops=0)
                desktop = await tx.desktops.change_intent(desktop_id, now=now, shape=shape)
                data = {"name": desktop.name, "flavor": flavor.id}
                event = NewEvent(EventKind.DESKTOP_RESIZED, person.id, desktop_id, desktop.owner, experiment.id, data)
                await tx.events.add(now, event)
            view = await view_desktop(app, tx, person, desktop)
    if view is None:
        raise NotFound("There is no such desktop, or it is not shared with you.")
    return view
