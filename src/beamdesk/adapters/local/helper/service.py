"""The operations of the helper: what each request does, after it was authorised and decoded.

Holds all state. Requests for one desktop are done one after the other, for different desktops at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

from beamdesk.adapters.local.helper import children, console, devices, idmap, layers, loop, machine, openfile
from beamdesk.adapters.local.helper.cgroup import Cgroups
from beamdesk.adapters.local.helper.config import Config
from beamdesk.adapters.local.helper.container import Container, Grant
from beamdesk.adapters.local.helper.errors import HelperError
from beamdesk.adapters.local.helper.homes import Home, Homes
from beamdesk.adapters.local.helper.notify import Leaders
from beamdesk.adapters.local.helper.plan import Plan, check_account, check_start
from beamdesk.adapters.local.helper.state import Records
from beamdesk.protocol.helper import (
    ByDesktop,
    FolderEntries,
    HelperAccount,
    HelperHome,
    HelperServer,
    HostFacts,
    OpenFile,
    Reply,
    ServerState,
    Start,
)

OPEN_TIMEOUT_S = 8.0
MAX_OPENING = 16
_SOCKET_NAME = "stream.sock"


@dataclass(slots=True)
class Service:
    """The helper's operations over its configuration, its records and the running containers."""

    config: Config
    cgroups: Cgroups
    records: Records
    leaders: Leaders
    clock: Callable[[], float]
    missing: tuple[str, ...] = ()
    closing: bool = False
    containers: dict[str, Container] = field(default_factory=dict)
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _opening: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_OPENING))

    @property
    def homes(self) -> Homes:
        """The home volumes."""
        return Homes(self.config.homes_dir)

    async def hello(self) -> Reply:
        """Tell what the machine offers; what was missing before is looked at again."""
        if self.missing:
            self.missing = await machine.find_missing(self.config, self.cgroups)
        return Reply(host=self._facts())

    async def start(self, request: Start) -> Reply:
        """Start the container of a desktop, or find it running."""
        check_start(self.config, request)
        check_account(self.config, request.account)
        async with self._lock(request.desktop_id):
            known = self.records.servers.get(request.desktop_id)
            self._check_deployment(known.deployment_id if known else "", request.deployment_id)
            home = self.homes.find(request.desktop_id)
            self._check_deployment(home.deployment_id if home else "", request.deployment_id)
            if known and request.desktop_id in self.containers:
                return Reply(server=known)
            return Reply(server=await self._start(request, known, home))

    async def stop(self, request: ByDesktop) -> Reply:
        """Stop a container and keep its home; absent or stopped is fine."""
        async with self._owned(request):
            await self._stop(request.desktop_id)
            known = self.records.servers.get(request.desktop_id)
            if known and known.state is not ServerState.STOPPED:
                self.records.put(replace(known, state=ServerState.STOPPED, cause="", stream_socket=""))
            return Reply()

    async def delete(self, request: ByDesktop) -> Reply:
        """Stop a container and forget it; the home stays; absent is fine."""
        async with self._owned(request):
            await self._stop(request.desktop_id)
            self.records.drop(request.desktop_id)
            (self.config.console_dir / f"{request.desktop_id}.log").unlink(missing_ok=True)
            return Reply()

    async def delete_home(self, request: ByDesktop) -> Reply:
        """Delete a home that no server uses; absent is fine."""
        async with self._owned(request):
            if request.desktop_id in self.records.servers:
                raise HelperError("in_use", "The home belongs to a server that still exists; delete the server first.")
            self.homes.delete(request.desktop_id)
            return Reply()

    async def list_servers(self) -> Reply:
        """List all servers, of every deployment."""
        return Reply(servers=tuple(self.records.servers.values()))

    async def list_homes(self) -> Reply:
        """List all home volumes, of every deployment."""
        homes = (HelperHome(home.desktop_id, home.deployment_id, home.disk_gib) for home in self.homes.all())
        return Reply(homes=tuple(homes))

    async def console(self, request: ByDesktop) -> Reply:
        """Return the end of a server's console."""
        known = self.records.servers.get(request.desktop_id)
        if known is None:
            raise HelperError("not_found", "There is no such server.")
        self._check_deployment(known.deployment_id, request.deployment_id)
        return Reply(text=console.tail(self.config.console_dir / f"{request.desktop_id}.log"))

    async def open_file(self, request: OpenFile, connection: socket.socket) -> None:
        """Let a child that is the person open a file and answer on ``connection`` itself.

        Raises:
            HelperError: the child did not answer.
        """
        await self._as_person(request.account, lambda: openfile.serve(self.config, request, connection))

    async def entry_facts(self, request: FolderEntries, connection: socket.socket) -> None:
        """Let a child that is the person look at entries of a folder. Errors as for :meth:`open_file`."""
        await self._as_person(request.account, lambda: openfile.serve_facts(self.config, request, connection))

    async def _as_person(self, account: HelperAccount, work: Callable[[], None]) -> None:
        check_account(self.config, account)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._opening.acquire()
        except TimeoutError as error:
            raise HelperError("busy", "Too many files are being opened; try again in a moment.") from error
        ended = asyncio.create_task(children.wait(children.fork(work)))
        ended.add_done_callback(lambda _task: self._opening.release())
        done, _pending = await asyncio.wait({ended}, timeout=OPEN_TIMEOUT_S)
        if not done:
            raise HelperError("busy", "The data storage does not answer; try again in a moment.")
        if ended.result() != 0:
            raise HelperError("failed", "The file could not be opened.")

    async def close(self) -> None:
        """Stop every container; no new one starts."""
        self.closing = True
        await asyncio.gather(*(self.stop(ByDesktop(name)) for name in tuple(self.containers)))
        self.cgroups.remove_parent()

    def _facts(self) -> HostFacts:
        return machine.facts(self.config, self.missing)

    def _lock(self, desktop_id: str) -> asyncio.Lock:
        return self._locks.setdefault(desktop_id, asyncio.Lock())

    @contextlib.asynccontextmanager
    async def _owned(self, request: ByDesktop) -> AsyncIterator[None]:
        """Hold the desktop's lock, once the deployment that the request names is known to own it."""
        async with self._lock(request.desktop_id):
            known = self.records.servers.get(request.desktop_id)
            home = self.homes.find(request.desktop_id)
            for owner in (known.deployment_id if known else "", home.deployment_id if home else ""):
                self._check_deployment(owner, request.deployment_id)
            yield

    def _check_deployment(self, owner: str, asking: str) -> None:
        if owner and asking and owner != asking:
            raise HelperError("foreign", "This desktop belongs to another deployment on this machine.")

    async def _start(self, request: Start, known: HelperServer | None, home: Home | None) -> HelperServer:
        if self.missing:
            raise HelperError("not_supported", f"This machine cannot isolate desktops; it lacks {', '.join(self.missing)}.")
        if self.closing:
            raise HelperError("busy", "The helper is stopping.")
        container = self._container(request, home)
        if loop.is_attached(container.plan.home_image):
            raise HelperError("busy", "The desktop's home is still being released; try again in a moment.")
        if home is None or not home.deployment_id:
            self.homes.record(Home(request.desktop_id, request.deployment_id, container.plan.disk_gib))
        created = known.created_at if known else self.clock()
        address = str(container.plan.stream_dir / _SOCKET_NAME)
        server = HelperServer(request.desktop_id, request.deployment_id, ServerState.RUNNING, created, address)
        self.containers[request.desktop_id] = container  # it counts against the capacity from now on
        try:
            await container.start()
        except BaseException:
            self.containers.pop(request.desktop_id, None)
            if self.homes.find(request.desktop_id) is None:
                self.homes.delete(request.desktop_id)  # the record of a home that was never made
            raise
        self.records.put(server)
        task = asyncio.create_task(self._supervise(container))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return server

    def _container(self, request: Start, home: Home | None) -> Container:
        """Decide everything about a new container, or refuse it."""
        found = layers.find(self.config.images_index_dir, request.image)
        running = self.containers.values()
        taken = {card.name for item in running if not (request.shared and item.grant.shared) for card in item.grant.cards}
        cards = devices.choose(request.gpus, devices.discover(), taken) if request.gpus else ()
        bounds = self.config.container_ids
        base = idmap.choose_base(request.desktop_id, bounds.first, bounds.last, {item.grant.base for item in running})
        grant = Grant(base, request.vcpus, request.memory_mib, cards, request.shared)
        held_gib = home.disk_gib if home else 0
        self._check_capacity(grant, max(0, request.disk_gib - held_gib))
        plan = Plan(
            desktop_id=request.desktop_id,
            account=request.account,
            base=base,
            quarantine=bounds.first,
            layers=found,
            home_image=self.homes.image(request.desktop_id),
            disk_gib=max(request.disk_gib, held_gib),  # a home never shrinks
            memory_mib=request.memory_mib,
            data=request.mounts,
            gpu_nodes=tuple(dict.fromkeys(node for card in cards for node in card.nodes)),
            stream_dir=self.config.streams_dir / request.desktop_id,
            nonce=request.nonce,
        )
        return Container(plan, grant, self.config, self.cgroups, self.leaders)

    def _check_capacity(self, grant: Grant, new_disk_gib: int) -> None:
        """Refuse what the machine has not; ``new_disk_gib``: what the home would hold beyond what it holds."""
        total = self._facts()
        running = [item.grant for item in self.containers.values()]
        disk = sum(home.disk_gib for home in self.homes.all()) + new_disk_gib
        wanted = (
            ("CPUs", sum(item.vcpus for item in running) + grant.vcpus, total.vcpus),
            ("memory", sum(item.memory_mib for item in running) + grant.memory_mib, total.memory_mib),
            ("disk", disk if new_disk_gib else 0, total.disk_gib),
        )
        for what, needed, offered in wanted:
            if needed > offered:
                raise HelperError("no_capacity", f"The machine has not enough {what} left: {needed} needed of {offered}.")

    async def _stop(self, desktop_id: str) -> None:
        container = self.containers.get(desktop_id)
        if container:
            await container.stop()
            self.containers.pop(desktop_id, None)

    async def _supervise(self, container: Container) -> None:
        """Notice a container's end that nobody asked for, release what it held and record why."""
        await container.ended.wait()
        if container.stopping:
            return
        async with self._lock(container.name):
            if self.containers.get(container.name) is not container:
                return
            await container.release()
            self.containers.pop(container.name, None)
            known = self.records.servers.get(container.name)
            cause = container.cause()
            state = ServerState.FAILED if cause else ServerState.STOPPED
            if known:
                self.records.put(replace(known, state=state, cause=cause, stream_socket=""))
