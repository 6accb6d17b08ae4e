"""A list of everything spares looks, hides nothing from news, and proves nothing that it cannot know."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from beamdesk.adapters.openstack.memory import BUILD_LOOK_S
from beamdesk.adapters.openstack.watch import Watch
from beamdesk.domain.server import ServerStatus
from beamdesk.pace import reconcile_rules
from beamdesk.settings import Settings
from unit.openstack.watch_kit import MANY, ONE, OTHER, T0, Sight, Time, ask, informed

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_who_is_being_built_is_told_from_memory_from_one_list_of_everything_to_the_next() -> None:
    """A list may take a while: what it shows is as old as its beginning when the next one is there."""
    assert timedelta(seconds=BUILD_LOOK_S) > 1.5 * reconcile_rules(Settings(cloud="openstack")).sweep


async def test_who_is_in_a_list_of_everything_is_looked_at_no_more(watch: Watch, sight: Sight, clock: Time) -> None:
    for one in MANY:
        sight.put(one, "BUILD")
    await informed(watch, *MANY)
    before = sight.asked["look"]
    for _minute in range(5):
        clock.now += 60
        await watch.everything()
        await watch.news()
        seen = await ask(watch, *MANY)
        assert all(len(one.servers) == 1 for one in seen)
    assert sight.asked["look"] == before


async def test_a_list_tells_what_nova_does_not_date(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "BUILD")
    await informed(watch, ONE)
    before = sight.asked["look"]
    clock.now += 60
    sight.put(ONE, "ACTIVE", dated=False)
    await watch.everything()
    await watch.news()
    (seen,) = await ask(watch, ONE)
    assert (seen.servers[0].status, sight.asked["look"]) == (ServerStatus.ACTIVE, before)


async def test_what_a_list_saw_first_is_told_with_the_next_news(watch: Watch, sight: Sight, clock: Time) -> None:
    """The desktop waits for news: who lists everything asks for another reason."""
    sight.put(ONE, "BUILD")
    await informed(watch, ONE, OTHER)
    clock.now += 60
    sight.put(ONE, "ACTIVE")
    await watch.everything()
    assert (await watch.news()).desktops == {ONE}
    await watch.everything()
    assert (await watch.news()).desktops == frozenset()


async def test_a_list_does_not_bring_back_what_was_seen_to_go_meanwhile(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "BUILD")
    await informed(watch, ONE)

    async def meanwhile() -> None:
        clock.now += 10
        sight.gone(ONE)
        await watch.news()

    sight.meanwhile = meanwhile
    await watch.everything()
    assert (await ask(watch, ONE))[0].servers == ()


async def test_a_list_does_not_undo_what_news_told_meanwhile(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "BUILD")
    await informed(watch, ONE)
    before = sight.asked["look"]

    async def meanwhile() -> None:
        clock.now += 10
        sight.put(ONE, "ACTIVE")
        await watch.news()

    sight.meanwhile = meanwhile
    await watch.everything()
    (seen,) = await ask(watch, ONE)
    assert (seen.servers[0].status, sight.asked["look"]) == (ServerStatus.ACTIVE, before)


async def test_an_older_record_in_a_list_does_not_replace_a_newer_one(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "ACTIVE")
    await informed(watch, ONE)
    before = sight.asked["look"]
    clock.now += 1
    late = sight.servers[f"u-{ONE}"]
    sight.servers[late.uuid] = replace(late, raw_status="BUILD", updated_at=T0)
    await watch.everything()
    assert (await ask(watch, ONE))[0].servers[0].status is ServerStatus.ACTIVE
    assert sight.asked["look"] == before


async def test_a_list_proves_nothing_of_what_was_ordered_since_it_began(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE)
    await informed(watch, ONE)
    before = sight.asked["look"]

    async def meanwhile() -> None:
        clock.now += 1
        watch.wrote(ONE)

    sight.meanwhile = meanwhile
    await watch.everything()
    await ask(watch, ONE)
    assert sight.asked["look"] == before + 1


async def test_what_a_list_leaves_out_is_looked_for(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "BUILD")
    await informed(watch, ONE)
    before = sight.asked["look"]
    del sight.servers[f"u-{ONE}"]
    for _while in range(3):
        clock.now += 50
        await watch.everything()
        await watch.news()
    assert (await ask(watch, ONE))[0].servers == ()
    assert sight.asked["look"] == before + 1


async def test_of_two_servers_that_were_known_a_list_of_one_proves_nothing(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "BUILD")
    second = replace(sight.servers[f"u-{ONE}"], uuid="u-second")
    sight.servers[second.uuid] = second
    await informed(watch, ONE)
    await watch.look(ONE)
    before = sight.asked["look"]
    del sight.servers[second.uuid]
    for _while in range(3):
        clock.now += 50
        await watch.everything()
        await watch.news()
    assert len((await ask(watch, ONE))[0].servers) == 1
    assert sight.asked["look"] == before + 1
