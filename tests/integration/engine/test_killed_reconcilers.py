"""Two real reconciler processes share the work; now and then one is killed with SIGKILL in the middle and another takes its place."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from beamdesk.adapters.fake.guest import FakeGuests
from beamdesk.adapters.fake.world import FileWorld
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.domain.catalog import Resources
from beamdesk.domain.desktop import Desired, Desktop, Phase
from beamdesk.domain.ids import DesktopId
from engine_kit import add_people, make_desktop
from postgres import Postgres, running_postgres

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]
_PROGRAM = Path(__file__).with_name("reconciler.py")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/store.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


class Site:
    """A store, a cloud in a file, its guests, and reconcilers that can be killed."""

    def __init__(self, url: str, folder: Path, store: SqlStore) -> None:
        self.store = store
        self.world = FileWorld(folder / "cloud.json")
        self._command = [sys.executable, str(_PROGRAM), url, str(folder / "cloud.json")]
        self._log = (folder / "reconcilers.log").open("ab")
        self.processes = [self._start() for _ in range(2)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdout=self._log, stderr=self._log)

    def kill_one(self, number: int) -> None:
        victim = self.processes[number % 2]
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self.processes[number % 2] = self._start()

    def stop(self) -> list[int]:
        for process in self.processes:
            process.terminate()
        codes = [process.wait(timeout=20) for process in self.processes]
        self._log.close()
        return codes

    async def desktops(self) -> list[Desktop]:
        async with self.store.begin() as tx:
            return list(await tx.desktops.page(limit=100))

    async def want(self, desktop_id: DesktopId, desired: Desired) -> None:
        async with self.store.begin(write=True) as tx:
            if await tx.desktops.get(desktop_id):
                await tx.desktops.change_intent(desktop_id, now=SystemClock().now(), desired=desired)


@pytest.fixture
async def site(url: str, tmp_path: Path) -> AsyncIterator[Site]:
    store = await SqlStore.open(url)
    await add_people(store)
    opened, stop = Site(url, tmp_path, store), asyncio.Event()
    guests = FakeGuests(store, opened.world, SystemClock(), SystemSecrets(), step_s=0.05)
    living = asyncio.create_task(guests.run(stop))
    yield opened
    stop.set()
    await living
    for process in opened.processes:
        if process.poll() is None:
            process.kill()
            process.wait()
    await store.close()


async def until(site: Site, done: Callable[[list[Desktop]], bool], seconds: float = 60) -> list[Desktop]:
    async with asyncio.timeout(seconds):
        while not done(desktops := await site.desktops()):  # noqa: ASYNC110  # processes, not tasks
            await asyncio.sleep(0.1)
    return desktops


async def test_work_goes_on_and_is_done_once_whoever_is_killed(site: Site) -> None:
    ids = [DesktopId(f"desktop{number:02}") for number in range(6)]
    chance = random.Random(147)
    for desktop_id in ids:
        async with site.store.begin(write=True) as tx:
            await tx.desktops.insert(make_desktop(desktop_id, SystemClock().now(), resources=Resources(1, 1024, 1, 0)))
    for number in range(8):
        await asyncio.sleep(chance.uniform(0.2, 0.9))
        site.kill_one(number)
        await site.want(chance.choice(ids[:4]), chance.choice([Desired.STOPPED, Desired.RUNNING]))
    for desktop_id, desired in zip(ids, itertools.cycle(Desired), strict=False):
        await site.want(desktop_id, desired)
    site.kill_one(0)

    def as_desired(desktops: list[Desktop]) -> bool:
        ends = {Desired.RUNNING: Phase.READY, Desired.STOPPED: Phase.STOPPED}
        return len(desktops) == 4 and all(one.phase is ends.get(one.desired) for one in desktops)

    desktops = await until(site, as_desired)
    with site.world.open() as state:
        servers = [server.desktop_id for server in state.servers.values()]
        running = {server.desktop_id for server in state.servers.values() if not server.off}
        homes = set(state.homes)
    assert len(servers) == len(set(servers)), "two servers for one desktop"
    assert running == {one.id for one in desktops if one.desired is Desired.RUNNING}
    assert homes <= {one.id for one in desktops}, "an orphan home"
    assert site.stop() == [0, 0], "a reconciler that is asked to stop ends well"
