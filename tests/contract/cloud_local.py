"""The local driver's part in the cloud contract suite: a real helper and real containers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beamdesk.adapters.local.client import HelperClient
from beamdesk.adapters.local.driver import LocalCloud
from beamdesk.ports.cloud import Cloud, ServerSpec
from integration.local.helper_world import HelperWorld, open_world, spec_of


@dataclass
class LocalCase:
    world: HelperWorld

    def cloud(self, deployment_id: str) -> Cloud:
        return LocalCloud(self.world.client, deployment_id)

    def unreachable(self) -> Cloud:
        return LocalCloud(HelperClient(self.world.folder / "nobody.sock", timeout_s=1), "nobody")

    def spec(self, desktop_id: str) -> ServerSpec:
        return spec_of(desktop_id)

    async def pause(self) -> None:
        await asyncio.sleep(0.02)


@contextmanager
def open_case(_folder: Path) -> Iterator[LocalCase]:
    with open_world() as world:
        yield LocalCase(world)
