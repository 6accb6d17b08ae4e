"""Why no host took a desktop, as far as the cloud tells. The filters themselves tell only the scheduler's log.

With an administrator's or a reader's rights every host is eliminated by the first thing that it lacks (`refusals`): people get the
counts, operators the names, in the log and by ``beamdesk openstack why``. With the right to ask Placement only, the resource that
is short is told. Without rights nothing is added to what Nova says, and nobody is asked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from beamdesk.adapters.openstack.config import Boot, OpenStackConfig
from beamdesk.adapters.openstack.connection import Connection, Json
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack.records import NovaServer
from beamdesk.adapters.openstack.refusals import Refusals, Wanted, eliminate
from beamdesk.adapters.openstack.why_ask import Rooms, read_hosts, read_wanted
from beamdesk.domain.errors import CloudError, CloudRefused, CloudUnavailable
from beamdesk.domain.server import Remedy, ServerStatus

log = structlog.get_logger("beamdesk.openstack")

NO_HOST = "no valid host"
_MOST_REMEMBERED = 1000
_SAME_S = 10.0
"""Servers that ask for the same within this time get the same answer: a storm without room costs few questions."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is known, in words, and what helps."""

    words: str
    remedy: Remedy


class Why:
    """What is told about servers that no host took, in one place."""

    def __init__(self, connection: Connection, config: OpenStackConfig, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._config = config
        self._monotonic = monotonic
        self._told: dict[str, Told] = {}
        self._same: dict[object, tuple[float, Told]] = {}
        self._may_ask = True
        self._may_list_hosts = True

    def told(self, uuid: str) -> Told | None:
        """Return what is known of a server."""
        return self._told.get(uuid)

    def would_ask(self, server: NovaServer) -> bool:
        """Tell whether there is something to learn about a server."""
        lost = server.status is ServerStatus.ERROR and NO_HOST in server.fault.lower()
        return lost and self._may_ask and server.uuid not in self._told

    async def learn(self, servers: tuple[NovaServer, ...]) -> None:
        """Ask about each server that found no host and was not asked about yet. Never raises: the fault stands without it."""
        for server in servers:
            if self.would_ask(server):
                try:
                    told = await self._about(server)
                except CloudUnavailable:
                    return
                except CloudError as error:
                    log.info("placement.not_ours_to_ask", cause=error.message)
                    self._may_ask = False
                    return
                if len(self._told) >= _MOST_REMEMBERED:
                    self._told.clear()
                self._told[server.uuid] = told

    async def _about(self, server: NovaServer) -> Told:
        key = (server.size, tuple(sorted(server.specs.items())), server.image)
        now = self._monotonic()
        self._same = {known: entry for known, entry in self._same.items() if now < entry[0]}
        if key not in self._same:
            wanted = read_wanted(
                server.size,
                server.specs,
                await self._image(server.image),
                self._config.pci_aliases,
                self._connection.place.availability_zone,
                local_disk=self._config.boot is Boot.IMAGE,
            )
            self._same[key] = (now + _SAME_S, await self._explain(wanted, server.uuid))
        return self._same[key][1]

    async def _image(self, image: str) -> Json:
        if not image:
            return {}
        reply = await self._connection.call(
            Service.IMAGE, "GET", f"/images/{image}", "show the image", accept=frozenset({403, 404})
        )
        return reply.data

    async def _explain(self, wanted: Wanted, uuid: str) -> Told:
        refusals = await self.refusals(wanted)
        if refusals is None:
            return await self._short(wanted)
        log.warning("server.no_host", server=uuid, hosts=dict(refusals.why), left=refusals.left)
        return Told(refusals.words(), refusals.remedy)

    async def refusals(self, wanted: Wanted) -> Refusals | None:
        """Eliminate all hosts; None where the account may not list them.

        Raises:
            CloudError: Placement may not be asked, or does not answer.
        """
        if not self._may_list_hosts:
            return None
        try:
            hosts = await read_hosts(self._connection)
        except CloudRefused as error:
            log.info("hosts.not_ours_to_list", cause=error.message)
            self._may_list_hosts = False
            return None
        rooms = Rooms(self._connection)
        return eliminate(hosts, wanted, await rooms.read(wanted), await rooms.cards(wanted))

    async def _short(self, wanted: Wanted) -> Told:
        """Say what is short by Placement alone: the first thing that nobody has together with all before it."""
        for lack, roots in await Rooms(self._connection).read(wanted):
            if not roots:
                return Told(f"No host has room: each {lack.one}.", Remedy.PERSON)
        rest = "Some have room for what it asks, and the scheduler refused them for another reason (GPU, zone, image)."
        return Told(rest, Remedy.LATER)
