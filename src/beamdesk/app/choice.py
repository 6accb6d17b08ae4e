"""What may be chosen for a desktop: an image and a size on offer, that fit each other, the site and the quotas."""

from __future__ import annotations

from beamdesk.app.context import App
from beamdesk.app.promises import fits_no_host
from beamdesk.app.views import flavor_of, image_of
from beamdesk.domain.catalog import Flavor, Image, Resources
from beamdesk.domain.catalog import wanted as words_of
from beamdesk.domain.errors import Conflict, Invalid, NotSupported, QuotaExceeded
from beamdesk.domain.ids import ExperimentId, FlavorId, ImageId, PersonId
from beamdesk.domain.policy import over_quota
from beamdesk.ports.store import Transaction
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.vocabulary import Words, demand

_RESOURCE_WORDS = {
    "desktops": "number of desktops",
    "vcpus": "CPUs",
    "memory_mib": "memory",
    "disk_gib": "disk",
    "gpus": "GPUs",
    "gpu_kind": "GPUs of this kind",
    "together": "of it in one place",
}


async def choose(app: App, image_id: ImageId, flavor_id: FlavorId) -> tuple[Image, Flavor, Words]:
    """Return an image and a size on offer, and what both ask of a host.

    Raises:
        Invalid: one is not on offer, or the size has not what the image needs.
    """
    image, flavor = await image_of(app, image_id), await flavor_of(app, flavor_id)
    if image is None:
        known = ", ".join(image.id for image in await app.catalog.images()) or "none is built yet"
        raise Invalid(f"There is no image of this name. Images on offer: {known}.", field="image")
    if flavor is None:
        known = ", ".join(flavor.id for flavor in await app.catalog.flavors())
        raise Invalid(f"There is no size of this name. Sizes on offer: {known}.", field="flavor")
    try:
        return image, flavor, words_of(flavor, image)
    except SchedulingError as error:
        if demand(image.words, container=True) is not None and not flavor.resources.gpus:
            raise Invalid("This image needs a GPU. Choose a size that has one.", field="flavor") from error
        raise Invalid("This size does not have what this image needs. Choose another size.", field="flavor") from error


async def refuse_what_never_fits(app: App, flavor: Flavor, words: Words) -> None:
    """Refuse a size that this site could not run even when empty.

    Raises:
        Invalid: it could not. Conflict: no desktop runs here at all.
    """
    try:
        total = await app.capacity()
    except NotSupported as error:
        raise Conflict(error.message) from error
    if app.hosts is None and total is not None and (lacking := total.lacks_for(flavor.resources)):
        short = " and ".join(_RESOURCE_WORDS[name] for name in lacking)
        raise Invalid(f"This site has too little {short} for this size, even when empty. Choose a smaller one.", field="flavor")
    if app.hosts is not None and (lacking := await fits_no_host(app, flavor.resources, words)):
        short = " and ".join(_RESOURCE_WORDS[name] for name in lacking)
        raise Invalid(f"No host of this site could ever run this size: too little {short}. Choose a smaller one.", field="flavor")


async def check_quota(
    app: App, tx: Transaction, person: PersonId, experiment: ExperimentId, wanted: Resources, *, new_desktops: int
) -> None:
    """Refuse what would exceed the person's or the experiment's quota, the desktops wanted running counted.

    Raises:
        QuotaExceeded: it would.
    """
    scopes = (
        ("your", app.rules.person_quota, await tx.desktops.usage(owner=person)),
        ("the experiment's", app.rules.experiment_quota, await tx.desktops.usage(experiment=experiment)),
    )
    for whose, quota, usage in scopes:
        over = over_quota(quota, usage, wanted, new_desktops=new_desktops)
        if over:
            words = " and ".join(_RESOURCE_WORDS[name] for name in over)
            raise QuotaExceeded(
                f"This would exceed {whose} quota: {words}. Stop or delete a desktop, or choose a smaller size.", field="flavor"
            )
