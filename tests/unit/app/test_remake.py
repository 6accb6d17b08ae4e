"""Rebuilding a desktop and giving it another size: who may, when, and what is refused with what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apikit import StaticCatalog, a_desktop, caller, events_of, make_ready, running_app
from beamdesk.app import desktops, remake
from beamdesk.app.context import App, SiteRules
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Desktop, Phase
from beamdesk.domain.errors import Conflict, Forbidden, Invalid, NotFound, QuotaExceeded, StaleWrite
from beamdesk.domain.ids import DesktopId, FlavorId
from beamdesk.domain.policy import Quota

pytestmark = pytest.mark.anyio
MEDIUM = FlavorId("medium")


async def stopped(app: App, person: str = "ada") -> DesktopId:
    """Return a desktop of ``person`` that ran once and is stopped."""
    desktop_id = (await a_desktop(app, person)).desktop.id
    await desktops.stop(app, await caller(app, person), desktop_id)
    await make_ready(app, desktop_id, Phase.STOPPED)
    return desktop_id


async def row(app: App, desktop_id: DesktopId) -> Desktop:
    async with app.store.begin() as tx:
        desktop = await tx.desktops.get(desktop_id)
    assert desktop is not None
    return desktop


def catalog_of(app: App) -> StaticCatalog:
    assert isinstance(app.catalog, StaticCatalog)
    return app.catalog


async def test_a_rebuilt_desktop_starts_from_the_image_as_it_is_now(app: App) -> None:
    desktop_id = await stopped(app)
    catalog = catalog_of(app)
    catalog.all_images = tuple(replace(image, ref=f"newer-{image.ref}") for image in catalog.all_images)
    view = await remake.rebuild(app, await caller(app, "ada"), desktop_id)
    assert view.desktop.image_ref.startswith("newer-")
    assert (view.desktop.desired, view.desktop.outdated) == (Desired.RUNNING, True)
    (event,) = await events_of(app, "desktop.rebuilt")
    assert (event.actor, event.desktop_id) == ("ada", desktop_id)


async def test_a_failed_desktop_can_be_rebuilt_at_once(app: App) -> None:
    desktop_id = (await a_desktop(app)).desktop.id
    await make_ready(app, desktop_id, Phase.FAILED)
    view = await remake.rebuild(app, await caller(app, "ada"), desktop_id)
    assert view.desktop.outdated
    assert view.desktop.desired_generation > view.desktop.observed_generation, "or nobody would try again"


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.BUILDING, Phase.BOOTING, Phase.READY, Phase.STOPPING])
async def test_what_runs_is_neither_rebuilt_nor_resized(app: App, phase: Phase) -> None:
    ada, desktop_id = await caller(app, "ada"), (await a_desktop(app)).desktop.id
    await make_ready(app, desktop_id, phase)
    before = await row(app, desktop_id)
    with pytest.raises(Conflict, match="Stop the desktop"):
        await remake.rebuild(app, ada, desktop_id)
    with pytest.raises(Conflict, match="Stop the desktop"):
        await remake.resize(app, ada, desktop_id, MEDIUM)
    assert await row(app, desktop_id) == before


async def test_another_size_counts_from_the_next_start(app: App) -> None:
    ada, desktop_id = await caller(app, "ada"), await stopped(app)
    view = await remake.resize(app, ada, desktop_id, MEDIUM)
    medium = next(flavor for flavor in catalog_of(app).all_flavors if flavor.id == MEDIUM)
    assert (view.desktop.flavor, view.desktop.resources) == (MEDIUM, medium.resources)
    assert (view.desktop.desired, view.desktop.phase, view.desktop.outdated) == (Desired.STOPPED, Phase.STOPPED, True)
    (event,) = await events_of(app, "desktop.resized")
    assert event.data["flavor"] == MEDIUM


async def test_a_failed_desktop_gets_another_size_unless_it_holds_its_share(app: App) -> None:
    ada, desktop_id = await caller(app, "ada"), (await a_desktop(app)).desktop.id
    await make_ready(app, desktop_id, Phase.FAILED)
    with pytest.raises(Conflict, match="Stop the desktop"):
        await remake.resize(app, ada, desktop_id, MEDIUM)
    await make_ready(app, desktop_id, Phase.FAILED, admitted=False)
    view = await remake.resize(app, ada, desktop_id, MEDIUM)
    assert (view.desktop.phase, view.desktop.flavor) == (Phase.FAILED, MEDIUM)
    assert view.desktop.desired_generation <= view.desktop.observed_generation, "it is tried again when its owner says so"


async def test_the_same_size_again_changes_nothing(app: App) -> None:
    desktop_id = await stopped(app)
    before = await row(app, desktop_id)
    await remake.resize(app, await caller(app, "ada"), desktop_id, before.flavor)
    assert await row(app, desktop_id) == before
    assert await events_of(app, "desktop.resized") == []


@pytest.mark.parametrize(
    ("flavor", "words"), [("giant", "no size of this name"), ("", "no size"), ("huge", "Choose a smaller one")]
)
async def test_a_size_that_cannot_be_is_refused_beside_its_field(app: App, flavor: str, words: str) -> None:
    desktop_id = await stopped(app)
    before = await row(app, desktop_id)
    with pytest.raises(Invalid, match=words) as refused:
        await remake.resize(app, await caller(app, "ada"), desktop_id, FlavorId(flavor))
    assert refused.value.field == "flavor"
    assert await row(app, desktop_id) == before


async def test_a_size_over_the_quota_is_refused_before_it_could_not_be_started(tmp_path) -> None:
    rules = SiteRules(person_quota=Quota(5, Resources(1, 8192, 1000, 0)))
    async with running_app(tmp_path, rules=rules) as app:
        desktop_id = await stopped(app)
        with pytest.raises(QuotaExceeded):
            await remake.resize(app, await caller(app, "ada"), desktop_id, MEDIUM)


async def test_without_its_image_a_desktop_is_not_made_anew(app: App) -> None:
    ada, desktop_id = await caller(app, "ada"), await stopped(app)
    catalog_of(app).all_images = ()
    with pytest.raises(Conflict, match="image is not on offer"):
        await remake.rebuild(app, ada, desktop_id)
    with pytest.raises(Conflict, match="image is not on offer"):
        await remake.resize(app, ada, desktop_id, MEDIUM)


async def test_without_its_size_it_is_given_another_before(app: App) -> None:
    ada, desktop_id = await caller(app, "ada"), await stopped(app)
    mine = (await row(app, desktop_id)).flavor
    catalog = catalog_of(app)
    catalog.all_flavors = tuple(flavor for flavor in catalog.all_flavors if flavor.id != mine)
    with pytest.raises(Conflict, match="choose another size"):
        await remake.rebuild(app, ada, desktop_id)
    await remake.resize(app, ada, desktop_id, MEDIUM)
    assert (await remake.rebuild(app, ada, desktop_id)).desktop.flavor == MEDIUM


@pytest.mark.parametrize(("person", "error"), [("bob", Forbidden), ("olga", Forbidden), ("chen", NotFound)])
async def test_only_its_owner_may(app: App, person: str, error: type[Exception]) -> None:
    who, desktop_id = await caller(app, person), await stopped(app)
    with pytest.raises(error):
        await remake.rebuild(app, who, desktop_id)
    with pytest.raises(error):
        await remake.resize(app, who, desktop_id, MEDIUM)
    recorded = {(event.actor, event.data["action"]) for event in await events_of(app, "refused")}
    assert recorded == {(person, "rebuild"), (person, "resize")}


async def test_a_desktop_on_its_way_out_stays_so(app: App) -> None:
    ada, desktop_id = await caller(app, "ada"), await stopped(app)
    await desktops.delete(app, ada, desktop_id)
    with pytest.raises(Conflict, match="being deleted"):
        await remake.rebuild(app, ada, desktop_id)
    with pytest.raises(Conflict, match="being deleted"):
        await remake.resize(app, ada, desktop_id, MEDIUM)


async def test_of_two_changes_to_the_same_version_one_wins(app: App) -> None:
    ada, desktop_id = await caller(app, "ada"), await stopped(app)
    version = (await row(app, desktop_id)).version
    await remake.resize(app, ada, desktop_id, MEDIUM, if_version=version)
    for again in (MEDIUM, FlavorId("small")):
        with pytest.raises(StaleWrite):
            await remake.resize(app, ada, desktop_id, again, if_version=version)
    with pytest.raises(StaleWrite):
        await remake.rebuild(app, ada, desktop_id, if_version=version)
