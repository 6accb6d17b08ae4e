"""What is on offer, and why not."""

from dataclasses import replace

import pytest

from apikit import DIFFRACTION, IMAGING, a_desktop, caller, events_of, make_ready, running_app
from beamdesk.app import desktops, offers
from beamdesk.app.context import SiteRules
from beamdesk.domain.catalog import Resources
from beamdesk.domain.errors import Conflict, NotFound, NotSupported
from beamdesk.domain.policy import Quota

pytestmark = pytest.mark.anyio


async def _states(app, person="ada", experiment=None):
    found = await offers.list_flavors(app, await caller(app, person), experiment)
    return {offer.flavor.id: (offer.state, offer.lacking) for offer in found}


async def test_experiments_are_ones_own(app):
    assert [one.id for one in await offers.list_experiments(app, await caller(app, "ada"))] == [IMAGING]
    assert [one.id for one in await offers.list_experiments(app, await caller(app, "olga"))] == []


@pytest.mark.parametrize("which", [DIFFRACTION, "no-such"])
async def test_a_foreign_experiment_is_not_found_and_recorded(app, which):
    with pytest.raises(NotFound):
        await offers.get_experiment(app, await caller(app, "ada"), which)
    assert (await events_of(app, "refused"))[0].data["action"] == "see_experiment"


async def test_images_fit_the_beamline_the_specific_ones_first(app):
    assert [image.id for image in await offers.list_images(app, "B7")] == ["imaging", "general"]
    assert [image.id for image in await offers.list_images(app, "B8")] == ["general"]
    assert len(await offers.list_images(app)) == 2


async def test_an_empty_site_gives_what_fits(app):
    states = await _states(app)
    assert states["small"] == ("now", ())
    assert states["huge"] == ("never", ("vcpus",))


async def test_where_no_desktop_can_run_the_cause_is_told(app):
    async def lacking():
        raise NotSupported("No desktop can run on this machine: it lacks user namespaces. Tell the operators.")

    broken = replace(app, capacity=lacking, hosts=lacking)
    assert (await _states(broken))["small"][0] == "never"
    with pytest.raises(Conflict, match="lacks user namespaces"):
        await a_desktop(broken)


async def test_what_is_in_use_makes_the_next_wait(app):
    desktop = await a_desktop(app, flavor="gpu.small")
    await make_ready(app, desktop.desktop.id)
    assert (await _states(app, "bob"))["gpu.small"] == ("wait", ("gpus",))
    assert (await _states(app, "ada"))["gpu.small"] == ("quota", ("memory_mib", "gpus"))


async def test_the_experiments_quota_counts_when_asked_for(tmp_path):
    rules = SiteRules(experiment_quota=Quota(1, Resources(99, 99999, 999, 9)))
    async with running_app(tmp_path, rules=rules) as app:
        await a_desktop(app, "ada")
        assert (await _states(app, "bob"))["small"][0] == "now"
        assert (await _states(app, "bob", IMAGING))["small"] == ("quota", ("desktops",))


async def test_the_use_of_a_foreign_experiments_quota_is_not_told(app):
    with pytest.raises(NotFound):
        await _states(app, "chen", IMAGING)


async def test_offer_and_application_agree(tmp_path):
    rules = SiteRules(person_quota=Quota(4, Resources(2, 8192, 100, 0)))
    async with running_app(tmp_path, rules=rules) as app:
        await a_desktop(app, flavor="medium")
        ada = await caller(app, "ada")
        assert (await _states(app))["small"] == ("quota", ("vcpus",))
        await desktops.stop(app, ada, (await desktops.list_desktops(app, ada)).items[0].desktop.id)
        assert (await _states(app))["small"] == ("now", ())
