"""Looking after many desktops at once without asking about each: what is asked at the same time is answered by one look.

A reconciler asks about every desktop that moves several times a second; five hundred of them would cost Nova more than building
their servers. So questions wait for the next round. A round for a few asks Nova by tag, one by one. A round for many asks once for
what *changed* since the last (``changes-since``) and keeps the rest in memory, read anew as a whole every `WHOLE_S`.

Truth: a round begins after the question came, so no answer is older than its question but for what Nova does not date. Presence may
come from memory; absence never does: a desktop without a known server is asked for by tag. A round takes at most a part of the
time, so that a slow cloud is asked less.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Protocol

from beamdesk.adapters.openstack.records import NovaServer, Port
from beamdesk.domain.errors import CloudError, CloudUnavailable
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.server import Observation, Server, ServerStatus

FEW = 3
WHOLE_S = 30.0
PORTS_S = 30.0
PORTS_APART_S = 2.0
APART_S = 0.3
SHARE = 3.0
"""A pause after a round lasts this many times as long as the round, and never longer than `MOST_APART_S`."""
MOST_APART_S = 1.5
OVERLAP = timedelta(seconds=15)
"""Clocks of the controllers differ, and a change becomes visible after it is dated."""
_GIVEN_UP = "The look at the cloud was given up. Beamdesk looks again."


class Sight(Protocol):
    """What a round asks. All raise CloudError."""

    async def alone(self, desktop_id: DesktopId) -> Observation:
        """Look at one desktop."""

    async def whole(self) -> tuple[tuple[NovaServer, ...], datetime]:
        """List all servers; with Nova's time."""

    async def changed(self, since: datetime) -> tuple[tuple[NovaServer, ...], datetime]:
        """List the servers that changed, deleted ones included; with Nova's time."""

    async def all_ports(self) -> tuple[Port, ...]:
        """List all ports."""

    def desktop_of(self, server: NovaServer) -> DesktopId | None:
        """Return whose server it is; None = not ours."""

    def describe(self, server: NovaServer, port: Port | None) -> Server | None:
        """Return the server as the reconciler knows it."""


class Watch:
    """The rounds of one place. ``pause`` and ``monotonic`` are the tests' to replace."""

    def __init__(
        self,
        sight: Sight,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sight = sight
        self._monotonic = monotonic
        self._pause = pause
        self._asked: dict[DesktopId, asyncio.Future[Observation]] = {}
        self._rounds: asyncio.Task[None] | None = None
        self._servers: dict[str, NovaServer] = {}
        self._ports: dict[str, Port] = {}
        self._since: datetime | None = None
        self._whole_until = 0.0
        self._ports_at = float("-inf")

    async def see(self, desktop_id: DesktopId) -> Observation:
        """Return the desktop's servers as the next round sees them."""
        if desktop_id not in self._asked:
            self._asked[desktop_id] = asyncio.get_running_loop().create_future()
        answer = self._asked[desktop_id]
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._run())
        return await asyncio.shield(answer)

    def close(self) -> None:
        """End the rounds; who still waits is told so."""
        if self._rounds is not None:
            self._rounds.cancel()
        for answer in self._asked.values():
            _fail(answer, CloudUnavailable(_GIVEN_UP))

    async def _run(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            begun = self._monotonic()
            try:
                await self._round(asked)
            finally:  # whatever ended the round, nobody waits for ever
                for answer in asked.values():
                    _fail(answer, CloudUnavailable(_GIVEN_UP))
            if len(asked) > FEW:
                await self._pause(min(max(APART_S, SHARE * (self._monotonic() - begun)), MOST_APART_S))

    async def _round(self, asked: dict[DesktopId, asyncio.Future[Observation]]) -> None:
        alone = set(asked)
        if len(asked) > FEW:
            try:
                await self._refresh(alone)
            except CloudError as error:
                self._since = None
                for answer in asked.values():
                    _fail(answer, error)
                return
            alone = {desktop_id for desktop_id in asked if not self._answer(desktop_id, asked[desktop_id])}
        await asyncio.gather(*(self._look(desktop_id, asked[desktop_id]) for desktop_id in alone))

    async def _look(self, desktop_id: DesktopId, answer: asyncio.Future[Observation]) -> None:
        try:
            observation = await self._sight.alone(desktop_id)
        except CloudError as error:
            _fail(answer, error)
        else:
            if not answer.done():
                answer.set_result(observation)

    def _answer(self, desktop_id: DesktopId, answer: asyncio.Future[Observation]) -> bool:
        """Answer from memory; false where nothing is known, which proves nothing."""
        mine = [server for server in self._servers.values() if self._sight.desktop_of(server) == desktop_id]
        seen = [self._sight.describe(server, self._ports.get(server.uuid)) for server in mine]
        known = tuple(server for server in seen if server is not None)
        if known and not answer.done():
            answer.set_result(Observation(known))
        return bool(known)

    async def _refresh(self, asked: set[DesktopId]) -> None:
        now = self._monotonic()
        if self._since is None or now >= self._whole_until:
            servers, date = await self._sight.whole()
            self._servers = {server.uuid: server for server in servers}
            self._whole_until = now + WHOLE_S
        else:
            servers, date = await self._sight.changed(self._since)
            for server in servers:
                self._note(server)
        self._since = date - OVERLAP
        if self._needs_ports(asked, now):
            self._ports_at = now
            self._ports = {port.device: port for port in await self._sight.all_ports() if port.device}

    def _note(self, server: NovaServer) -> None:
        if server.raw_status == "DELETED":
            self._servers.pop(server.uuid, None)
        elif self._sight.desktop_of(server) is not None:
            self._servers[server.uuid] = server

    def _needs_ports(self, asked: set[DesktopId], now: float) -> bool:
        if now - self._ports_at >= PORTS_S:
            return True
        lacking = (
            server
            for server in self._servers.values()
            if server.status is ServerStatus.ACTIVE and server.uuid not in self._ports and self._sight.desktop_of(server) in asked
        )
        return now - self._ports_at >= PORTS_APART_S and next(lacking, None) is not None


def _fail(answer: asyncio.Future[Observation], error: CloudError) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # whoever asked may have gone away
