"""Who sees which events, in pages and live."""

from dataclasses import replace

import anyio
import pytest

from apikit import DIFFRACTION, a_desktop, caller, events_of
from beamdesk.adapters.demo.people import BOB, OLGA
from beamdesk.adapters.demo.people import IMAGING as IMAGING_EXPERIMENT
from beamdesk.app import desktops
from beamdesk.app.events import BATCH, follow, list_events
from beamdesk.domain.errors import NotFound
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.ids import EventId, PersonId
from beamdesk.domain.person import Role

pytestmark = pytest.mark.anyio


async def test_each_sees_own_events_and_those_of_own_experiments(app):
    adas = (await a_desktop(app)).desktop.id
    chens = (await a_desktop(app, "chen", experiment=DIFFRACTION, image="general")).desktop.id

    async def seen(person):
        return {event.desktop_id for event in await list_events(app, await caller(app, person)) if event.desktop_id}

    assert await seen("ada") == {adas}
    assert await seen("bob") == {adas}
    assert await seen("chen") == {chens}
    assert await seen("olga") == {adas, chens}


async def test_the_owner_does_not_see_who_probed_but_an_operator_does(app):
    desktop_id = (await a_desktop(app)).desktop.id
    with pytest.raises(NotFound):
        await desktops.get_desktop(app, await caller(app, "chen"), desktop_id)
    kinds = {event.kind for event in await list_events(app, await caller(app, "ada"), desktop_id=desktop_id)}
    assert EventKind.REFUSED not in kinds
    kinds = {event.kind for event in await list_events(app, await caller(app, "olga"), desktop_id=desktop_id)}
    assert EventKind.REFUSED in kinds


async def test_events_of_a_foreign_desktop_are_not_found(app):
    desktop_id = (await a_desktop(app)).desktop.id
    with pytest.raises(NotFound):
        await list_events(app, await caller(app, "chen"), desktop_id=desktop_id)


async def test_pages_go_back_in_time_without_gaps(app):
    desktop_id = (await a_desktop(app)).desktop.id
    ada = await caller(app, "ada")
    for number in range(7):
        await desktops.rename(app, ada, desktop_id, f"name {number}")
    everything = [event.id for event in await list_events(app, ada, desktop_id=desktop_id)]
    pages, before = [], None
    while page := await list_events(app, ada, desktop_id=desktop_id, before=before, limit=3):
        pages += [event.id for event in page]
        before = page[-1].id
    assert pages == everything
    assert len(everything) == 8


async def _take(app, who, count, **how):
    """Follow until ``count`` events came."""
    got = []
    with anyio.fail_after(5):
        async for batch in follow(app, who, idle_s=0.05, **how):
            got += batch
            if len(got) >= count:
                return got
    return got


async def test_following_begins_now_and_goes_on(app):
    ada, got = await caller(app, "ada"), []

    async def listen():
        got.extend(await _take(app, ada, 3))  # she signs in, too

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await anyio.sleep(0.1)
        desktop_id = (await a_desktop(app)).desktop.id
        await desktops.rename(app, ada, desktop_id, "new")
    assert [event.kind for event in got] == [EventKind.SIGNED_IN, EventKind.DESKTOP_CREATED, EventKind.DESKTOP_RENAMED]


async def test_following_resumes_after_an_event_without_loss(app):
    ada = await caller(app, "ada")
    start = (await events_of(app))[-1].id
    async with app.store.begin(write=True) as tx:
        for number in range(2 * BATCH + 17):
            await tx.events.add(app.clock.now(), NewEvent(EventKind.SIGNED_IN, owner=PersonId("ada"), data={"n": number}))
    got = await _take(app, ada, 2 * BATCH + 17, after=start)
    assert [event.data["n"] for event in got] == list(range(2 * BATCH + 17))


async def test_an_idle_follower_gets_empty_batches(app):
    with anyio.fail_after(5):
        async for batch in follow(app, await caller(app, "ada"), idle_s=0.05):
            assert batch == ()
            return


async def test_following_a_foreign_desktop_shows_nothing(app):
    desktop_id = (await a_desktop(app)).desktop.id
    batches = []
    with anyio.fail_after(5):
        async for batch in follow(app, await caller(app, "chen"), after=EventId(0), desktop_id=desktop_id, idle_s=0.01):
            batches.append(batch)
            if len(batches) == 3:
                break
    assert batches == [(), (), ()]


async def test_who_leaves_the_team_or_loses_the_role_stops_receiving(app):
    bob, olga = await caller(app, "bob"), await caller(app, "olga")
    desktop_id = (await a_desktop(app)).desktop.id
    followers = [follow(app, who, after=EventId(0), desktop_id=desktop_id, idle_s=0.01) for who in (bob, olga)]
    for follower in followers:
        assert await anext(follower)
    async with app.store.begin(write=True) as tx:
        await tx.people.put_experiment(replace(IMAGING_EXPERIMENT, team=IMAGING_EXPERIMENT.team - {BOB.id}))
        await tx.people.put_person(replace(OLGA, role=Role.SCIENTIST))
    await desktops.rename(app, await caller(app, "ada"), desktop_id, "secret plans")
    for follower in followers:
        assert await anext(follower) == ()


async def test_following_from_an_id_of_the_future_begins_now(app):
    ada = await caller(app, "ada")
    follower = follow(app, ada, after=EventId(2**53), idle_s=0.05)
    assert await anext(follower) == ()
    await a_desktop(app)
    with anyio.fail_after(5):
        while not (batch := await anext(follower)):
            pass
    assert batch[-1].kind is EventKind.DESKTOP_CREATED
