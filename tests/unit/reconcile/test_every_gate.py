"""Exhaustive where the property test is random: one life of a desktop, disturbed once, at every gate of every kind of pass.

`crash`: the reconciler dies there. `overtaken`: it is held there until its claim has expired and another has done all the work; then it
goes on, a zombie. `deleted`: the same, and meanwhile the desktop was deleted to its last trace. For a cloud that refuses duplicates and
for one that makes them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.desktop import Desired, Phase
from beamdesk.domain.ids import DesktopId
from engine_kit import FrozenClock, add_people
from engine_stage import NAMES, Crash, Stage

FIRST = DesktopId(NAMES[0])
_ENDS = {Desired.RUNNING: Phase.READY, Desired.STOPPED: Phase.STOPPED, Desired.DELETED: None}
_LIFE = (Desired.RUNNING, Desired.STOPPED, Desired.RUNNING, Desired.DELETED)


class Life:
    """Plays the life with reconciler 0; ``disturb_at`` counts the gates of passes that do something new."""

    def __init__(self, stage: Stage, disturb_at: int, how: str) -> None:
        self.stage = stage
        self.gates: list[str] = []
        self._disturb_at = disturb_at
        self._how = how
        self._known: set[tuple[object, ...]] = set()

    async def play(self) -> None:
        await self.stage.apply_for(0)
        for desired in _LIFE:
            await self.stage.want(0, desired)
            await self._reach(desired)
        await self.stage.finish()

    async def _reach(self, desired: Desired) -> None:
        for _ in range(300):
            if await self._phase() is _ENDS[desired]:
                return
            if await self._phase() is None:
                return  # deleted before its time
            await self._pass((desired, await self._phase()))
            self.stage.clock.advance(0.25)
            await self.stage.guests.tick()
        raise AssertionError(f"{desired} is not reached: {await self.stage.desktops()}")

    async def _phase(self) -> Phase | None:
        async with self.stage.raw.begin() as tx:
            desktop = await tx.desktops.get(FIRST)
        return desktop.phase if desktop else None

    async def _pass(self, context: tuple[object, ...]) -> None:
        stage, actor = self.stage, self.stage.actors[0]
        await stage.step(0, 0)
        if not actor.busy:
            actor.begin(stage._one_pass())
            await actor.reached()
        index = 0
        while actor.busy:
            point = (*context, actor.at, index)
            index += 1
            if point not in self._known:
                self._known.add(point)
                self.gates.append(actor.at)
                if len(self.gates) - 1 == self._disturb_at:
                    await self._disturb()
                    continue
            await actor.go()

    async def _disturb(self) -> None:
        actor = self.stage.actors[0]
        self.stage.clock.advance(16)
        if self._how == "crash":
            await actor.go(Crash())
            return
        if self._how == "deleted":
            await self.stage.want(0, Desired.DELETED)
        for _ in range(12):
            await self.stage.whole_pass(1)
            self.stage.clock.advance(0.4)
            await self.stage.guests.tick()
        while actor.busy:
            await actor.go()


async def _live(folder: Path, number: int, how: str, *, racy: bool) -> list[str]:
    store = await SqlStore.open(f"sqlite+aiosqlite:///{folder}/{number}-{how}-{racy:d}.db")
    try:
        await add_people(store)
        stage = Stage(store, FrozenClock(), racy=racy)
        life = Life(stage, number, how)
        await life.play()
        await stage.check_always(one_server=not racy)
        await stage.check_end()
        assert await stage.desktops() == []
        assert stage.cloud.world.state.servers == {}
        assert stage.cloud.world.state.homes == {}
    finally:
        await store.close()
    return life.gates


def _disturb_each(folder: Path, how: str, *, racy: bool, which: str) -> None:
    gates = asyncio.run(_live(folder, -1, how, racy=racy))
    assert sum("write before" in gate for gate in gates) >= 5, "create, stop, start, delete and delete home"
    for number, gate in enumerate(gates):
        if which in gate:
            try:
                asyncio.run(_live(folder, number, how, racy=racy))
            except AssertionError as error:
                raise AssertionError(f"{how} at gate {number} ({gate}): {error}") from error


@pytest.mark.heavy
@pytest.mark.parametrize(("how", "racy"), [("crash", False), ("overtaken", True), ("deleted", False)])
def test_a_life_disturbed_at_any_write_to_the_cloud_ends_as_desired(tmp_path: Path, how: str, racy: bool) -> None:
    _disturb_each(tmp_path, how, racy=racy, which="write")


@pytest.mark.slow
@pytest.mark.parametrize("racy", [False, True], ids=["unique names", "duplicates possible"])
@pytest.mark.parametrize("how", ["crash", "overtaken", "deleted"])
def test_a_life_disturbed_at_any_gate_ends_as_desired(tmp_path: Path, how: str, racy: bool) -> None:
    _disturb_each(tmp_path, how, racy=racy, which="")
