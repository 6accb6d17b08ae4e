"""The fake driver's part in the cloud contract suite: a file, so that it is tested where several processes share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beamdesk.adapters.fake.cloud import FakeCloud, FakeTimes, Faults
from beamdesk.adapters.fake.world import FileWorld
from beamdesk.domain.ids import DesktopId
from beamdesk.ports.cloud import Cloud, ServerAccount, ServerMount, ServerSpec
from engine_kit import FrozenClock


class FakeCase:
    def __init__(self, folder: Path) -> None:
        self._world = FileWorld(folder / "cloud.json")
        self._clock = FrozenClock()

    def cloud(self, deployment_id: str) -> Cloud:
        times = FakeTimes(call=0.0001, build=0.5, delete=0.5)
        return FakeCloud(self._clock, world=self._world, times=times, deployment_id=deployment_id, images=frozenset({"0" * 32}))

    def unreachable(self) -> Cloud:
        faults = Faults()
        faults.unreachable = True
        return FakeCloud(self._clock, faults=faults)

    def spec(self, desktop_id: str) -> ServerSpec:
        account = ServerAccount("ada", 20001, 20001, (30147,), "Ada Lin")
        mounts = (ServerMount("heps-2026-0147", "raw", writable=False), ServerMount("heps-2026-0147", "processed", writable=True))
        return ServerSpec(DesktopId(desktop_id), "0" * 32, 1, 1024, 1, 0, account, mounts, "the-nonce")

    async def pause(self) -> None:
        self._clock.advance(0.1)


@contextmanager
def open_case(folder: Path) -> Iterator[FakeCase]:
    yield FakeCase(folder)
