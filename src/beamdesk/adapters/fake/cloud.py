"""A cloud driver without a cloud.

It keeps the port's contract and, on request, misbehaves as real clouds do: slow, refusing, losing answers after the effect, listing
half of what there is, or listing what was there a moment ago.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from beamdesk.adapters.fake.world import FakeServer, FakeState, MemoryWorld, World
from beamdesk.domain.errors import CloudError, CloudRefused, CloudUnavailable
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.server import HostState, Remedy
from beamdesk.ports.clock import Clock
from beamdesk.ports.cloud import Capacity, Observation, Server, ServerSpec, ServerStatus
from beamdesk.scheduling.cards import Card, CardMode
from beamdesk.scheduling.host import HostFacts

STALE_S = 0.9
"""How old a stale listing is: less than the second that must lie between two absences."""
_MADE_OF = ("image_ref", "flavor_ref", "vcpus", "memory_mib", "disk_gib", "gpus")
DEFAULT_CAPACITY = Capacity(vcpus=64, memory_mib=256 * 1024, disk_gib=2000, gpus=2)


def fake_address(desktop_id: DesktopId) -> str:
    """Return where a fake desktop's streaming server would listen."""
    return f"unix:/run/beamdesk-fake/{desktop_id}/stream.sock"


@dataclass(frozen=True, slots=True)
class FakeTimes:
    """How slow the cloud is, in seconds. ``call``: every call; the others: until the effect shows."""

    call: float = 0.0
    build: float = 0.0
    delete: float = 0.0


class Faults:
    """What shall go wrong next. Calls are named as in the port."""

    def __init__(self) -> None:
        self._errors: dict[tuple[str, str], deque[CloudError]] = {}
        self.unreachable = False
        self.incomplete = 0
        self.stale = 0
        self.broken_builds: deque[tuple[str, Remedy]] = deque()

    def fail(self, call: str, error: CloudError, *, after_effect: bool = False, times: int = 1) -> None:
        """Let the next calls fail: before the effect (a refusal, an outage), or after it (the answer got lost)."""
        key = (call, "after" if after_effect else "before")
        self._errors.setdefault(key, deque()).extend([error] * times)

    def raise_if_due(self, call: str, moment: str) -> None:
        """Raise the next planned error of this call and moment."""
        if self.unreachable:
            raise CloudUnavailable("The fake cloud does not answer.")
        if planned := self._errors.get((call, moment)):
            raise planned.popleft()


async def _no_pause(_call: str, _moment: str) -> None:
    """Pass. Tests hold calls here: at ``before``, ``between`` (found nothing, not yet created) and ``after``."""


class FakeCloud:
    """`beamdesk.ports.cloud.Cloud` in memory, or in a file that several processes share.

    ``images`` None = every image is known. ``racy``: two creations at once make two servers, as in a cloud without unique names.
    ``places``: the hosts among which the scheduler chooses, None = one with all of the capacity.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        world: World | None = None,
        capacity: Capacity | None = DEFAULT_CAPACITY,
        times: FakeTimes | None = None,
        faults: Faults | None = None,
        deployment_id: str = "fake",
        images: frozenset[str] | None = None,
        racy: bool = False,
        address: Callable[[DesktopId], str] = fake_address,
        pause: Callable[[str, str], Awaitable[None]] = _no_pause,
        places: Callable[[], tuple[HostFacts, ...]] | None = None,
    ) -> None:
        self.world = world or MemoryWorld()
        self.faults = faults or Faults()
        self._clock = clock
        self._capacity = capacity
        self._times = times or FakeTimes()
        self._deployment_id = deployment_id
        self._images = images
        self._racy = racy
        self._address = address
        self._pause = pause
        self._places = places
        self._past: deque[tuple[float, tuple[Server, ...]]] = deque(maxlen=64)

    async def create_server(self, spec: ServerSpec) -> Server:
        """Create the desktop's server, or return the one that exists."""
        await self._enter("create_server")
        if self._images is not None and spec.image_ref not in self._images:
            raise CloudRefused("There is no such image.")
        if self._racy:
            with self.world.open() as state:
                seen = self._of(state, spec.desktop_id)
            await self._pause("create_server", "between")
            if seen:
                return self._seen(seen[0])
        with self.world.open() as state:
            found = () if self._racy else self._of(state, spec.desktop_id)
            if not found:
                self._remember(state)
            server = found[0] if found else self._build(state, spec)
        await self._leave("create_server")
        return self._seen(server)

    def _build(self, state: FakeState, spec: ServerSpec) -> FakeServer:
        now = self._clock.now().timestamp()
        state.created += 1
        plain = asdict(spec) | {"nonce": ""}
        server = FakeServer(
            f"server-{state.created}",
            self._deployment_id,
            spec.desktop_id,
            now,
            now + self._times.build,
            spec.nonce,
            plain,
        )
        if self.faults.broken_builds:
            server.fault, server.remedy = self.faults.broken_builds.popleft()
        state.servers[server.id] = server
        state.homes.setdefault(spec.desktop_id, self._deployment_id)
        return server

    async def start_server(self, server_id: ServerId, spec: ServerSpec) -> None:
        """Start a stopped server; running already is success."""
        await self._enter("start_server")
        with self.world.open() as state:
            server = self._mine(state, server_id)
            if server is None or server.gone_at is not None:
                raise CloudRefused("There is no such server.")
            self._remember(state)
            if server.off:
                made_of = {name: server.spec[name] for name in _MADE_OF}  # as in Nova, a start changes neither image nor size
                server.off, server.nonce, server.spec = False, spec.nonce, asdict(spec) | {"nonce": ""} | made_of
                server.active_at = self._clock.now().timestamp() + self._times.build
        await self._leave("start_server")

    async def stop_server(self, server_id: ServerId) -> None:
        """Stop the server and keep its home; absent or stopped is success."""
        await self._enter("stop_server")
        with self.world.open() as state:
            self._remember(state)
            server = self._mine(state, server_id)
            if server and server.host == HostState.UP:
                server.off = True
        await self._leave("stop_server")

    async def delete_server(self, server_id: ServerId) -> None:
        """Delete the server, keep the home; absent is success."""
        await self._enter("delete_server")
        with self.world.open() as state:
            self._remember(state)
            server = self._mine(state, server_id)
            if server and server.gone_at is None:
                server.gone_at = self._clock.now().timestamp() + self._times.delete
            self._bury(state)
        await self._leave("delete_server")

    async def delete_home(self, desktop_id: DesktopId) -> None:
        """Delete the desktop's home; absent is success; refused while a server uses it."""
        await self._enter("delete_home")
        with self.world.open() as state:
            self._bury(state)
            if self._of(state, desktop_id):
                raise CloudRefused("A server still uses this home.")
            if state.homes.get(desktop_id) == self._deployment_id:
                del state.homes[desktop_id]
        await self._leave("delete_home")

    async def find_servers(self, desktop_id: DesktopId) -> Observation:
        """Find the desktop's servers by tag."""
        everything = await self._list("find_servers")
        mine = tuple(server for server in everything.servers if server.desktop_id == desktop_id)
        return Observation(mine, everything.complete)

    async def list_servers(self) -> Observation:
        """List every server."""
        return await self._list("list_servers")

    async def _list(self, call: str) -> Observation:
        await self._enter(call)
        with self.world.open() as state:
            self._bury(state)
            servers = tuple(self._seen(server) for server in self._all(state))
        if self.faults.stale:
            self.faults.stale -= 1
            servers = self._as_of(self._clock.now().timestamp() - STALE_S, servers)
        complete = True
        if self.faults.incomplete:
            self.faults.incomplete -= 1
            complete, servers = False, servers[: len(servers) // 2]
        await self._leave(call)
        return Observation(servers, complete)

    async def list_homes(self) -> tuple[DesktopId, ...]:
        """List the desktops for which a home exists."""
        await self._enter("list_homes")
        with self.world.open() as state:
            homes = tuple(DesktopId(home) for home, owner in state.homes.items() if owner == self._deployment_id)
        await self._leave("list_homes")
        return homes

    async def console_log(self, server_id: ServerId, lines: int = 200) -> str:
        """Return a made-up console."""
        await self._enter("console_log")
        with self.world.open() as state:
            server = self._mine(state, server_id)
        text = [f"fake server of desktop {server.desktop_id}", server.fault or "all is well"] if server else []
        return "\n".join(text[-lines:] if lines else [])

    async def capacity(self) -> Capacity | None:
        """Return the totals given at construction, or those of the hosts."""
        await self._enter("capacity")
        if self._places is None:
            return self._capacity
        hosts = self._places()
        return Capacity(
            sum(host.cpu_milli for host in hosts) // 1000,
            sum(host.memory_mib for host in hosts),
            sum(host.disk_gib for host in hosts),
            sum(len(host.cards) for host in hosts),
        )

    async def hosts(self) -> tuple[HostFacts, ...]:
        """Return the hosts among which the scheduler chooses."""
        await self._enter("hosts")
        if self._places is not None:
            return self._places()
        total = self._capacity or DEFAULT_CAPACITY
        cards = tuple(Card(f"fake:{number}", "Fake", 24576, 1024, 600, 1500, mode=CardMode.HOST) for number in range(total.gpus))
        return (HostFacts("fake-1", 1000 * total.vcpus, total.memory_mib, total.disk_gib, cards),)

    async def close(self) -> None:
        """Nothing to release."""

    def strand(self, desktop_id: DesktopId, host: HostState) -> None:
        """Let the host of a desktop's servers be gone: they can be deleted, and nothing else happens to them."""
        with self.world.open() as state:
            for server in self._of(state, desktop_id):
                server.host = host

    def kill(self, desktop_id: DesktopId) -> None:
        """Take the servers of a desktop away behind everybody's back, as a failing host does."""
        with self.world.open() as state:
            for server in self._of(state, desktop_id):
                del state.servers[server.id]

    async def _enter(self, call: str) -> None:
        await self._pause(call, "before")
        if self._times.call:
            await asyncio.sleep(self._times.call)
        self.faults.raise_if_due(call, "before")

    async def _leave(self, call: str) -> None:
        self.faults.raise_if_due(call, "after")
        await self._pause(call, "after")

    def _remember(self, state: FakeState) -> None:
        self._past.append((self._clock.now().timestamp(), tuple(self._seen(server) for server in self._all(state))))

    def _as_of(self, when: float, present: tuple[Server, ...]) -> tuple[Server, ...]:
        """Return the listing as it was then: what was remembered before the first change since."""
        return next((servers for changed_at, servers in self._past if changed_at >= when), present)

    def _bury(self, state: FakeState) -> None:
        now = self._clock.now().timestamp()
        for server in list(state.servers.values()):
            if server.gone_at is not None and server.gone_at <= now:
                del state.servers[server.id]

    def _all(self, state: FakeState) -> list[FakeServer]:
        return [server for server in state.servers.values() if server.deployment_id == self._deployment_id]

    def _mine(self, state: FakeState, server_id: ServerId) -> FakeServer | None:
        server = state.servers.get(server_id)
        return server if server and server.deployment_id == self._deployment_id else None

    def _of(self, state: FakeState, desktop_id: DesktopId) -> list[FakeServer]:
        mine = (server for server in self._all(state) if server.desktop_id == desktop_id)
        return sorted(mine, key=lambda server: (server.created_at, server.id))

    def _seen(self, server: FakeServer) -> Server:
        desktop_id = DesktopId(server.desktop_id)
        status = self._status(server)
        address = self._address(desktop_id) if status is ServerStatus.ACTIVE else None
        created_at = datetime.fromtimestamp(server.created_at, UTC)
        launched = not server.fault and server.active_at <= self._clock.now().timestamp()
        remedy, host = Remedy(server.remedy), HostState(server.host)
        return Server(ServerId(server.id), desktop_id, status, created_at, address, server.fault, launched, remedy, host, tied=True)

    def _status(self, server: FakeServer) -> ServerStatus:
        if server.gone_at is not None:
            return ServerStatus.DELETING
        if server.fault:
            return ServerStatus.ERROR
        if server.off:
            return ServerStatus.SHUTOFF
        return ServerStatus.ACTIVE if server.active_at <= self._clock.now().timestamp() else ServerStatus.BUILD
