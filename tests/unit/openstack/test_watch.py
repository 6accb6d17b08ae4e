"""One look for what is asked together, one question for what changed, and never an absence from memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from beamdesk.adapters.openstack.memory import ABSENT_S, BUILD_LOOK_S, FRESH_S, LOOK_S, PAUSE_S
from beamdesk.adapters.openstack.records import NovaServer, Port
from beamdesk.adapters.openstack.servers import NEWS_S
from beamdesk.adapters.openstack.watch import FORGET_S, OVERLAP, UNDATED, Watch
from beamdesk.domain.errors import CloudUnavailable
from beamdesk.domain.server import ServerStatus
from beamdesk.pace import reconcile_rules
from beamdesk.reconcile.news import BUSY, LATE
from beamdesk.settings import Settings
from unit.openstack.watch_kit import MANY, ONE, OTHER, T0, Sight, Time, ask, informed

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_what_is_asked_together_costs_one_look_for_each_sixteen(watch: Watch, sight: Sight) -> None:
    for one in MANY:
        sight.put(one)
    seen = await ask(watch, *MANY)
    assert [observation.servers[0].desktop_id for observation in seen] == list(MANY)
    assert sight.asked == {"look": 2}


async def test_a_question_during_a_look_is_answered_by_the_next(watch: Watch, sight: Sight) -> None:
    sight.hold = asyncio.Event()
    first = asyncio.create_task(watch.see(ONE))
    for _ in range(4):
        await asyncio.sleep(0)
    second = asyncio.create_task(watch.see(ONE))
    await asyncio.sleep(0)
    sight.put(ONE)  # after the first look began
    sight.hold.set()
    await first
    assert len((await second).servers) == 1
    assert sight.asked["look"] == 2


async def test_without_news_nothing_is_told_from_memory(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE)
    await ask(watch, ONE)
    await ask(watch, ONE)
    assert sight.asked["look"] == 2
    await watch.news()
    await ask(watch, ONE)
    clock.now += PAUSE_S + 0.1
    await ask(watch, ONE)
    assert sight.asked["look"] == 3, "nobody asks for news any more"


async def test_news_that_takes_long_does_not_make_memory_old_at_once(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "BUILD")
    await informed(watch, ONE)
    before = sight.asked["look"]
    sight.hold = asyncio.Event()
    asking = asyncio.create_task(watch.news())
    await asyncio.sleep(0)
    clock.now += FRESH_S - 0.1
    (seen,) = await ask(watch, ONE)
    assert (len(seen.servers), sight.asked["look"]) == (1, before)
    sight.hold.set()
    await asking


async def test_with_news_a_known_server_costs_nothing(watch: Watch, sight: Sight) -> None:
    sight.put(ONE)
    await informed(watch, ONE)
    (seen,) = await ask(watch, ONE)
    assert (seen.servers[0].status, seen.servers[0].address) == (ServerStatus.ACTIVE, "tcp:10.0.0.9:1")
    assert sight.asked["look"] == 1


async def test_a_server_that_is_off_is_looked_at_before_it_is_given_an_order(watch: Watch, sight: Sight) -> None:
    sight.put(ONE, "SHUTOFF")
    await informed(watch, ONE)
    sight.servers.clear()  # deleted by somebody in this moment
    (seen,) = await ask(watch, ONE)
    assert seen.servers == ()


async def test_news_tells_whose_server_looks_other_than_before(watch: Watch, sight: Sight) -> None:
    for one in MANY[:3]:
        sight.put(one, "BUILD", task="scheduling")
    await informed(watch, *MANY[:3])
    sight.put(ONE)
    sight.put(OTHER, "BUILD", task="spawning")
    assert (await watch.news()).desktops == {ONE}
    sight.put(ONE)
    assert (await watch.news()).desktops == frozenset(), "told once"
    (seen,) = await ask(watch, ONE)
    assert seen.servers[0].status is ServerStatus.ACTIVE


async def test_an_order_that_was_taken_and_given_up_between_two_news_is_news(watch: Watch, sight: Sight) -> None:
    off, later = "SHELVED_OFFLOADED", timedelta(minutes=2)
    for one in (ONE, OTHER):
        sight.put(one, off)
    await informed(watch, ONE, OTHER)
    watch.wrote_to(f"u-{ONE}")  # to bring it back; no host had room
    for one in (ONE, OTHER):
        sight.put(one, off)
        sight.news[-1] = replace(sight.news[-1], updated_at=T0 + later)
    assert (await watch.news()).desktops == {ONE}


async def test_the_first_news_says_that_nobody_knows_what_changed(watch: Watch, sight: Sight, clock: Time) -> None:
    assert (await watch.news()).everything
    assert not (await watch.news()).everything
    clock.now += FORGET_S + 1
    assert (await watch.news()).everything, "nobody asked for long"


async def test_an_absence_is_always_looked_for(watch: Watch, sight: Sight) -> None:
    await informed(watch, ONE)
    sight.put(ONE, dated=False)  # Nova has not dated it yet: the news does not show it
    (seen,) = await ask(watch, ONE)
    assert len(seen.servers) == 1


async def test_a_server_that_was_deleted_is_news_and_looked_for(watch: Watch, sight: Sight) -> None:
    sight.put(ONE)
    await informed(watch, ONE)
    sight.gone(ONE)
    assert (await watch.news()).desktops == {ONE}
    (seen,) = await ask(watch, ONE)
    assert (seen.servers, sight.asked["look"]) == ((), 2)


async def test_a_deletion_of_what_nobody_here_knew_is_told_by_its_name(watch: Watch, sight: Sight) -> None:
    await watch.news()
    sight.put(ONE, dated=False)
    sight.gone(ONE)
    assert (await watch.news()).desktops == {ONE}


async def test_another_deployments_server_among_the_news_is_nobodys(watch: Watch, sight: Sight) -> None:
    await watch.news()
    sight.news = [NovaServer("foreign", "ACTIVE", "", T0, (), {}, "", "", partial=False, name="beamdesk-foreign")]
    assert (await watch.news()).desktops == frozenset()


async def test_after_an_order_only_later_news_is_told(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE)
    await informed(watch, ONE)
    watch.wrote_to(f"u-{ONE}")
    await ask(watch, ONE)
    assert sight.asked["look"] == 2
    clock.now += 1
    await watch.news()
    await ask(watch, ONE)
    assert sight.asked["look"] == 2


async def test_what_nova_does_not_date_is_seen_after_a_while(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE)
    await informed(watch, ONE)
    clock.now += LOOK_S + 1
    await watch.news()
    await ask(watch, ONE)
    assert sight.asked["look"] == 2


async def test_who_is_being_built_is_told_from_memory_for_longer(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "BUILD")
    await informed(watch, ONE)
    before = sight.asked["look"]
    clock.now += LOOK_S + 1
    await watch.news()
    await ask(watch, ONE)
    assert sight.asked["look"] == before
    clock.now += BUILD_LOOK_S
    await watch.news()
    await ask(watch, ONE)
    assert sight.asked["look"] == before + 1


async def test_a_running_server_without_a_known_port_is_looked_at(watch: Watch, sight: Sight) -> None:
    sight.put(ONE)
    sight.portless = True
    await informed(watch, ONE)
    await ask(watch, ONE)
    assert sight.asked["look"] == 2


async def test_a_server_made_here_is_known_with_its_port_once_news_tells_of_it(watch: Watch, sight: Sight) -> None:
    await watch.news()
    sight.put(ONE, "BUILD", dated=False)
    watch.made(ONE, sight.servers[f"u-{ONE}"], Port("p", f"beamdesk-{ONE}", "", "10.0.0.7", frozenset(), ""))
    (seen,) = await ask(watch, ONE)
    assert (seen.servers[0].status, sight.asked["look"]) == (ServerStatus.BUILD, 0)
    sight.put(ONE)
    assert (await watch.news()).desktops == {ONE}
    (seen,) = await ask(watch, ONE)
    assert (seen.servers[0].address, sight.asked["look"]) == ("tcp:10.0.0.7:1", 0)


async def test_an_absence_counts_once_and_for_a_moment(watch: Watch, sight: Sight, clock: Time) -> None:
    assert not watch.absent(ONE)
    await ask(watch, ONE, OTHER)
    assert watch.absent(ONE)
    assert not watch.absent(ONE)
    clock.now += ABSENT_S + 0.1
    assert not watch.absent(OTHER)


@pytest.mark.parametrize(("first", "second"), [(-15, -14), (-15, 15)], ids=["Nova's is behind", "Nova's is ahead"])
async def test_the_next_news_overlaps_the_last_by_the_clock_that_is_behind(
    watch: Watch, sight: Sight, first: int, second: int
) -> None:
    sight.now = T0 + timedelta(minutes=first)
    await watch.news()
    sight.now = T0 + timedelta(minutes=second)
    await watch.news()
    await watch.news()
    assert sight.sinces == [T0 + timedelta(minutes=minute) - OVERLAP for minute in (first, first, min(second, 0))]


async def test_news_from_an_api_that_is_ahead_of_who_dates_is_not_missed(watch: Watch, sight: Sight) -> None:
    sight.now = T0 + timedelta(minutes=15)
    await watch.news()
    await watch.news()
    assert sight.sinces == [T0 - OVERLAP] * 2


async def test_where_nova_tells_no_time_its_dates_do(watch: Watch, sight: Sight) -> None:
    sight.now = None
    await watch.news()
    sight.put(ONE)
    await watch.news()
    await watch.news()
    assert sight.sinces == [T0 - UNDATED, T0 - UNDATED, T0 + timedelta(minutes=1) - OVERLAP]


async def test_a_cloud_that_does_not_answer_is_told_to_everybody_and_memory_is_not_trusted(watch: Watch, sight: Sight) -> None:
    sight.put(ONE)
    await informed(watch, ONE)
    sight.down = True
    with pytest.raises(CloudUnavailable):
        await watch.news()
    watch.distrust()
    answers = await asyncio.gather(*(watch.see(one) for one in MANY), return_exceptions=True)
    assert all(isinstance(answer, CloudUnavailable) for answer in answers)
    sight.down = False
    sight.put(ONE, "SHUTOFF")
    assert (await watch.news()).desktops == {ONE}, "nothing was missed"


async def test_who_gives_up_waiting_for_news_may_ask_again_or_say_that_it_is_away(watch: Watch, sight: Sight) -> None:
    sight.put(ONE)
    await informed(watch, ONE)
    sight.hold = asyncio.Event()
    asking = asyncio.create_task(watch.news())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.sleep(0)
    sight.hold = None
    await ask(watch, ONE)
    assert sight.asked["look"] == 1, "it is late, no more"
    assert not (await watch.news()).everything
    watch.distrust()
    await ask(watch, ONE)
    assert sight.asked["look"] == 2
    assert (await watch.news()).everything


async def test_who_gives_up_waiting_takes_nobody_along(watch: Watch, sight: Sight) -> None:
    sight.put(ONE)
    sight.hold = asyncio.Event()
    patient, hasty = (asyncio.create_task(watch.see(ONE)) for _ in range(2))
    await asyncio.sleep(0)
    hasty.cancel()
    sight.hold.set()
    assert len((await patient).servers) == 1


async def test_a_watch_that_is_closed_leaves_nobody_waiting(watch: Watch, sight: Sight) -> None:
    sight.hold = asyncio.Event()
    asking = asyncio.create_task(watch.see(ONE))
    for _ in range(4):
        await asyncio.sleep(0)
    later = asyncio.create_task(watch.see(OTHER))
    await asyncio.sleep(0)
    watch.close()
    for one in (asking, later):
        with pytest.raises(CloudUnavailable):
            await one


def test_memory_is_told_as_long_as_a_busy_cloud_answers_at_all() -> None:
    """Who asks for news waits so many times the patience, asks again when it is late, and the last may have taken as long."""
    times = reconcile_rules(Settings(cloud="openstack")).timings
    answers = 1 + LATE + 1
    asked = BUSY * times.patience
    assert timedelta(seconds=FRESH_S) > answers * asked + LATE * (times.patience + times.poll) + times.poll
    assert timedelta(seconds=NEWS_S) >= asked, "who waits for news gives up, not the call"
