"""A cloud in memory and a clock for the tests of looks, news and lists, and what they ask."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from beamdesk.adapters.openstack.records import NovaServer, Port
from beamdesk.adapters.openstack.watch import TOGETHER, Look, Watch
from beamdesk.domain.errors import CloudUnavailable
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.server import Observation, Server

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
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        """What happens between a list of everything and its answer."""

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

    async def everything(self) -> tuple[tuple[NovaServer, ...], tuple[Port, ...]]:
        self.asked["everything"] += 1
        servers = tuple(self.servers.values())
        if self.meanwhile is not None:
            await self.meanwhile()
        return servers, () if self.portless else tuple(self.port_of(server) for server in servers)

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


async def ask(watch: Watch, *desktops: DesktopId) -> list[Observation]:
    return await asyncio.gather(*(watch.see(one) for one in desktops))


async def informed(watch: Watch, *desktops: DesktopId) -> None:
    """Have news come, and these desktops seen."""
    await watch.news()
    await ask(watch, *desktops)
    await watch.news()
