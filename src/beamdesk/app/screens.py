"""What a desktop shows to those who are not connected: its newest thumbnail, and to operators its server's console."""

from __future__ import annotations

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.logins import Caller
from beamdesk.domain.desktop import Desktop
from beamdesk.domain.errors import Forbidden, NotFound, NotSupported
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


async def _visible(tx: Transaction, caller: Caller, desktop_id: DesktopId) -> tuple[Desktop, Experiment]:
    desktop = await tx.desktops.get(desktop_id)
    experiment = await tx.people.experiment(desktop.experiment) if desktop else None
    if desktop is None or experiment is None or not allowed_actions(caller.person, desktop, experiment):
        raise NotFound(_NO_DESKTOP)
    return desktop, experiment
