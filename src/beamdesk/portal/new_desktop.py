"""Apply for a desktop: experiment, image, size, name, with defaults so good that one click is enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from starlette.responses import Response

from beamdesk.app import desktops, offers
from beamdesk.domain.catalog import Image
from beamdesk.domain.errors import Conflict, Forbidden, Invalid, QuotaExceeded, Refused
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import ExperimentId, FlavorId, ImageId
from beamdesk.portal.say import error_text
from beamdesk.portal.site import Visit, redirect, render, status_of

_CLOSED = frozenset({"quota", "never"})
_AT_ONCE = frozenset({"now", "unknown"})
_FIELDS = ("experiment", "image", "flavor", "name")


@dataclass(frozen=True, slots=True)
class Form:
    """What the form shows: the offers, and the choice in each group (the person's, or a sensible one)."""

    experiments: tuple[Experiment, ...]
    experiment: Experiment | None
    images: tuple[Image, ...]
    image: Image | None
    flavors: tuple[offers.FlavorOffer, ...]
    flavor: offers.FlavorOffer | None
    name: str
    key: str

    @property
    def nothing_fits(self) -> bool:
        """Tell whether no size can be had, not even by waiting."""
        return all(offer.state in _CLOSED for offer in self.flavors)

    @property
    def as_of(self) -> datetime | None:
        """Return the moment of which the offers are true."""
        return min((offer.outlook.as_of for offer in self.flavors), default=None)


async def show(visit: Visit) -> Response:
    """Show the form, or with htmx the part that depends on the experiment."""
    form = await _form(visit, visit.request.query_params, visit.app.secrets.id())
    return _page(visit, form, {}, HTTPStatus.OK)


async def submit(visit: Visit) -> Response:
    """Apply, then go to the progress page. The same form sent twice makes one desktop."""
    chosen = visit.form
    wanted = desktops.NewDesktop(
        ExperimentId(chosen.get("experiment", "")),
        ImageId(chosen.get("image", "")),
        FlavorId(chosen.get("flavor", "")),
        chosen.get("name", ""),
    )
    try:
        view = await desktops.apply(visit.app, visit.caller, wanted, idempotency_key=chosen.get("key") or None)
    except (Invalid, Forbidden, QuotaExceeded, Conflict) as error:
        form = await _form(visit, chosen, visit.app.secrets.id())
        return _page(visit, form, _beside(visit, error), status_of(error))
    target = f"/desktops/{view.desktop.id}"
    if visit.partial:
        return Response(headers={"HX-Redirect": target})
    return redirect(target)


def _beside(visit: Visit, error: Refused) -> dict[str, str]:
    field = error.field if error.field in _FIELDS else "form"
    return {field: error_text(visit.words, error)}


def _page(visit: Visit, form: Form, errors: dict[str, str], status: int) -> Response:
    template = "desktops/new_form.html" if visit.partial else "desktops/new.html"
    status = HTTPStatus.OK if visit.partial else status
    return render(visit, template, status=status, nav="desktops", form=form, errors=errors, lease=visit.app.rules.lease.initial)


async def _form(visit: Visit, chosen: Mapping[str, str], key: str) -> Form:
    experiments = await offers.list_experiments(visit.app, visit.caller)
    experiment = next((each for each in experiments if each.id == chosen.get("experiment")), None)
    experiment = experiment or (experiments[0] if experiments else None)
    if experiment is None:
        return Form(experiments, None, (), None, (), None, "", key)
    images = await offers.list_images(visit.app, experiment.beamline)
    image = next((each for each in images if each.id == chosen.get("image")), images[0] if images else None)
    flavors = await offers.list_flavors(visit.app, visit.caller, experiment.id, image.id if image is not None else None)
    flavor = next((each for each in flavors if each.flavor.id == chosen.get("flavor")), None)
    return Form(
        experiments,
        experiment,
        images,
        image,
        flavors,
        flavor if flavor and flavor.state not in _CLOSED else _sensible(flavors),
        chosen.get("name", ""),
        key,
    )


def _sensible(flavors: tuple[offers.FlavorOffer, ...]) -> offers.FlavorOffer | None:
    """Return the size to suggest: the second smallest that is free, GPUs only on request; else what comes soonest."""
    free = [offer for offer in flavors if offer.state in _AT_ONCE and not offer.flavor.resources.gpus]
    waiting = [offer for offer in flavors if offer.state == "wait"]
    candidates = free[:2] or [offer for offer in flavors if offer.state in _AT_ONCE][:1] or waiting[:1]
    return candidates[-1] if candidates else None
