"""Many questions, few requests, and never an absence from memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime

import pytest

from beamdesk.adapters.openstack.records import NovaServer, Port
from beamdesk.adapters.openstack.watch import FEW, OVERLAP, WHOLE_S, Watch
from beamdesk.domain.errors import CloudUnavailable
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.server import Observation, Server, ServerStatus

pytestmark = pytest.mark.anyio
T0 = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
MANY = tuple(DesktopId(f"d{number}") for number in range(FEW + 20))


class Sight:
    """A cloud in memory that counts what it is asked."""

    def __init__(self) -> None:
        self.servers: dict[str, NovaServer] = {}
        self.news: list[NovaServer] = []
        self.ports: list[Port] = []
        self.asked: Counter[str] = Counter()
        self.sinces: list[datetime] = []
        self.now = T0
        self.down = False
        self.hold: asyncio.Event | None = None

    def put(self, desktop_id: DesktopId, status: str = "ACTIVE", uuid: str = "") -> None:
        made = NovaServer(uuid or f"u-{desktop_id}", status, "", T0, ("ours", f"desktop-{desktop_id}"), {}, "", "", partial=False)
        self.servers[made.uuid] = made
        self.news.append(made)

    def gone(self, desktop_id: DesktopId) -> None:
        dead = self.servers.pop(f"u-{desktop_id}")
        self.news.append(NovaServer(dead.uuid, "DELETED", "", T0, (), {}, "", "", partial=False))

    async def _ask(self, what: str) -> None:
        self.asked[what] += 1
        if self.hold:
            await self.hold.wait()
        if self.down:
            raise CloudUnavailable("down")

    async def alone(self, desktop_id: DesktopId) -> Observation:
        await self._ask("alone")
        mine = [self.describe(server, None) for server in self.servers.values() if self.desktop_of(server) == desktop_id]
        return Observation(tuple(mine))

    async def whole(self) -> tuple[tuple[NovaServer, ...], datetime]:
        await self._ask("whole")
        return tuple(self.servers.values()), self.now

    async def changed(self, since: datetime) -> tuple[tuple[NovaServer, ...], datetime]:
        await self._ask("changed")
        self.sinces.append(since)
        news, self.news = self.news, []
        return tuple(news), self.now

    async def all_ports(self) -> tuple[Port, ...]:
        await self._ask("ports")
        return tuple(self.ports)

    def desktop_of(self, server: NovaServer) -> DesktopId | None:
        return next((DesktopId(tag.removeprefix("desktop-")) for tag in server.tags if tag.startswith("desktop-")), None)

    def describe(self, server: NovaServer, port: Port | None) -> Server:
        address = f"tcp:{port.address}:1" if port else None
        return Server(ServerId(server.uuid), self.desktop_of(server) or DesktopId(""), server.status, T0, address)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.now += seconds
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
    return Watch(sight, monotonic=clock, pause=clock.pause)


async def ask(watch: Watch, *desktops: DesktopId) -> list[Observation]:
    return await asyncio.gather(*(watch.see(one) for one in desktops))


async def test_a_few_are_asked_for_by_tag(watch: Watch, sight: Sight) -> None:
    sight.put(MANY[0])
    (seen,) = await ask(watch, MANY[0])
    assert seen.servers[0].id == "u-d0"
    assert sight.asked == {"alone": 1}


async def test_many_cost_one_list_and_then_only_what_changed(watch: Watch, sight: Sight) -> None:
    for one in MANY:
        sight.put(one, "BUILD")
    await ask(watch, *MANY)
    sight.news.clear()
    sight.put(MANY[3])
    seen = await ask(watch, *MANY)
    assert [observation.servers[0].status for observation in seen].count(ServerStatus.ACTIVE) == 1
    assert (sight.asked["whole"], sight.asked["changed"], sight.asked["alone"]) == (1, 1, 0)
    assert sight.sinces == [T0 - OVERLAP]


async def test_a_question_during_a_round_is_answered_by_the_next(watch: Watch, sight: Sight) -> None:
    sight.hold = asyncio.Event()
    first = asyncio.create_task(watch.see(MANY[0]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(watch.see(MANY[0]))
    await asyncio.sleep(0)
    sight.put(MANY[0])  # after the first round began
    sight.hold.set()
    await first
    assert len((await second).servers) == 1
    assert sight.asked["alone"] == 2


async def test_an_absence_is_always_looked_for_by_tag(watch: Watch, sight: Sight) -> None:
    for one in MANY[1:]:
        sight.put(one)
    await ask(watch, *MANY)
    assert sight.asked["alone"] == 1
    sight.put(MANY[0])
    sight.news.clear()  # Nova has not dated it yet: the list of changes does not show it
    seen = await ask(watch, *MANY)
    assert len(seen[0].servers) == 1


async def test_a_server_that_was_deleted_is_forgotten(watch: Watch, sight: Sight) -> None:
    for one in MANY:
        sight.put(one)
    await ask(watch, *MANY)
    sight.gone(MANY[5])
    assert (await ask(watch, *MANY))[5].servers == ()


async def test_another_deployments_server_among_the_changes_is_nobodys(watch: Watch, sight: Sight) -> None:
    for one in MANY:
        sight.put(one)
    await ask(watch, *MANY)
    sight.news = [NovaServer("foreign", "ACTIVE", "", T0, (), {}, "", "", partial=False)]
    assert all(len(observation.servers) == 1 for observation in await ask(watch, *MANY))


async def test_the_whole_is_read_anew_after_a_while(watch: Watch, sight: Sight, clock: Time) -> None:
    for one in MANY:
        sight.put(one)
    await ask(watch, *MANY)
    clock.now += WHOLE_S
    await ask(watch, *MANY)
    assert sight.asked["whole"] == 2


async def test_addresses_come_with_the_ports_once_a_server_is_up(watch: Watch, sight: Sight, clock: Time) -> None:
    for one in MANY:
        sight.put(one)
    await ask(watch, *MANY)
    sight.ports = [Port("p", "beamdesk-d1", "u-d1", "10.0.0.9", frozenset(), "")]
    clock.now += 3
    seen = await ask(watch, *MANY)
    assert seen[1].servers[0].address == "tcp:10.0.0.9:1"


async def test_a_cloud_that_does_not_answer_is_told_to_everybody_and_memory_is_not_trusted(watch: Watch, sight: Sight) -> None:
    for one in MANY:
        sight.put(one)
    await ask(watch, *MANY)
    sight.down = True
    answers = await asyncio.gather(*(watch.see(one) for one in MANY), return_exceptions=True)
    assert all(isinstance(answer, CloudUnavailable) for answer in answers)
    sight.down = False
    await ask(watch, *MANY)
    assert sight.asked["whole"] == 2


async def test_who_gives_up_waiting_takes_nobody_along(watch: Watch, sight: Sight) -> None:
    sight.put(MANY[0])
    sight.hold = asyncio.Event()
    patient, hasty = (asyncio.create_task(watch.see(MANY[0])) for _ in range(2))
    await asyncio.sleep(0)
    hasty.cancel()
    sight.hold.set()
    assert len((await patient).servers) == 1


async def test_a_watch_that_is_closed_leaves_nobody_waiting(watch: Watch, sight: Sight) -> None:
    sight.hold = asyncio.Event()
    asking = asyncio.create_task(watch.see(MANY[0]))
    for _ in range(3):
        await asyncio.sleep(0)
    later = asyncio.create_task(watch.see(MANY[1]))
    await asyncio.sleep(0)
    watch.close()
    for one in (asking, later):
        with pytest.raises(CloudUnavailable):
            await one
