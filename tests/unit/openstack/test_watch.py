"""One look for what is asked together, one question for what changed, and never an absence from memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from beamdesk.adapters.openstack.memory import ABSENT_S, BUILD_LOOK_S, FRESH_S, LOOK_S, PAUSE_S
from beamdesk.adapters.openstack.records import NovaServer, Port
from beamdesk.adapters.openstack.watch import FORGET_S, OVERLAP, TOGETHER, UNDATED, Look, Watch
from beamdesk.domain.errors import CloudUnavailable
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.server import Observation, Server, ServerStatus
from beamdesk.pace import reconcile_rules
from beamdesk.reconcile.news import BUSY
from beamdesk.settings import Settings

pytestmark = pytest.mark.anyio
T0 = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
MANY = tuple(DesktopId(f"d{number:02}") for number in range(TOGETHER + 4))
ONE, OTHER = MANY[:2]


class Sight:
    """A cloud in memory that counts what it is asked. Every server has a port."""

    def __init__(self) -> None:
        self.servers: dict[str, NovaServer] = {}
        self.news: list[NovaServer] = []
        self.asked: Counter[str] = Counter()
        self.sinces: list[datetime] = []
        self.now: datetime | None = T0
        self.down = False
        self.portless = False
        self.hold: asyncio.Event | None = None

    def put(self, desktop_id: DesktopId, status: str = "ACTIVE", *, task: str = "", dated: bool = True) -> None:
        tags = ("ours", f"desktop-{desktop_id}")
        made = NovaServer(f"u-{desktop_id}", status, task, T0, tags, {}, "", "", partial=False, name=f"beamdesk-{desktop_id}")
        self.servers[made.uuid] = replace(made, updated_at=T0 + timedelta(minutes=1))
        if dated:
            self.news.append(self.servers[made.uuid])

    def gone(self, desktop_id: DesktopId) -> None:
        dead = self.servers.pop(f"u-{desktop_id}")
        self.news.append(replace(dead, raw_status="DELETED", tags=()))

    async def _ask(self, what: str) -> None:
        self.asked[what] += 1
        if self.hold:
            await self.hold.wait()
        if self.down:
            raise CloudUnavailable("down")

    def port_of(self, server: NovaServer) -> Port:
        return Port(f"p-{server.uuid}", server.name, server.uuid, "10.0.0.9", frozenset(), "")

    async def together(self, desktop_ids: frozenset[DesktopId]) -> Look:
        await self._ask("look")
        assert len(desktop_ids) <= TOGETHER
        mine = {one: [it for it in self.servers.values() if self.desktop_of(it) == one] for one in desktop_ids}
        seen = {one: Observation(tuple(self.describe(it, self.port_of(it)) for it in its)) for one, its in mine.items()}
        servers = tuple(server for its in mine.values() for server in its)
        return Look(seen, servers, () if self.portless else tuple(self.port_of(server) for server in servers))

    async def changed(self, since: datetime) -> tuple[tuple[NovaServer, ...], datetime | None]:
        await self._ask("news")
        self.sinces.append(since)
        news, self.news = self.news, []
        return tuple(news), self.now

    async def clock(self) -> datetime | None:
        await self._ask("clock")
        return self.now

    def desktop_of(self, server: NovaServer) -> DesktopId | None:
        return next((DesktopId(tag.removeprefix("desktop-")) for tag in server.tags if tag.startswith("desktop-")), None)

    def desktop_named(self, name: str) -> DesktopId | None:
        return DesktopId(name.removeprefix("beamdesk-")) if name.startswith("beamdesk-") else None

    def describe(self, server: NovaServer, port: Port | None) -> Server:
        address = f"tcp:{port.address}:1" if port else None
        return Server(ServerId(server.uuid), self.desktop_of(server) or DesktopId(""), server.status, T0, address)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def sight() -> Sight:
    return Sight()


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def watch(sight: Sight, clock: Time) -> Watch:
    return Watch(sight, monotonic=clock, pause=clock.pause, now=lambda: T0)


async def ask(watch: Watch, *desktops: DesktopId) -> list[Observation]:
    return await asyncio.gather(*(watch.see(one) for one in desktops))


async def informed(watch: Watch, *desktops: DesktopId) -> None:
    """Have news come, and these desktops seen."""
    await watch.news()
    await ask(watch, *desktops)
    await watch.news()


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
    answers = await asyncio.gather(*(watch.see(one) for one in MANY), return_exceptions=True)
    assert all(isinstance(answer, CloudUnavailable) for answer in answers)
    sight.down = False
    sight.put(ONE, "SHUTOFF")
    assert (await watch.news()).desktops == {ONE}, "nothing was missed"


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
    """Who asks for news waits so many times the patience; the last may have taken as long, and a pause lies between them."""
    times = reconcile_rules(Settings(cloud="openstack")).timings
    assert timedelta(seconds=FRESH_S) > 2 * BUSY * times.patience + times.poll


def test_who_is_being_built_is_told_from_memory_from_one_list_of_everything_to_the_next() -> None:
    """A list may take a while: what it shows is as old as its beginning when the next one is there."""
    assert timedelta(seconds=BUILD_LOOK_S) > 1.5 * reconcile_rules(Settings(cloud="openstack")).sweep


async def list_everything(watch: Watch, sight: Sight, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
    """List what is there now; the answer comes after ``meanwhile``."""

    async def ask() -> tuple[list[NovaServer], list[Port]]:
        servers = list(sight.servers.values())
        ports = [] if sight.portless else [sight.port_of(server) for server in servers]
        if meanwhile is not None:
            await meanwhile()
        return servers, ports

    await watch.listing(ask)


async def test_who_is_in_a_list_of_everything_is_looked_at_no_more(watch: Watch, sight: Sight, clock: Time) -> None:
    for one in MANY:
        sight.put(one, "BUILD")
    await informed(watch, *MANY)
    before = sight.asked["look"]
    for _minute in range(5):
        clock.now += 60
        await list_everything(watch, sight)
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
    await list_everything(watch, sight)
    await watch.news()
    (seen,) = await ask(watch, ONE)
    assert (seen.servers[0].status, sight.asked["look"]) == (ServerStatus.ACTIVE, before)


async def test_what_a_list_saw_first_is_told_with_the_next_news(watch: Watch, sight: Sight, clock: Time) -> None:
    """The desktop waits for news: who lists everything asks for another reason."""
    sight.put(ONE, "BUILD")
    await informed(watch, ONE, OTHER)
    clock.now += 60
    sight.put(ONE, "ACTIVE")
    await list_everything(watch, sight)
    assert (await watch.news()).desktops == {ONE}
    await list_everything(watch, sight)
    assert (await watch.news()).desktops == frozenset()


async def test_a_list_does_not_bring_back_what_was_seen_to_go_meanwhile(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "BUILD")
    await informed(watch, ONE)

    async def meanwhile() -> None:
        clock.now += 10
        sight.gone(ONE)
        await watch.news()

    await list_everything(watch, sight, meanwhile)
    assert (await ask(watch, ONE))[0].servers == ()


async def test_a_list_does_not_undo_what_news_told_meanwhile(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "BUILD")
    await informed(watch, ONE)
    before = sight.asked["look"]

    async def meanwhile() -> None:
        clock.now += 10
        sight.put(ONE, "ACTIVE")
        await watch.news()

    await list_everything(watch, sight, meanwhile)
    (seen,) = await ask(watch, ONE)
    assert (seen.servers[0].status, sight.asked["look"]) == (ServerStatus.ACTIVE, before)


async def test_an_older_record_in_a_list_does_not_replace_a_newer_one(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "ACTIVE")
    await informed(watch, ONE)
    before = sight.asked["look"]
    clock.now += 1
    late = sight.servers[f"u-{ONE}"]
    sight.servers[late.uuid] = replace(late, raw_status="BUILD", updated_at=T0)
    await list_everything(watch, sight)
    assert (await ask(watch, ONE))[0].servers[0].status is ServerStatus.ACTIVE
    assert sight.asked["look"] == before


async def test_a_list_proves_nothing_of_what_was_ordered_since_it_began(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE)
    await informed(watch, ONE)
    before = sight.asked["look"]

    async def meanwhile() -> None:
        clock.now += 1
        watch.wrote(ONE)

    await list_everything(watch, sight, meanwhile)
    await ask(watch, ONE)
    assert sight.asked["look"] == before + 1


async def test_what_a_list_leaves_out_is_looked_for(watch: Watch, sight: Sight, clock: Time) -> None:
    sight.put(ONE, "BUILD")
    await informed(watch, ONE)
    before = sight.asked["look"]
    del sight.servers[f"u-{ONE}"]
    for _while in range(3):
        clock.now += 50
        await list_everything(watch, sight)
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
        await list_everything(watch, sight)
        await watch.news()
    assert len((await ask(watch, ONE))[0].servers) == 1
    assert sight.asked["look"] == before + 1
