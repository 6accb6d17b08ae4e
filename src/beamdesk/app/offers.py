"""What can be applied for: experiments, images for a beamline, and sizes with their availability now."""

from __future__ import annotations

from dataclasses import dataclass

from beamdesk.app.audit import audited
from beamdesk.app.context import App
from beamdesk.app.logins import Caller
from beamdesk.app.outlook import outlooks
from beamdesk.app.views import image_of
from beamdesk.domain.catalog import Flavor, Image, Resources
from beamdesk.domain.errors import NotFound, NotSupported
from beamdesk.domain.experiment import Experiment
from beamdesk.domain.ids import ExperimentId, ImageId
from beamdesk.domain.outlook import Outlook, State
from beamdesk.domain.policy import over_quota


@dataclass(frozen=True, slots=True)
class FlavorOffer:
    """A flavor and whether it can be had: ``state`` is ``now``, ``wait`` (it would queue), ``quota``, ``never``, or ``unknown``.

    ``lacking`` names what is short: vcpus, memory_mib, disk_gib, gpus, desktops, and what `scheduling.line` says.
    ``outlook``: when it could run, how sure that is, and the largest that there is.
    """

    flavor: Flavor
    state: str
    lacking: tuple[str, ...]
    outlook: Outlook


async def list_experiments(app: App, caller: Caller) -> tuple[Experiment, ...]:
    """Return the caller's experiments, newest first."""
    async with app.store.begin() as tx:
        return await tx.people.experiments_of(caller.person.id)


async def get_experiment(app: App, caller: Caller, experiment_id: ExperimentId) -> Experiment:
    """Return one of the caller's experiments.

    Raises:
        NotFound: none of the caller's.
    """
    async with audited(app, "see_experiment", actor=caller.person.id, experiment=experiment_id):
        for experiment in await list_experiments(app, caller):
            if experiment.id == experiment_id:
                return experiment
        raise NotFound("There is no such experiment, or you are not in its team.")


async def list_images(app: App, beamline: str | None = None) -> tuple[Image, ...]:
    """Return the images, only those made for ``beamline`` if one is given, the most specific first."""
    images = [image for image in await app.catalog.images() if beamline is None or image.fits_beamline(beamline)]
    return tuple(sorted(images, key=lambda image: not image.beamlines))


async def list_flavors(
    app: App,
    caller: Caller,
    experiment_id: ExperimentId | None = None,
    image_id: ImageId | None = None,
    *,
    new_desktops: int = 1,
) -> tuple[FlavorOffer, ...]:
    """Return the flavors with their availability for the caller, for one of the caller's experiments and an image if given.

    ``new_desktops``: 0 for a desktop that there is already and that does not run.

    Raises:
        NotFound: the experiment is none of the caller's: how much of its quota is used is for its team.
    """
    if experiment_id is not None:
        await get_experiment(app, caller, experiment_id)
    image = None if image_id is None else await image_of(app, image_id)
    known = await outlooks(app, experiment_id, image)
    total = await _allowed(app) if app.hosts is None else None
    async with app.store.begin() as tx:
        used = await tx.desktops.admitted_total()
        scopes = [(app.rules.person_quota, await tx.desktops.usage(owner=caller.person.id))]
        if experiment_id is not None:
            scopes.append((app.rules.experiment_quota, await tx.desktops.usage(experiment=experiment_id)))
    offers = []
    for flavor in await app.catalog.flavors():
        over = tuple(
            dict.fromkeys(
                name for quota, usage in scopes for name in over_quota(quota, usage, flavor.resources, new_desktops=new_desktops)
            )
        )
        outlook = known.get(flavor.id) or Outlook(State.UNKNOWN, app.clock.now())
        offers.append(_offer(flavor, _within(flavor, total, used, outlook), over))
    return tuple(offers)


async def _allowed(app: App) -> Resources | None:
    """Return what the cloud's quota allows; nothing where no desktop can run: asking for one gets the cause in words."""
    try:
        return await app.capacity()
    except NotSupported:
        return Resources()


def _within(flavor: Flavor, total: Resources | None, used: Resources, outlook: Outlook) -> Outlook:
    """Return an outlook under what the cloud's own quota allows, where it limits anything."""
    if total is None:
        return outlook
    if lacking := total.lacks_for(flavor.resources):
        return Outlook(State.NEVER, outlook.as_of, lacking, largest=total)
    if lacking := (total - used).lacks_for(flavor.resources):
        return Outlook(State.WAIT, outlook.as_of, lacking)
    return outlook


def _offer(flavor: Flavor, outlook: Outlook, over: tuple[str, ...]) -> FlavorOffer:
    if over and outlook.state is not State.NEVER:
        return FlavorOffer(flavor, "quota", over, outlook)
    return FlavorOffer(flavor, outlook.state, outlook.lacking, outlook)
