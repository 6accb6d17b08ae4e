"""Why no host took a desktop, as far as the cloud tells: Placement knows which resource is short; the filters tell only their log.

Needs the right to ask Placement (an administrator's or a service's role). Without it nothing more is said than Nova says, and it is
not asked again. At most four requests for a server, once.
"""

from __future__ import annotations

import structlog

from beamdesk.adapters.openstack.connection import Connection
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack.records import NovaServer, sequence
from beamdesk.domain.errors import CloudError, CloudUnavailable

log = structlog.get_logger("beamdesk.openstack")

NO_HOST = "no valid host"
_MOST_REMEMBERED = 1000
_VERSION = "1.16"


class Why:
    """What Placement says about servers that no host took, in one place."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._told: dict[str, str] = {}
        self._may_ask = True

    def told(self, uuid: str) -> str:
        """Return what is known; empty = nothing."""
        return self._told.get(uuid, "")

    async def learn(self, servers: tuple[NovaServer, ...]) -> None:
        """Ask about each server that found no host and was not asked about yet. Never raises: the fault stands without it."""
        for server in servers:
            if self._may_ask and server.uuid not in self._told and NO_HOST in server.fault.lower():
                try:
                    words = await self._ask(server)
                except CloudUnavailable:
                    return
                except CloudError as error:
                    log.info("placement.not_ours_to_ask", cause=error.message)
                    self._may_ask = False
                    return
                if len(self._told) >= _MOST_REMEMBERED:
                    self._told.clear()
                self._told[server.uuid] = words

    async def _ask(self, server: NovaServer) -> str:
        wanted = {name: amount for name, amount in zip(("VCPU", "MEMORY_MB", "DISK_GB"), server.size, strict=True) if amount}
        if not wanted:
            return ""
        if await self._fits(wanted):
            return (
                "Some have room for its CPU, memory and disk, and the scheduler refused them for another reason (GPU, zone, image)."
            )
        words = {"VCPU": "vCPUs", "MEMORY_MB": "MiB of memory", "DISK_GB": "GiB of disk"}
        short = [f"{amount} {words[name]}" for name, amount in wanted.items() if not await self._fits({name: amount})]
        return f"None has {' or '.join(short)} free." if short else "None has its CPU, memory and disk free together."

    async def _fits(self, wanted: dict[str, int]) -> bool:
        query = {"resources": ",".join(f"{name}:{amount}" for name, amount in wanted.items()), "limit": "1"}
        path, doing = "/allocation_candidates", "tell which hosts have room"
        reply = await self._connection.call(Service.PLACEMENT, "GET", path, doing, query=query, version=_VERSION)
        return bool(sequence(reply.data, "allocation_requests"))
