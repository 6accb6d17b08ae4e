"""Starting and stopping servers in one place. A stopped server keeps its share of the host, cards included; a shelved one does not.

A server that starts again is a new guest: it gets a fresh nonce as metadata, today's security groups, and a new port where somebody
deleted its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import structlog

from beamdesk.adapters.openstack.catalog_entries import brings_cards
from beamdesk.adapters.openstack.config import WhenStopped
from beamdesk.adapters.openstack.errors import explain_fault
from beamdesk.adapters.openstack.firewall import Groups
from beamdesk.adapters.openstack.names import NONCE_KEY
from beamdesk.adapters.openstack.ports import Ports
from beamdesk.adapters.openstack.records import NovaServer, Port
from beamdesk.adapters.openstack.servers import Servers
from beamdesk.domain.errors import CloudError, CloudRefused
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.server import ServerStatus
from beamdesk.ports.cloud import ServerSpec

log = structlog.get_logger("beamdesk.openstack")

TakePort = Callable[[DesktopId, frozenset[str] | None], Awaitable[Port]]
_MARK_FOR_S, _MARK_EVERY_S = 900.0, 1.0
_MOST_REMEMBERED = 10_000
_WAKE = {
    "SHUTOFF": "os-start",
    "SHELVED": "unshelve",
    "SHELVED_OFFLOADED": "unshelve",
    "PAUSED": "unpause",
    "SUSPENDED": "resume",
}


class Power:
    """Starts and stops servers. ``take_port`` makes the desktop's port."""

    def __init__(self, servers: Servers, ports: Ports, groups: Groups, take_port: TakePort, when_stopped: WhenStopped) -> None:
        self._servers = servers
        self._ports = ports
        self._groups = groups
        self._take_port = take_port
        self._when_stopped = when_stopped
        self._shelved: dict[str, None] = {}
        self._marking: dict[str, asyncio.Task[None]] = {}

    def close(self) -> None:
        """Give up what goes on in the background."""
        for task in self._marking.values():
            task.cancel()

    async def start(self, uuid: str, spec: ServerSpec) -> None:
        """Start a stopped server, shelved and suspended ones included; give its guest a fresh nonce as metadata.

        A shelved server takes metadata only once it is back, which may take minutes: the nonce follows then, and its agent comes
        again until it is there. If this process dies meanwhile the nonce runs out unspent, and the desktop is restarted.
        """
        server = await self._servers.mine(uuid)
        if server is None or server.status is ServerStatus.DELETING:
            raise CloudRefused("The server is gone.")
        if self._servers.desktop_of(server) != spec.desktop_id:
            raise CloudRefused("The server does not belong to this desktop.")
        if server.status is ServerStatus.ERROR:
            raise CloudRefused(explain_fault(server.fault))
        action = _WAKE.get(server.raw_status)
        if action is None or server.status is ServerStatus.BUILD:
            return
        if server.task:
            raise CloudError(f"OpenStack is busy with the server ({server.task}). Beamdesk waits for it.")
        await self._connect(server, spec)
        self._shelved.pop(uuid, None)
        self._give_up_marking(uuid)
        marked = await self._servers.mark(uuid, {NONCE_KEY: spec.nonce})
        await self._servers.act(uuid, action, "start the server")
        if not marked:
            self._later(uuid, self._mark_once_back(uuid, spec.nonce))

    async def _mark_once_back(self, uuid: str, nonce: str) -> None:
        until = asyncio.get_running_loop().time() + _MARK_FOR_S
        while asyncio.get_running_loop().time() < until:
            try:
                if await self._servers.mark(uuid, {NONCE_KEY: nonce}):
                    return
            except CloudRefused:
                return  # it is gone
            except CloudError as error:
                log.info("nonce.put_off", server=uuid, cause=error.message)
            await asyncio.sleep(_MARK_EVERY_S)

    def _later(self, uuid: str, work: Coroutine[None, None, None]) -> None:
        task = self._marking[uuid] = asyncio.create_task(work)

        def done(ended: asyncio.Task[None]) -> None:
            if self._marking.get(uuid) is ended:
                del self._marking[uuid]

        task.add_done_callback(done)

    def _give_up_marking(self, uuid: str) -> None:
        """A nonce of an earlier start must not come after that of this one."""
        if earlier := self._marking.pop(uuid, None):
            earlier.cancel()

    async def _connect(self, server: NovaServer, spec: ServerSpec) -> None:
        """Give the server's port the security groups of today, or the server a new port."""
        groups = await self._groups.wanted(spec.beamline)
        mine = [port for port in await self._ports.listed(spec.desktop_id) if port.device == server.uuid]
        if not mine and server.raw_status == "SHUTOFF":
            port = await self._take_port(spec.desktop_id, groups)
            await self._servers.attach(server.uuid, port.id)
            log.warning("port.made_again", server=server.uuid, port=port.id)
        for port in mine:
            if groups is not None:
                await self._ports.secure(port, groups)

    async def stop(self, uuid: str) -> None:
        """Stop or shelve a server; absent, stopped or on its way there is success.

        One whose shelving was accepted and that runs again all the same is stopped: its disk could not be kept in Glance, say.
        """
        server = await self._servers.mine(uuid)
        if server is None or server.status in (ServerStatus.SHUTOFF, ServerStatus.DELETING):
            return
        if server.task == "powering-off" or server.task.startswith("shelving"):
            return
        if not self._is_shelved_when_stopped(server):
            await self._servers.act(uuid, "os-stop", "stop the server")
        elif uuid in self._shelved:
            log.warning("server.not_shelved", server=uuid)
            await self._servers.act(uuid, "os-stop", "stop the server")
        else:
            await self._servers.act(uuid, "shelve", "shelve the server")
            if len(self._shelved) >= _MOST_REMEMBERED:
                self._shelved.clear()
            self._shelved[uuid] = None

    def _is_shelved_when_stopped(self, server: NovaServer) -> bool:
        if self._when_stopped is WhenStopped.SHELVE_CARDS:
            return brings_cards(server.specs)
        return self._when_stopped is WhenStopped.SHELVE
