"""Give a stopped desktop another size: the sizes with what can be had of each, as on the page of a new desktop."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response

from beamdesk.app import desktops, offers, remake
from beamdesk.domain.errors import Conflict, Invalid, QuotaExceeded
from beamdesk.domain.ids import DesktopId, FlavorId
from beamdesk.portal.cards import make_card
from beamdesk.portal.say import error_text
from beamdesk.portal.site import Visit, done, render, status_of


async def show(visit: Visit) -> Response:
    """Show the sizes, the present one chosen."""
    return await _page(visit)


async def submit(visit: Visit) -> Response:
    """Change the size and go back to the desktop; what cannot be comes back with the reason beside the sizes."""
    desktop_id, flavor = DesktopId(visit.path("id")), visit.form.get("flavor", "")
    try:
        view = await remake.resize(visit.app, visit.caller, desktop_id, FlavorId(flavor))
    except (Invalid, QuotaExceeded, Conflict) as error:
        return await _page(visit, chosen=flavor, error=error_text(visit.words, error), status=status_of(error))
    return done("resized", f"/desktops/{view.desktop.id}")


async def _page(visit: Visit, *, chosen: str = "", error: str = "", status: int = HTTPStatus.OK) -> Response:
    view = await desktops.get_desktop(visit.app, visit.caller, DesktopId(visit.path("id")))
    desktop = view.desktop
    sizes = await offers.list_flavors(visit.app, visit.caller, desktop.experiment, desktop.image, new_desktops=0)
    return render(
        visit,
        "desktops/resize.html",
        status=status,
        nav="desktops",
        card=make_card(view, visit.caller.person.id, visit.say),
        offers=sizes,
        chosen=chosen or desktop.flavor,
        as_of=min((offer.outlook.as_of for offer in sizes), default=None),
        error=error,
    )
