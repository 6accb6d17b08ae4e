"""Neutron's ports of one deployment in one place: the desktop's address, and the lock that keeps its servers at one.

A port can serve one server, and Neutron gives a MAC address once in a network. So whoever makes the port with the desktop's own MAC
address may make its server; everybody else finds the port and waits. A port whose maker died is removed by whoever has seen it lie
unused for ``takeover_s``, one whose server is gone by whoever has seen it serve: no clock is asked but that process's own steady
one, because others' may differ by minutes.

A project's member may not delete the port of a server that still exists: whoever deletes the server *releases* the port by another
name, and a released port holds nobody up. Where the cloud's policy does not let us choose the address (the network belongs to
another project) the oldest of the ports made at the same time counts, after a moment in which all of them become visible.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from beamdesk.adapters.openstack.connection import Connection, Json, Query, Reply
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack.names import Names
from beamdesk.adapters.openstack.records import Port, mapping, sequence
from beamdesk.domain.errors import CloudError
from beamdesk.domain.ids import DesktopId

log = structlog.get_logger("beamdesk.openstack")

_ABSENT = frozenset({404})
_TAKEN = frozenset({403, 409})
"""What a project's member is told who deletes the port of a server, by newer and by older Neutrons."""
_SETTLE_S = 0.3
_MOST_REMEMBERED = 10_000
_MAC_TAKEN = "MacAddressInUse"


class PortTaken(CloudError):
    """A server has the desktop's port, or somebody is making one. ``device``: the server, empty = not known yet."""

    def __init__(self, port: Port) -> None:
        super().__init__("An earlier attempt to make this desktop may still be under way. Beamdesk waits a moment.")
        self.port = port


class Ports:
    """Ports that carry this deployment's description, and no others."""

    def __init__(
        self, connection: Connection, names: Names, *, takeover_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._names = names
        self._takeover_s = takeover_s
        self._monotonic = monotonic
        self._idle: dict[DesktopId, tuple[str, float]] = {}
        self._served: set[str] = set()
        self._may_choose_mac = True

    async def listed(self, desktop_id: DesktopId | None = None) -> tuple[Port, ...]:
        """List the ports of a desktop, or all."""
        if desktop_id is not None:
            return await self.among((desktop_id,))
        query = {"description": self._names.description}
        found: list[Port] = []
        async for page in self._connection.pages(Service.NETWORK, "/ports", "ports", "list the ports", query):
            found += [Port.read(record) for record in sequence(page.data, "ports")]
        return self._noted(found)

    async def among(self, desktop_ids: Iterable[DesktopId]) -> tuple[Port, ...]:
        """List the ports of some desktops, with one request."""
        names = [name for one in desktop_ids for name in (self._names.resource(one), self._names.released(one))]
        query: Query = {"description": self._names.description, "name": names}
        reply = await self._connection.call(Service.NETWORK, "GET", "/ports", "list the ports", query=query)
        return self._noted(Port.read(record) for record in sequence(reply.data, "ports"))

    def _noted(self, ports: Iterable[Port]) -> tuple[Port, ...]:
        """Remember which ports served a server: one that does so no more waits for nobody."""
        listed = tuple(ports)
        if len(self._served) >= _MOST_REMEMBERED:
            self._served.clear()
        self._served.update(port.id for port in listed if port.device)
        return listed

    async def take(self, desktop_id: DesktopId, network: str, groups: frozenset[str] | None, *, seen_none: bool = False) -> Port:
        """Make the desktop's port. Who gets it back, and nobody else, may make the desktop's server.

        ``seen_none``: it had none a moment ago, so that nobody is asked; whoever made one since keeps this one from being made.

        Raises:
            PortTaken: somebody else has it.
        """
        for port in () if seen_none else await self.listed(desktop_id):
            if port.device or not (port.name == self._names.released(desktop_id) or self._left_over(desktop_id, port)):
                raise PortTaken(port)
            await self.delete(port)
        self._idle.pop(desktop_id, None)
        made = await self._make(desktop_id, network, groups)
        return made if self._may_choose_mac else await self._settle(desktop_id, made)

    def _left_over(self, desktop_id: DesktopId, port: Port) -> bool:
        """Tell whether its server is gone, or we have seen it lie unused for so long that its maker must be dead."""
        if port.id in self._served:
            return True
        known, since = self._idle.get(desktop_id, ("", 0.0))
        if known != port.id:
            since = self.lies_idle(desktop_id, port)
        return self._monotonic() - since >= self._takeover_s

    def lies_idle(self, desktop_id: DesktopId, port: Port) -> float:
        """Remember that from now on nobody here makes a server with the port; return when that was."""
        if len(self._idle) >= _MOST_REMEMBERED:
            self._idle.clear()
        since = self._monotonic()
        self._idle[desktop_id] = (port.id, since)
        return since

    async def _make(self, desktop_id: DesktopId, network: str, groups: frozenset[str] | None) -> Port:
        body: dict[str, object] = {
            "network_id": network,
            "name": self._names.resource(desktop_id),
            "description": self._names.description,
        }
        if groups is not None:
            body["security_groups"] = sorted(groups)
        if self._may_choose_mac:
            reply = await self._post({**body, "mac_address": self._names.mac(desktop_id)}, frozenset({403, 409}))
            if reply.status == 409 and reply.kind == _MAC_TAKEN:
                raise PortTaken(Port("", self._names.resource(desktop_id), "", "", frozenset(), ""))
            if reply.status not in (403, 409):
                return Port.read(mapping(reply.data, "port"))
            if reply.status == 403:
                log.info("port.mac_not_ours_to_choose", place=self._connection.place.name)
                self._may_choose_mac = False
        return Port.read(mapping((await self._post(body, frozenset())).data, "port"))

    async def _post(self, body: Json, accept: frozenset[int]) -> Reply:
        return await self._connection.call(Service.NETWORK, "POST", "/ports", "make the port", body={"port": body}, accept=accept)

    @property
    def may_choose_mac(self) -> bool:
        """Tell whether the address is the lock, as far as is known; where it is not, looks are."""
        return self._may_choose_mac

    async def _settle(self, desktop_id: DesktopId, made: Port) -> Port:
        """Decide between ports made at the same time: the oldest, by everybody's reckoning."""
        await asyncio.sleep(_SETTLE_S)
        rivals = await self.listed(desktop_id)
        first = min(rivals, key=lambda port: (not port.device, port.created_at, port.id), default=made)
        if first.id == made.id:
            return made
        await self.delete(made)
        raise PortTaken(first)

    async def secure(self, port: Port, groups: frozenset[str]) -> None:
        """Give the port exactly these security groups; nothing is sent where it has them."""
        if port.groups != groups:
            body = {"port": {"security_groups": sorted(groups)}}
            await self._connection.call(Service.NETWORK, "PUT", f"/ports/{port.id}", "set the port's security groups", body=body)

    async def release(self, port: Port) -> None:
        """Give up the port of a server that is being deleted; absent is success."""
        desktop_id = self._names.desktop_named(port.name)
        if desktop_id is not None and port.name != self._names.released(desktop_id):
            body = {"port": {"name": self._names.released(desktop_id)}}
            path, doing = f"/ports/{port.id}", "release the port"
            await self._connection.call(Service.NETWORK, "PUT", path, doing, body=body, accept=_ABSENT)

    async def discard(self, port: Port) -> None:
        """Delete a port that nothing used when it was listed; release one that a server took meanwhile; absent is success."""
        path = f"/ports/{port.id}"
        reply = await self._connection.call(Service.NETWORK, "DELETE", path, "delete the port", accept=_ABSENT | _TAKEN)
        if reply.status in _TAKEN:
            await self.release(port)

    async def unbind(self, port: Port) -> None:
        """Take the port from a server that Nova does not have any more; absent is success."""
        body = {"port": {"device_id": "", "device_owner": ""}}
        path, doing = f"/ports/{port.id}", "unbind the port of a server that is gone"
        await self._connection.call(Service.NETWORK, "PUT", path, doing, body=body, accept=_ABSENT)

    async def delete(self, port: Port) -> None:
        """Delete a port; absent is success."""
        await self._connection.call(Service.NETWORK, "DELETE", f"/ports/{port.id}", "delete the port", accept=_ABSENT)
