"""Desktops in one place (a project in a region): observe, create, start, stop, delete. `driver` chooses the place.

The steps of `create`, each of which finds what an earlier attempt left: a server with our tags; the home volume; the port, whose
maker alone goes on; the server. A step that was refused leaves no port behind. Everything else that stays is found by its marks
and removed by `delete_home`, the last call in a desktop's life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from beamdesk.adapters.openstack.config import Boot, OpenStackConfig, Place
from beamdesk.adapters.openstack.connection import Connection, Json
from beamdesk.adapters.openstack.errors import NOT_SENT, Service, explain_fault, remedy
from beamdesk.adapters.openstack.firewall import Groups
from beamdesk.adapters.openstack.homes import Volumes
from beamdesk.adapters.openstack.lookups import Lookups
from beamdesk.adapters.openstack.names import Names, server_id
from beamdesk.adapters.openstack.operations import Operations
from beamdesk.adapters.openstack.ports import Ports, PortTaken
from beamdesk.adapters.openstack.power import Power
from beamdesk.adapters.openstack.records import NovaServer, Port
from beamdesk.adapters.openstack.refused_sizes import RefusedSizes
from beamdesk.adapters.openstack.servers import Servers
from beamdesk.adapters.openstack.userdata import user_data
from beamdesk.adapters.openstack.watch import Look, Watch
from beamdesk.adapters.openstack.why import Why
from beamdesk.domain.errors import CloudError, CloudRefused, CloudUnavailable
from beamdesk.domain.ids import DesktopId
from beamdesk.domain.server import Observation, Remedy, Server, ServerStatus
from beamdesk.ports.cloud import ServerSpec

log = structlog.get_logger("beamdesk.openstack")

MOST_CROSS_CHECKS = 5
"""Ports whose server a list did not show are asked for one by one, so many at most; more make the observation incomplete."""
_VOLUME_TYPE_SINCE = (2, 67)
_NO_HOST_FREE = "No host of the cloud has room now to bring the desktop's server back."


class PlaceDriver:
    """The driver of one place."""

    def __init__(self, place: Place, config: OpenStackConfig, deployment_id: str) -> None:
        self.place = place
        self.names = Names(deployment_id)
        self.connection = Connection(place, config)
        self.watch = Watch(_Sight(self))
        self.servers = Servers(self.connection, self.names, self.watch.wrote_to)
        self.ports = Ports(self.connection, self.names, takeover_s=2 * config.timeout_s)
        self.volumes = Volumes(self.connection, self.names, config.homes, self.servers.get)
        self.groups = Groups(self.connection, self.names, config.firewall, config.stream_port)
        self.lookups = Lookups(self.connection, config.flavors)
        self._config = config
        self._uses_volumes = config.homes.enabled or config.boot is Boot.CLONE
        self.operations = Operations(self.connection, self.servers, self.lookups, config)
        self.why = Why(self.connection, config)
        self.sizes = RefusedSizes()
        self._making: dict[DesktopId, asyncio.Lock] = {}
        self.power = Power(self.servers, self.ports, self.groups, self._new_port, config.when_stopped)

    def close(self) -> None:
        """Release the connection."""
        self.power.close()
        self.watch.close()
        self.connection.close()

    async def observe_all(self) -> Observation:
        """Return all servers, by two lists: Nova's by tag and Neutron's by description."""
        return await self._joined(*await self.watch.everything())

    async def look(self, desktop_ids: frozenset[DesktopId]) -> Look:
        """Return the servers of some desktops, by two lists, however many desktops."""
        servers, ports = await asyncio.gather(self.servers.among(sorted(desktop_ids)), self.ports.among(sorted(desktop_ids)))
        seen = await self._joined(servers, ports)
        unsure = {self.names.desktop_named(port.name) for port in ports if port.device} if not seen.complete else set()
        observations = {
            one: Observation(tuple(server for server in seen.servers if server.desktop_id == one), one not in unsure)
            for one in desktop_ids
        }
        return Look(observations, servers, ports)

    async def _joined(self, servers: Sequence[NovaServer], ports: Sequence[Port]) -> Observation:
        """Describe what is in both lists.

        Neutron's guards against a list of Nova's that leaves a part out silently, as one with a filter does while a cell is down.
        """
        known = {server.uuid for server in servers}
        missing = [port for port in ports if port.device and port.device not in known]
        await self.why.learn(tuple(servers))
        by_server = {port.device: port for port in ports if port.device}
        seen = [self.describe(server, by_server.get(server.uuid)) for server in servers]
        asked = missing[:MOST_CROSS_CHECKS]
        found = await asyncio.gather(*(self.servers.get(port.device) for port in asked))
        seen += [self._seen_by_port(server, port) for server, port in zip(found, asked, strict=True) if server]
        return Observation(tuple(one for one in seen if one is not None), len(missing) <= MOST_CROSS_CHECKS)

    def describe(self, server: NovaServer, port: Port | None) -> Server | None:
        """Return a server as the reconciler knows it; None where it is nobody's."""
        desktop_id = self.servers.desktop_of(server)
        if desktop_id is None:
            return None
        known_as, address = server_id(self.place.name, server.uuid), self._address(port)
        described = Server(
            known_as, desktop_id, server.status, server.created_at, address,
            launched=server.launched, host=server.host, tied=self._config.homes.enabled,
        )  # fmt: skip
        if server.status is ServerStatus.ACTIVE:
            self.sizes.took(server)
        if server.offloaded:
            return replace(described, fault=_NO_HOST_FREE, remedy=Remedy.WAIT)
        if server.status is not ServerStatus.ERROR:
            return described
        more = self.why.told(server.uuid)
        fault = explain_fault(server.fault, more.words if more else "")
        helps = more.remedy if more else remedy(server.fault)
        return replace(described, fault=fault, remedy=self.sizes.refused(server, helps))

    def _seen_by_port(self, server: NovaServer, port: Port) -> Server | None:
        """Describe a server that the list left out; its cell may be down, and then little is known of it."""
        desktop_id = self.names.desktop_named(port.name)
        if desktop_id is None:
            return None
        status = ServerStatus.UNKNOWN if server.partial else server.status
        known_as, tied = server_id(self.place.name, server.uuid), self._config.homes.enabled
        return Server(known_as, desktop_id, status, server.created_at, self._address(port), host=server.host, tied=tied)

    def _address(self, port: Port | None) -> str | None:
        if port is None or not port.address:
            return None
        host = f"[{port.address}]" if ":" in port.address else port.address
        return f"tcp:{host}:{self._config.stream_port}"

    async def create(self, spec: ServerSpec) -> Server:
        """Make the desktop's server, or return the one that is there."""
        lock = self._making.setdefault(spec.desktop_id, asyncio.Lock())
        try:
            async with lock:
                return await self._find_or_make(spec)
        finally:
            if not lock.locked():
                self._making.pop(spec.desktop_id, None)

    async def _find_or_make(self, spec: ServerSpec) -> Server:
        absent = self.watch.absent(spec.desktop_id) or spec.first
        seen_none = absent and self.ports.may_choose_mac
        observed = Observation(()) if seen_none else await self.watch.look(spec.desktop_id)
        self.watch.wrote(spec.desktop_id)
        alive = [server for server in observed.servers if server.status is not ServerStatus.DELETING]
        if alive:
            return min(alive, key=lambda server: (server.created_at, server.id))
        if observed.servers or not observed.complete:
            raise CloudError("The desktop's old server is still being deleted. Beamdesk waits for it.")
        flavor, network, groups = await asyncio.gather(
            self.lookups.flavor(spec.flavor_ref), self.lookups.network(), self.groups.wanted(spec.beamline)
        )
        port = await self._take_port(spec.desktop_id, network, groups, seen_none=seen_none)
        try:
            disks = await self._disks(spec)  # with the port in hand: two who make a home at once would leave two
        except CloudError:
            await self.ports.delete(port)  # nothing uses it yet
            raise
        try:
            uuid, made_at = await self.servers.create(await self._body(spec, flavor, port, disks), spec.hints)
        except CloudError as error:
            if isinstance(error, CloudUnavailable) and error.context.get("kind") != NOT_SENT:
                self.ports.lies_idle(spec.desktop_id, port)
                raise  # it may have been made
            if isinstance(error, CloudRefused):  # perhaps for something that was looked up long ago
                self.lookups.forget()
                self.groups.forget()
            await self.ports.delete(port)
            raise
        log.info("server.made", desktop=spec.desktop_id, server=uuid, place=self.place.name)
        self.watch.made(spec.desktop_id, self.servers.just_made(uuid, spec.desktop_id, made_at), port)
        return Server(server_id(self.place.name, uuid), spec.desktop_id, ServerStatus.BUILD, made_at, self._address(port))

    async def _take_port(
        self, desktop_id: DesktopId, network: str, groups: frozenset[str] | None, *, seen_none: bool = False
    ) -> Port:
        try:
            return await self.ports.take(desktop_id, network, groups, seen_none=seen_none)
        except PortTaken as taken:
            port = taken.port
            if not port.device or await self.servers.get(port.device) is not None:
                raise
            await self._free(port)
            return await self.ports.take(desktop_id, network, groups)

    async def _new_port(self, desktop_id: DesktopId, groups: frozenset[str] | None) -> Port:
        return await self._take_port(desktop_id, await self.lookups.network(), groups)

    async def _free(self, port: Port) -> None:
        """Delete a port, bound to a server that is gone or to none."""
        if port.device:
            log.warning("port.left_bound", port=port.id, server=port.device)
            await self.ports.unbind(port)
        await self.ports.delete(port)

    async def _disks(self, spec: ServerSpec) -> list[Json]:
        """Return the block devices, root first; empty = the image on the host's disk and nothing else."""
        home = await self.volumes.home(spec.desktop_id) if self._config.homes.enabled else None
        disks: list[Json] = []
        if self._config.boot is not Boot.IMAGE:
            disks.append(await self._root(spec))
        elif home is not None:
            disks.append(
                {
                    "source_type": "image",
                    "uuid": spec.image_ref,
                    "destination_type": "local",
                    "boot_index": 0,
                    "delete_on_termination": True,
                }
            )
        if home is not None:
            disks.append(
                {
                    "source_type": "volume",
                    "uuid": home.id,
                    "destination_type": "volume",
                    "boot_index": -1,
                    "delete_on_termination": False,
                }
            )
        return disks

    async def _root(self, spec: ServerSpec) -> Json:
        root: dict[str, object] = {"destination_type": "volume", "boot_index": 0, "delete_on_termination": True}
        if self._config.boot is Boot.CLONE:
            clone = await self.volumes.root_clone(spec.desktop_id, spec.image_ref, spec.disk_gib)
            if clone is not None:
                return {**root, "source_type": "volume", "uuid": clone.id}
        version = tuple(int(part) for part in (await self.connection.microversion()).split("."))
        if self._config.boot_volume_type and version >= _VOLUME_TYPE_SINCE:
            root["volume_type"] = self._config.boot_volume_type
        return {**root, "source_type": "image", "uuid": spec.image_ref, "volume_size": spec.disk_gib}

    async def _body(self, spec: ServerSpec, flavor: str, port: Port, disks: list[Json]) -> Json:
        body: dict[str, object] = {
            "name": self.names.resource(spec.desktop_id),
            "flavorRef": flavor,
            "networks": [{"port": port.id}],
            "tags": [self.names.tag, self.names.desktop_tag(spec.desktop_id)],
            "metadata": {**self.names.metadata(spec.desktop_id), "beamdesk_experiment": spec.experiment},
            "user_data": user_data(self._config.guest, spec.desktop_id, spec.nonce),
            "config_drive": self._config.config_drive,
        }
        if self._config.boot is Boot.IMAGE:
            body["imageRef"] = spec.image_ref
        if disks:
            body["block_device_mapping_v2"] = disks
        if self.place.availability_zone:
            body["availability_zone"] = self.place.availability_zone
        return body

    async def delete(self, uuid: str) -> None:
        """Delete a server and its port; absent is success."""
        server = await self.servers.mine(uuid)
        if server is None:
            return
        if server.raw_status == "SOFT_DELETED":
            await self.servers.act(uuid, "forceDelete", "delete the server")
        else:  # also while it is being deleted: once Nova knows that its host is gone it finishes the deletion without the host
            await self.servers.delete(uuid)
            log.info("server.deleted", server=uuid, place=self.place.name)
        desktop_id = self.servers.desktop_of(server)
        if desktop_id is not None:
            ports = await self.ports.listed(desktop_id)
            for port in ports:
                if port.device == uuid:
                    await self.ports.release(port)
            loose = [port for port in ports if not port.device]
            if loose and all(one.uuid == uuid for one in await self.servers.listed(desktop_id)):
                for port in loose:
                    await self.ports.discard(port)  # Nova may bind it at this moment, if it was still making the server

    async def delete_home(self, desktop_id: DesktopId) -> None:
        """Delete what a desktop leaves behind: ports and volumes.

        Raises:
            CloudRefused: a server uses them.
        """
        servers = await self.servers.listed(desktop_id)
        if any(server.status is not ServerStatus.DELETING for server in servers):
            raise CloudRefused("A server still uses this home. Delete the server first.")
        if servers:
            raise CloudError("The desktop's server is still being deleted. Beamdesk waits for it.")
        for port in await self.ports.listed(desktop_id):
            if port.device and await self.servers.get(port.device) is not None:
                raise CloudError("The desktop's server is still being deleted. Beamdesk waits for it.")
            await self._free(port)
        for volume in await self.volumes.listed(desktop_id) if self._uses_volumes else ():
            await self.volumes.delete(volume)

    async def homes(self) -> frozenset[DesktopId]:
        """Return the desktops that have a home, or anything else that a desktop leaves behind when its server is gone."""
        ports = await self.ports.listed()
        volumes = await self.volumes.listed() if self._uses_volumes else ()
        named = (self.names.desktop_named(port.name) for port in ports if not port.device)
        return frozenset(DesktopId(volume.desktop) for volume in volumes if volume.desktop and not volume.stuck) | frozenset(
            desktop for desktop in named if desktop is not None
        )

    async def console(self, uuid: str, lines: int) -> str:
        """Return the last lines of the console."""
        if await self.servers.mine(uuid) is None:
            return ""
        reply = await self.servers.act(uuid, "os-getConsoleOutput", "show the console", {"length": lines})
        return "\n".join(str(reply.get("output") or "").splitlines()[-lines:])

    async def limits(self) -> dict[str, int]:
        """Return Nova's limits of the project and what is used of them; -1 = no limit."""
        reply = await self.connection.call(Service.COMPUTE, "GET", "/limits", "tell the quota")
        limits = reply.data.get("limits")
        absolute = limits.get("absolute") if isinstance(limits, dict) else None
        return {str(key): value for key, value in absolute.items() if isinstance(value, int)} if isinstance(absolute, dict) else {}


class _Sight:
    """What the place's `Watch` asks."""

    def __init__(self, place: PlaceDriver) -> None:
        self._place = place

    async def everything(self) -> tuple[tuple[NovaServer, ...], tuple[Port, ...]]:
        return await asyncio.gather(self._place.servers.listed(), self._place.ports.listed())

    async def together(self, desktop_ids: frozenset[DesktopId]) -> Look:
        return await self._place.look(desktop_ids)

    async def changed(self, since: datetime) -> tuple[tuple[NovaServer, ...], datetime | None]:
        return await self._place.servers.changed(since)

    async def clock(self) -> datetime | None:
        return await self._place.servers.clock()

    def desktop_of(self, server: NovaServer) -> DesktopId | None:
        ours = self._place.names.tag in server.tags
        return self._place.servers.desktop_of(server) if ours else None

    def desktop_named(self, name: str) -> DesktopId | None:
        return self._place.names.desktop_named(name)

    def describe(self, server: NovaServer, port: Port | None) -> Server | None:
        """Describe a server from memory; None also for one of which more could be told, so that it is looked at by itself."""
        return None if self._place.why.would_ask(server) else self._place.describe(server, port)
