"""Looking after many desktops at once without asking about each: news for all of them, and one look for what is asked together.

Two ways to know of a server (decisions 96 and 140). A *look* is a direct answer: it lists the servers and ports of up to `TOGETHER`
desktops with one request each; questions that come while one is under way wait for the next. *News* is one request for what changed
since the last (``changes-since``), whatever the number of desktops; it is asked for once a second while something moves, and
remembered. A *list* of everything, which the sweeper asks for once a minute, is remembered too, so that servers which take long to
build are not looked at one by one.

Truth: a question is answered from memory only while news is `FRESH_S` young, only of a server that was itself seen within `LOOK_S`,
and never about what this process has written since. Absence never comes from memory: who has no known server is looked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from beamdesk.adapters.openstack.memory import FRESH_S, Memory
from beamdesk.adapters.openstack.records import NovaServer, Port
from beamdesk.domain.errors import CloudError, CloudUnavailable
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.server import Observation, Server
from beamdesk.ports.cloud import News

TOGETHER = 16
"""Desktops in one look: their tags and names fit into an address of 2 kB."""
GATHER_S = 0.02
FEW = 3
SHARE = 1.0
"""A pause after a look at many lasts as many times as long as it; a slow cloud is asked less."""
MOST_APART_S = 1.5
OVERLAP = timedelta(seconds=5)
"""Clocks of the controllers differ, and a change becomes visible after it is dated."""
FORGET_S = FRESH_S
"""News that nobody asked for so long is not caught up on: what is known is forgotten, and everything is news."""
UNDATED = timedelta(hours=1)
"""So far back the first news go where Nova does not tell its time; from then on its own dates count."""
_GIVEN_UP = "The look at the cloud was given up. Beamdesk looks again."


@dataclass(frozen=True, slots=True)
class Look:
    """A direct answer: what was asked for, and the records behind it."""

    observations: Mapping[DesktopId, Observation]
    servers: tuple[NovaServer, ...] = ()
    ports: tuple[Port, ...] = ()


class Sight(Protocol):
    """What is asked of the cloud. The last three ask nobody, the others raise CloudError."""

    async def everything(self) -> tuple[tuple[NovaServer, ...], tuple[Port, ...]]:
        """List all servers and ports of this deployment."""

    async def together(self, desktop_ids: frozenset[DesktopId]) -> Look:
        """Look at some desktops, `TOGETHER` at most."""

    async def changed(self, since: datetime) -> tuple[tuple[NovaServer, ...], datetime | None]:
        """List the servers that changed, deleted ones included; with Nova's time before the list, where it tells it."""

    async def clock(self) -> datetime | None:
        """Return Nova's time, None where it does not tell."""

    def desktop_of(self, server: NovaServer) -> DesktopId | None:
        """Return whose server it is; None = not ours."""

    def desktop_named(self, name: str) -> DesktopId | None:
        """Return the desktop in the name of a server or port; anybody can give such a name."""

    def describe(self, server: NovaServer, port: Port | None) -> Server | None:
        """Return the server as the reconciler knows it; None = only a look can tell."""


class Watch:
    """The looks and the news of one place. ``pause``, ``monotonic`` and ``now`` are the tests' to replace."""

    def __init__(
        self,
        sight: Sight,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._sight = sight
        self._monotonic = monotonic
        self._pause = pause
        self._now = now
        self._memory = Memory(sight)
        self._asked: dict[DesktopId, asyncio.Future[Observation]] = {}
        self._looks: asyncio.Task[None] | None = None
        self._since: datetime | None = None
        self._asking = asyncio.Lock()

    async def see(self, desktop_id: DesktopId) -> Observation:
        """Return the desktop's servers, from memory where that is young enough, else as the next look sees them."""
        known = self._memory.recall(desktop_id, self._monotonic())
        return known if known is not None else await self.look(desktop_id)

    async def look(self, desktop_id: DesktopId) -> Observation:
        """Return the desktop's servers as the next look sees them."""
        if desktop_id not in self._asked:
            self._asked[desktop_id] = asyncio.get_running_loop().create_future()
        answer = self._asked[desktop_id]
        if self._looks is None or self._looks.done():
            self._looks = asyncio.create_task(self._run())
        return await asyncio.shield(answer)

    async def news(self) -> News:
        """Ask what changed since the last time. Who gets none may ask again, or has to say that news is away: `distrust`.

        Raises:
            CloudError: nobody knows; the next news tells what was missed.
        """
        async with self._asking:
            begun, asked = self._monotonic(), self._now()
            everything = self._since is None or begun - self._memory.fresh_at > FORGET_S
            self._memory.asking = True
            try:
                if everything:
                    self._memory.forget(before=begun - OVERLAP.total_seconds())
                    self._since = await self._beginning()
                assert self._since is not None  # noqa: S101  # set above
                servers, clock = await self._sight.changed(self._since)
            finally:
                self._memory.asking = False
            other = self._memory.learn(servers, begun, self._monotonic())
            self._move_on(servers, clock, asked)
        return News(other, everything)

    def distrust(self) -> None:
        """Tell nothing from memory until news comes again."""
        self._memory.distrust()

    async def everything(self) -> tuple[tuple[NovaServer, ...], tuple[Port, ...]]:
        """List all servers and ports, and remember who is there.

        Raises:
            CloudError: there is no list.
        """
        begun = self._monotonic()
        servers, ports = await self._sight.everything()
        self._memory.listed(servers, ports, begun)
        return servers, ports

    def made(self, desktop_id: DesktopId, server: NovaServer, port: Port) -> None:
        """Remember a server that this process made under the desktop's lock: there is no other, and news will tell of it."""
        self._memory.made(desktop_id, server, port, self._monotonic())

    def wrote(self, desktop_id: DesktopId) -> None:
        """Take note that an order was given: what was known before it is not the truth any more."""
        self._memory.wrote(desktop_id, self._monotonic())

    def wrote_to(self, uuid: str) -> None:
        """Take note that a server was given an order."""
        self._memory.wrote_to(uuid, self._monotonic())

    def absent(self, desktop_id: DesktopId) -> bool:
        """Tell, once, whether a look of this moment found nothing at all of the desktop, no port either."""
        return self._memory.absent(desktop_id, self._monotonic())

    def close(self) -> None:
        """End the looks; who still waits is told so."""
        if self._looks is not None:
            self._looks.cancel()
        for answer in self._asked.values():
            _fail(answer, CloudUnavailable(_GIVEN_UP))

    async def _beginning(self) -> datetime:
        clock = await self._sight.clock()
        return min(clock, self._now()) - OVERLAP if clock is not None else self._now() - UNDATED

    def _move_on(self, servers: Iterable[NovaServer], clock: datetime | None, asked: datetime) -> None:
        """Ask from later on next time: by the clock of Nova's answers or ours, whichever is behind, or else by its newest date.

        Who answers need not be who dates: asking from too late on would tell of nothing, ever.
        """
        dates = (server.updated_at for server in servers if server.updated_at is not None)
        newest = min(clock, asked) if clock is not None else max(dates, default=None)
        if newest is not None and self._since is not None:
            self._since = max(self._since, newest - OVERLAP)

    async def _run(self) -> None:
        while self._asked:
            await self._pause(GATHER_S)
            asked, self._asked = self._asked, {}
            begun = self._monotonic()
            try:
                names = sorted(asked)
                parts = [frozenset(names[start : start + TOGETHER]) for start in range(0, len(names), TOGETHER)]
                await asyncio.gather(*(self._part(part, asked, begun) for part in parts))
            finally:  # whatever ended the look, nobody waits for ever
                for answer in asked.values():
                    _fail(answer, CloudUnavailable(_GIVEN_UP))
            if len(asked) > FEW and self._asked:
                await self._pause(min(SHARE * (self._monotonic() - begun), MOST_APART_S))

    async def _part(self, part: frozenset[DesktopId], asked: Mapping[DesktopId, asyncio.Future[Observation]], begun: float) -> None:
        try:
            look = await self._sight.together(part)
        except CloudError as error:
            for desktop_id in part:
                _fail(asked[desktop_id], error)
            return
        self._memory.looked(look.observations, look.servers, look.ports, begun)
        for desktop_id in part:
            if not asked[desktop_id].done():
                asked[desktop_id].set_result(look.observations[desktop_id])


def _fail(answer: asyncio.Future[Observation], error: CloudError) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # whoever asked may have gone away
