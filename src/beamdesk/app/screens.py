"""What a desktop shows to those who are not connected: its newest thumbnail; to operators its server's console and screen."""

from __future__ import annotations

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.logins import Caller
from beamdesk.domain.desktop import Desktop, Phase
from beamdesk.domain.errors import Conflict, Forbidden, NotFound, NotSupported
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.policy import allowed_actions, viewer_role
from beamdesk.ports.store import Transaction

_NO_DESKTOP = "There is no such desktop, or it is not shared with you."


async def thumbnail(app: App, caller: Caller, desktop_id: DesktopId) -> tuple[str, bytes]:
    """Return content type and bytes of the newest picture, for those who may also connect: it shows what they would see.

    Raises:
        NotFound: no such desktop for the caller, or no picture yet. Forbidden: the caller may see the desktop, not its screen.
    """
    async with audited(app, "see_screen", actor=caller.person.id, desktop=desktop_id), app.store.begin() as tx:
        desktop, experiment = await _visible(tx, caller, desktop_id)
        if viewer_role(caller.person, desktop, experiment) is None:
            raise Forbidden("Only the owner and the experiment's team may see this screen.")
        picture = await tx.guests.thumbnail(desktop_id)
    if picture is None:
        raise NotFound("There is no picture of this desktop yet.")
    return picture[0], picture[1]


async def console(app: App, caller: Caller, desktop_id: DesktopId) -> str:
    """Return the last lines of the server's console, for operators.

    Raises:
        NotFound, Forbidden: policy. NotSupported: this process has no way to the cloud. CloudError: the driver failed.
    """
    async with audited(app, "see_console", actor=caller.person.id, desktop=desktop_id):
        async with app.store.begin() as tx:
            desktop, _ = await _visible(tx, caller, desktop_id)
        if not caller.person.is_operator:
            raise Forbidden("Only operators may read a server's console.")
    if app.console is None:
        raise NotSupported("The console cannot be read from here.")
    if desktop.server_id is None:
        raise NotFound("This desktop has no server now.")
    return await app.console(desktop.server_id)


async def screen(app: App, caller: Caller, desktop_id: DesktopId) -> str:
    """Return the address of the server's own screen, as the hypervisor shows it, for operators who look why it does not come up.

    The cloud made the address, a token in it included: it is worth the screen for some minutes, so it is shown and nowhere kept.
    While somebody may be at work in the desktop there is none: nobody looks over a shoulder without consent.

    Raises:
        NotFound, Forbidden: policy. Conflict: it is ready. NotSupported: this cloud shows no screens. CloudError: as it says.
    """
    person = caller.person
    async with audited(app, "open_screen", actor=person.id, desktop=desktop_id):
        async with app.store.begin() as tx:
            desktop, experiment = await _visible(tx, caller, desktop_id)
        if not person.is_operator:
            raise Forbidden("Only operators may open a server's screen.")
        if desktop.phase is Phase.READY:
            raise Conflict("Somebody may be at work in this desktop. Its server's screen can be opened while it is not ready.")
    if app.screen is None:
        raise NotSupported("The servers of this site have no screen that could be opened. Read the console instead.")
    if desktop.server_id is None:
        raise NotFound("This desktop has no server now.")
    address = await app.screen(desktop.server_id)
    async with app.store.begin(write=True) as tx:
        data = {"name": desktop.name}
        event = NewEvent(EventKind.SCREEN_OPENED, person.id, desktop_id, desktop.owner, experiment.id, data)
        await tx.events.add(app.clock.now(), event)
    return address


async def _visible(tx: Transaction, caller: Caller, desktop_id: DesktopId) -> tuple[Desktop, Experiment]:
    desktop = await tx.desktops.get(desktop_id)
    experiment = await tx.people.experiment(desktop.experiment) if desktop else None
    if desktop is None or experiment is None or not allowed_actions(caller.person, desktop, experiment):
        raise NotFound(_NO_DESKTOP)
    return desktop, experiment
