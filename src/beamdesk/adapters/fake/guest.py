"""Guests for the fake cloud: they enrol and report straight into the store, as the real agent does through the guest API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from beamdesk.adapters.fake.world import FakeServer, World
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.secrets import hash_secret
from beamdesk.domain.use import works
from beamdesk.ports.clock import Clock, Secrets
from beamdesk.ports.store import Store
from beamdesk.protocol.guest import HEARTBEAT_S, Step, StepName, StepState

_PERIOD_S = 0.1


@dataclass(slots=True)
class _Life:
    nonce: str
    done: int
    next_at: float


class FakeGuests:
    """One guest for each running server of a world. ``step_s``: how long a step takes. ``silent``, ``failing``: whom to spoil."""

    def __init__(self, store: Store, world: World, clock: Clock, secrets: Secrets, *, step_s: float = 0.2) -> None:
        self._store = store
        self._world = world
        self._clock = clock
        self._secrets = secrets
        self._step_s = step_s
        self._lives: dict[str, _Life] = {}
        self.silent: set[DesktopId] = set()
        self.failing: dict[DesktopId, str] = {}
        self.activity: Callable[[DesktopId], tuple[float, float, float | None]] = lambda _: (0.0, 0.0, 0.0)

    async def run(self, stop: asyncio.Event) -> None:
        """Live until ``stop``."""
        while not stop.is_set():
            await self.tick()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _PERIOD_S)

    async def tick(self) -> None:
        """Let every guest do what is due now."""
        now = self._clock.now().timestamp()
        with self._world.open() as state:
            servers = [one for one in state.servers.values() if self._runs(one, now)]
        for gone in self._lives.keys() - {server.id for server in servers}:
            del self._lives[gone]
        for server in servers:
            if DesktopId(server.desktop_id) not in self.silent:
                await self._live(server, now)

    @staticmethod
    def _runs(server: FakeServer, now: float) -> bool:
        return not server.off and not server.fault and server.gone_at is None and server.active_at <= now

    async def _live(self, server: FakeServer, now: float) -> None:
        life = self._lives.get(server.id)
        if life is None or life.nonce != server.nonce:
            if await self._enrol(server):
                self._lives[server.id] = _Life(server.nonce, 1, now + self._step_s)
            return
        if now < life.next_at:
            return
        changed = life.done < len(StepName)
        if changed:
            life.done += 1
        life.next_at = now + (self._step_s if life.done < len(StepName) else HEARTBEAT_S)
        await self._report(DesktopId(server.desktop_id), life.done, wake=changed)

    async def _enrol(self, server: FakeServer) -> bool:
        now = self._clock.now()
        token = hash_secret(self._secrets.token())
        async with self._store.begin(write=True) as tx:
            guest = await tx.guests.spend_nonce(hash_secret(server.nonce), token, now)
            if guest is None:
                return False
        await self._report(DesktopId(server.desktop_id), 1, wake=True)
        return True

    async def _report(self, desktop_id: DesktopId, done: int, *, wake: bool) -> None:
        now = self._clock.now()
        failure = self.failing.get(desktop_id, "")
        idle_s, cpu, gpu = self.activity(desktop_id)
        async with self._store.begin(write=True) as tx:
            worked = bool(works(LeaseRules(), cpu=cpu, gpu=gpu, vcpus=1))
            await tx.guests.report(
                desktop_id,
                now=now,
                steps=_steps(done),
                failure=failure,
                input_idle_s=idle_s,
                cpu=cpu,
                gpu=gpu,
                worked=worked,
            )
            if wake or failure:
                await tx.desktops.wake(desktop_id, now)


def _steps(done: int) -> tuple[Step, ...]:
    states = [StepState.DONE] * done + [StepState.RUNNING] + [StepState.WAITING] * len(StepName)
    return tuple(Step(name, state) for name, state in zip(StepName, states, strict=False))
