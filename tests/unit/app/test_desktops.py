"""Applying for desktops and what their owners, teams, local contacts and operators may do with them."""

from dataclasses import replace

import anyio
import pytest

from apikit import (
    DIFFRACTION,
    IMAGING,
    StaticCatalog,
    a_desktop,
    caller,
    clock_of,
    events_of,
    make_ready,
    running_app,
    wanted,
)
from beamdesk.adapters.demo.people import ADA, BOB
from beamdesk.adapters.demo.people import IMAGING as IMAGING_EXPERIMENT
from beamdesk.app import desktops
from beamdesk.app.context import SiteRules
from beamdesk.app.logins import Caller
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Phase, Reason
from beamdesk.domain.errors import Conflict, Forbidden, Invalid, NotFound, QuotaExceeded, StaleWrite
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.person import Role
from beamdesk.domain.policy import Action, Quota
from beamdesk.scheduling.vocabulary import Words

pytestmark = pytest.mark.anyio


async def test_an_application_is_a_queued_desktop_with_a_sensible_name(app):
    view = await a_desktop(app)
    assert (view.desktop.phase, view.desktop.desired) == (Phase.QUEUED, Desired.RUNNING)
    assert view.desktop.name == "成像线站 · HEPS-2026-0147"
    assert view.desktop.lease_ends_at - app.clock.now() == app.rules.lease.initial
    assert [step.name for step in view.steps][:2] == ["queue", "server"]
    (event,) = await events_of(app, "desktop.created")
    assert (event.actor, event.owner, event.experiment, event.desktop_id) == ("ada", "ada", IMAGING, view.desktop.id)


async def test_applying_hints_the_reconciler(tmp_path):
    hints = []
    async with running_app(tmp_path, hint=lambda: hints.append(1)) as app:
        await a_desktop(app)
    assert hints


@pytest.mark.parametrize(
    ("what", "error", "field"),
    [
        ({"image": "windows"}, Invalid, "image"),
        ({"flavor": "giant"}, Invalid, "flavor"),
        ({"flavor": "huge"}, Invalid, "flavor"),
        ({"experiment": DIFFRACTION}, Forbidden, "experiment"),
        ({"experiment": "no-such"}, Forbidden, "experiment"),
        ({"name": "x" * 61}, Invalid, "name"),
        ({"name": "a\u202eb"}, Invalid, "name"),
        ({"name": "a\x00b"}, Invalid, "name"),
    ],
)
async def test_bad_applications_name_the_field(app, what, error, field):
    with pytest.raises(error) as refusal:
        await a_desktop(app, **what)
    assert refusal.value.field == field
    assert not await events_of(app, "desktop.created")


async def test_what_size_and_image_ask_of_a_host_is_kept_with_the_desktop(app):
    app, catalog = replace(app, hosts=None), app.catalog
    assert isinstance(catalog, StaticCatalog)
    general, imaging = catalog.all_images
    catalog.all_images = general, replace(imaging, words=Words(gpu_memory_mib=40000))
    catalog.all_flavors = tuple(
        replace(one, words=Words(aggregates=frozenset({"B7"}))) if one.id == "gpu.small" else one for one in catalog.all_flavors
    )
    view = await a_desktop(app, flavor="gpu.small")
    assert view.desktop.words == Words(gpu_memory_mib=40000, aggregates=frozenset({"B7"}))
    catalog.all_images = general, imaging
    async with app.store.begin() as tx:
        kept = await tx.desktops.get(view.desktop.id)
    assert kept == view.desktop


@pytest.mark.parametrize(
    ("words", "flavor", "says"),
    [
        (Words(gpu_memory_mib=40000), "small", "needs a GPU"),
        (Words(gpus=2), "gpu.small", "does not have what this image needs"),
    ],
)
async def test_an_image_that_needs_more_than_the_size_has_is_refused_beside_the_size(app, words, flavor, says):
    general, imaging = app.catalog.all_images
    app.catalog.all_images = general, replace(imaging, words=words)
    with pytest.raises(Invalid, match=says) as refusal:
        await a_desktop(app, flavor=flavor)
    assert refusal.value.field == "flavor"


async def test_an_image_of_another_beamline_is_refused(app):
    with pytest.raises(Invalid, match="B8"):
        await a_desktop(app, "chen", experiment=DIFFRACTION, image="imaging")


async def test_a_refused_application_is_recorded(app):
    with pytest.raises(Forbidden):
        await a_desktop(app, "chen")
    (event,) = await events_of(app, "refused")
    assert (event.actor, event.data["action"], event.data["code"]) == ("chen", "apply", "forbidden")


async def test_the_persons_quota_counts_desktops_and_running_resources(app):
    for _ in range(4):
        await a_desktop(app)
    with pytest.raises(QuotaExceeded, match="your quota: number of desktops"):
        await a_desktop(app)


async def test_a_stopped_desktop_gives_its_resources_back_but_counts_as_a_desktop(tmp_path):
    rules = SiteRules(person_quota=Quota(2, Resources(2, 8192, 100, 0)))
    async with running_app(tmp_path, rules=rules) as app:
        first = await a_desktop(app, flavor="medium")
        with pytest.raises(QuotaExceeded, match="CPUs"):
            await a_desktop(app)
        ada = await caller(app, "ada")
        await desktops.stop(app, ada, first.desktop.id)
        await a_desktop(app)
        with pytest.raises(QuotaExceeded, match="number of desktops"):
            await a_desktop(app)
        with pytest.raises(QuotaExceeded, match="CPUs"):
            await desktops.start(app, ada, first.desktop.id)


async def test_the_experiments_quota_is_shared_by_its_team(tmp_path):
    rules = SiteRules(experiment_quota=Quota(1, Resources(99, 99999, 999, 9)))
    async with running_app(tmp_path, rules=rules) as app:
        await a_desktop(app, "ada")
        with pytest.raises(QuotaExceeded, match="the experiment's quota"):
            await a_desktop(app, "bob")


async def test_the_same_key_makes_one_desktop(app):
    ada = await caller(app, "ada")
    first = await desktops.apply(app, ada, wanted(), idempotency_key="k1")
    again = await desktops.apply(app, ada, wanted(), idempotency_key="k1")
    assert first.desktop.id == again.desktop.id
    assert len(await events_of(app, "desktop.created")) == 1


async def test_the_same_key_at_the_same_time_makes_one_desktop(app):
    ada, made = await caller(app, "ada"), []

    async def one():
        made.append((await desktops.apply(app, ada, wanted(), idempotency_key="race")).desktop.id)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one)
    assert len(made) == 8
    assert len(set(made)) == 1
    assert len(await events_of(app, "desktop.created")) == 1


async def test_the_same_key_of_two_people_makes_two_desktops(app):
    first = await desktops.apply(app, await caller(app, "ada"), wanted(), idempotency_key="k1")
    second = await desktops.apply(app, await caller(app, "bob"), wanted(), idempotency_key="k1")
    assert first.desktop.id != second.desktop.id


async def test_a_key_used_for_something_else_is_a_conflict(app):
    ada = await caller(app, "ada")
    await desktops.apply(app, ada, wanted(), idempotency_key="k1")
    with pytest.raises(Conflict):
        await desktops.apply(app, ada, wanted(flavor="medium"), idempotency_key="k1")


async def test_a_repeated_application_is_answered_even_when_its_image_left_the_catalogue(app):
    ada = await caller(app, "ada")
    first = await desktops.apply(app, ada, wanted(), idempotency_key="k1")
    assert isinstance(app.catalog, StaticCatalog)
    app.catalog.all_images = ()
    again = await desktops.apply(app, ada, wanted(), idempotency_key="k1")
    assert again.desktop.id == first.desktop.id
    assert again.image is None


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "é", "a\n"])
async def test_a_malformed_key_is_invalid(app, key):
    with pytest.raises(Invalid):
        await desktops.apply(app, await caller(app, "ada"), wanted(), idempotency_key=key)


async def test_the_list_has_own_desktops_and_those_of_own_experiments(app):
    adas, bobs, chens = (
        await a_desktop(app),
        await a_desktop(app, "bob"),
        await a_desktop(app, "chen", experiment=DIFFRACTION, image="general"),
    )
    ids = {adas.desktop.id: "adas", bobs.desktop.id: "bobs", chens.desktop.id: "chens"}

    async def seen(person):
        page = await desktops.list_desktops(app, await caller(app, person))
        return {ids[view.desktop.id] for view in page.items}

    assert await seen("ada") == {"adas", "bobs"}
    assert await seen("chen") == {"chens"}
    assert await seen("olga") == {"adas", "bobs", "chens"}


async def test_pages_cover_everything_once_newest_first(app):
    made = []
    for person in ("ada", "ada", "ada", "bob", "bob"):
        clock_of(app).tick(1)
        made.append((await a_desktop(app, person)).desktop.id)
    ada, seen, after = await caller(app, "ada"), [], None
    while True:
        page = await desktops.list_desktops(app, ada, after=after, limit=2)
        seen += [view.desktop.id for view in page.items]
        after = page.next
        if after is None:
            break
    assert seen == made[::-1]


async def test_what_each_may_do(app):
    desktop_id = (await a_desktop(app)).desktop.id

    async def actions(person):
        return (await desktops.get_desktop(app, await caller(app, person), desktop_id)).actions

    assert await actions("ada") == frozenset(Action)
    assert await actions("bob") == {Action.SEE, Action.CONNECT}
    assert await actions("olga") == {Action.SEE, Action.STOP, Action.EXTEND, Action.DELETE}
    with pytest.raises(NotFound):
        await actions("chen")


async def test_a_local_contact_sees_the_desktops_of_the_own_beamline(app):
    contact = replace(BOB, role=Role.BEAMLINE_SCIENTIST, beamlines=frozenset({"B8"}))
    chens = await a_desktop(app, "chen", experiment=DIFFRACTION, image="general")
    seen = await desktops.list_desktops(app, Caller(contact, "login"))
    assert chens.desktop.id in {view.desktop.id for view in seen.items}


@pytest.mark.parametrize("name", ["stop", "start", "delete", "extend"])
async def test_strangers_get_not_found_and_leave_a_trace(app, name):
    desktop_id = (await a_desktop(app)).desktop.id
    with pytest.raises(NotFound):
        await getattr(desktops, name)(app, await caller(app, "chen"), desktop_id)
    (event,) = await events_of(app, "refused")
    assert (event.actor, event.desktop_id, event.data["action"]) == ("chen", desktop_id, name)


@pytest.mark.parametrize(("person", "name"), [("bob", "stop"), ("bob", "delete"), ("bob", "extend"), ("olga", "start")])
async def test_who_may_see_but_not_act_is_forbidden(app, person, name):
    desktop_id = (await a_desktop(app)).desktop.id
    with pytest.raises(Forbidden):
        await getattr(desktops, name)(app, await caller(app, person), desktop_id)


async def test_probing_for_desktops_that_do_not_exist_leaves_the_same_trace(app):
    with pytest.raises(NotFound):
        await desktops.get_desktop(app, await caller(app, "chen"), DesktopId("d000"))
    assert len(await events_of(app, "refused")) == 1


async def test_an_operators_stop_says_so(app):
    desktop_id = (await a_desktop(app)).desktop.id
    view = await desktops.stop(app, await caller(app, "olga"), desktop_id)
    assert view.desktop.desired_reason is Reason.OPERATOR


async def test_a_desktop_on_its_way_out_stays_so(app):
    ada, desktop_id = await caller(app, "ada"), (await a_desktop(app)).desktop.id
    await desktops.delete(app, ada, desktop_id)
    await desktops.delete(app, ada, desktop_id)
    for act in (desktops.start, desktops.stop, desktops.extend):
        with pytest.raises(Conflict):
            await act(app, ada, desktop_id)


async def test_starting_renews_a_lease_that_is_nearly_over(app):
    ada, desktop_id = await caller(app, "ada"), (await a_desktop(app)).desktop.id
    await desktops.stop(app, ada, desktop_id)
    clock_of(app).tick(7.9 * 3600)
    view = await desktops.start(app, ada, desktop_id)
    assert view.desktop.lease_ends_at == app.clock.now() + app.rules.lease.initial


async def test_extending_stops_at_the_sites_limit(app):
    ada, desktop_id = await caller(app, "ada"), (await a_desktop(app)).desktop.id
    for _ in range(40):
        view = await desktops.extend(app, ada, desktop_id)
    assert view.desktop.lease_ends_at == app.clock.now() + app.rules.lease.maximum_ahead
    assert not view.can_extend
    clock_of(app).tick(30)
    with pytest.raises(Conflict, match="as late as this site allows"):
        await desktops.extend(app, ada, desktop_id)


async def test_a_change_to_another_version_is_stale(app):
    ada, view = await caller(app, "ada"), await a_desktop(app)
    await desktops.rename(app, ada, view.desktop.id, "new", if_version=view.desktop.version)
    with pytest.raises(StaleWrite):
        await desktops.stop(app, ada, view.desktop.id, if_version=view.desktop.version)


async def test_of_two_changes_to_the_same_version_one_wins(app):
    ada, view, results = await caller(app, "ada"), await a_desktop(app), []

    async def one(name):
        try:
            await desktops.rename(app, ada, view.desktop.id, name, if_version=view.desktop.version)
            results.append("done")
        except StaleWrite:
            results.append("stale")

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(one, f"name {number}")
    assert sorted(results) == ["done"] + ["stale"] * 5


async def test_a_name_is_one_clean_line(app):
    ada, view = await caller(app, "ada"), await a_desktop(app)
    renamed = await desktops.rename(app, ada, view.desktop.id, "  Sandstone \t run\n3 ")
    assert renamed.desktop.name == "Sandstone run 3"
    for bad in ("", " \n ", "x" * 61, "a\u200bb"):
        with pytest.raises(Invalid):
            await desktops.rename(app, ada, view.desktop.id, bad)


async def test_who_leaves_the_team_keeps_only_the_right_to_delete(app):
    ada, desktop_id = await caller(app, "ada"), (await a_desktop(app)).desktop.id
    await make_ready(app, desktop_id)
    async with app.store.begin(write=True) as tx:
        await tx.people.put_experiment(replace(IMAGING_EXPERIMENT, team=frozenset({BOB.id})))
    assert (await desktops.get_desktop(app, ada, desktop_id)).actions == {Action.SEE, Action.DELETE}
    assert ADA.id == ada.person.id
    await desktops.delete(app, ada, desktop_id)


async def test_a_long_list_reads_each_person_and_experiment_once(app):
    ada = await caller(app, "ada")
    for person in ("ada", "ada", "ada", "ada", "bob", "bob"):
        await a_desktop(app, person)
    counted = _Counting(app.store)
    await desktops.list_desktops(replace(app, store=counted), ada)
    assert counted.calls["person"] == 1  # bob; ada asked
    assert counted.calls["experiment"] == 1


class _Counting:
    """A store that counts the reads of people and experiments."""

    def __init__(self, store):
        self._store = store
        self.calls = {"person": 0, "experiment": 0}

    def begin(self, *, write=False):
        return _CountingBegin(self, self._store.begin(write=write))


class _CountingBegin:
    def __init__(self, counter, manager):
        self._counter, self._manager = counter, manager

    async def __aenter__(self):
        tx = await self._manager.__aenter__()
        for name in self._counter.calls:
            setattr(tx.people, name, self._counted(name, getattr(tx.people, name)))
        return tx

    async def __aexit__(self, *error):
        return await self._manager.__aexit__(*error)

    def _counted(self, name, read):
        async def counted(key):
            self._counter.calls[name] += 1
            return await read(key)

        return counted
