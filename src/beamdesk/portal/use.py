"""How much a desktop is used, as a reader sees it: a meter for its CPUs and one for its GPUs, fetched anew at every heartbeat.

What is not known is said so: a meter without a share has no bar, never an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from starlette.responses import Response

from beamdesk.app import desktops
from beamdesk.app.views import DesktopView
from beamdesk.domain.desktop import Desired, Phase
from beamdesk.domain.errors import NotFound
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.use import GpuState, Use, Work
from beamdesk.portal.say import Say
from beamdesk.portal.site import Visit, render


@dataclass(frozen=True, slots=True)
class Meter:
    """One bar. ``kind``: `cpu` or `gpu`. ``percent``: None where it is not known, which ``text`` says."""

    kind: str
    percent: int | None
    text: str


@dataclass(frozen=True, slots=True)
class UseShown:
    """The meters of a ready desktop. ``note``: why it is not stopped as unused, or when it would be, at ``stops_at``."""

    desktop_id: DesktopId
    meters: tuple[Meter, ...]
    note: str
    stops_at: datetime | None


def shown_use(view: DesktopView, say: Say) -> UseShown | None:
    """Return what is shown of a desktop's use; None where it does not run."""
    desktop, use = view.desktop, view.use
    if desktop.phase is not Phase.READY or desktop.desired is not Desired.RUNNING:
        return None
    meters = [_meter("cpu", use.cpu if use else None, say)]
    if use.gpu_state is not GpuState.NONE if use else desktop.resources.gpus:
        broken = use is not None and use.gpu_state is GpuState.UNUSABLE
        meters.append(_meter("gpu", use.gpu if use else None, say, unmeasured="use.unusable" if broken else "use.unknown"))
    note, stops_at = _note(use, say)
    return UseShown(desktop.id, tuple(meters), note, stops_at)


def _meter(kind: str, share: float | None, say: Say, unmeasured: str = "use.unknown") -> Meter:
    if share is None:
        return Meter(kind, None, say.words(unmeasured))
    percent = round(100 * share)
    return Meter(kind, percent, say.words("use.percent", n=percent))


def _note(use: Use | None, say: Say) -> tuple[str, datetime | None]:
    if use is None:
        return say.words("use.silent"), None
    if use.gpu_state is GpuState.UNUSABLE:
        return say.words("use.gpu_unusable"), None
    if not use.works:
        return say.words("use.stops"), use.stops_at
    blind = use.gpu_state is GpuState.UNKNOWN and Work.CPU not in use.works
    return say.words("use.gpu_silent" if blind else "use.works"), None


async def show_list(visit: Visit) -> Response:
    """Return the meters of a page of the list."""
    after = visit.query("after")
    page = await desktops.list_desktops(
        visit.app, visit.caller, after=DesktopId(after) if after else None, limit=visit.site.settings.desktops_per_page
    )
    return _answer(visit, page.items, with_note=False)


async def show_one(visit: Visit) -> Response:
    """Return the meters of one desktop; of one that is gone, nothing."""
    try:
        view = await desktops.get_desktop(visit.app, visit.caller, DesktopId(visit.path("id")))
    except NotFound:
        return render(visit, "empty.html")
    return _answer(visit, (view,), with_note=True)


def _answer(visit: Visit, views: tuple[DesktopView, ...], *, with_note: bool) -> Response:
    shown = [use for view in views if (use := shown_use(view, visit.say))]
    return render(visit, "desktops/use.html", shown=shown, with_note=with_note)
