"""Lists that are partial or stale disturb nobody: no repair, no second creation, no home deleted under a server."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.desktop import Desired, Phase
from beamdesk.domain.events import EventKind
from beamdesk.domain.ids import DesktopId
from engine_kit import FrozenClock, add_people
from engine_stage import NAMES, Stage

LIES = st.lists(st.sampled_from(["", "stale", "incomplete"]), min_size=10, max_size=60)
FIRST = DesktopId(NAMES[0])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "store.db"

    async def make() -> None:
        store = await SqlStore.open(f"sqlite+aiosqlite:///{path}")
        await add_people(store)
        await store.close()

    asyncio.run(make())
    return path


class Told:
    """A reconciler whose every look at the cloud may be lied to."""

    def __init__(self, store: SqlStore, lies: list[str]) -> None:
        self.stage = Stage(store, FrozenClock(), racy=False)
        self.lies = list(lies)
        self.calls: Counter[str] = Counter()
        self.stage.cloud._pause = self._pause

    async def _pause(self, call: str, moment: str) -> None:
        self.calls[call] += moment == "before"
        if (call, moment) == ("find_servers", "before") and self.lies:
            self.stage.spoil(self.lies.pop(0))

    async def phase(self) -> Phase | None:
        desktops = await self.stage.desktops()
        return desktops[0].phase if desktops else None

    async def work(self, desired: Desired, end: Phase | None) -> None:
        await self.stage.want(0, desired)
        for _ in range(400):
            if await self.phase() is end:
                return
            await self.stage.whole_pass(0)
            if await self.phase() is Phase.DELETING:
                in_use = bool(self.stage.cloud.world.state.servers)
                assert not (in_use and self.calls["delete_home"]), "wanted to delete the home of a running server"
            self.stage.clock.advance(0.21)
            await self.stage.guests.tick()
        raise AssertionError(f"{desired} is not reached")


async def _run(template: Path, lies: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(template, f"{folder}/store.db")
        store = await SqlStore.open(f"sqlite+aiosqlite:///{folder}/store.db")
        try:
            told = Told(store, lies)
            await told.stage.apply_for(0)
            await told.work(Desired.RUNNING, Phase.READY)
            await told.work(Desired.STOPPED, Phase.STOPPED)
            await told.work(Desired.DELETED, None)
            async with store.begin() as tx:
                events = await tx.events.page(desktop_id=FIRST, limit=500)
            phases = {event.data["phase"] for event in events if event.kind is EventKind.DESKTOP_PHASE}
            assert not phases & {Phase.REPAIRING, Phase.FAILED}, "disturbed"
            assert told.calls["create_server"] == 1
            assert told.calls["delete_home"] == 1
        finally:
            await store.close()


@pytest.mark.heavy
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(lies=LIES)
def test_lists_that_lie_disturb_nobody(template: Path, lies: list[str]) -> None:
    asyncio.run(_run(template, lies))
