"""Names of the settings to ids of the cloud: the network, the flavors. Asked once in a while, together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from beamdesk.adapters.openstack.connection import Connection, Json
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack.records import mapping, sequence, text
from beamdesk.domain.errors import CloudRefused

FRESH_S = 300.0
FLAVOR_SPEC = "beamdesk:flavor"


class Lookups:
    """Ids by name in one place. What was not found is asked for again at once: it may just have been made."""

    def __init__(
        self, connection: Connection, flavors: Mapping[str, str], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._flavors = flavors
        self._monotonic = monotonic
        self._until = 0.0
        self._ids: dict[str, str] = {}
        self._network = ""
        self._looking = asyncio.Lock()

    async def network(self) -> str:
        """Return the id of the desktops' network.

        Raises:
            CloudRefused: there is none of the name in the settings, or more than one.
        """
        async with self._looking:  # who comes meanwhile takes what is found
            return self._network or await self._find_network(self._connection.place.network)

    async def _find_network(self, wanted: str) -> str:
        for key in ("id", "name"):
            query = {key: wanted, "fields": "id"}
            reply = await self._connection.call(Service.NETWORK, "GET", "/networks", "find the network", query=query)
            found = sequence(reply.data, "networks")
            if len(found) > 1:
                raise CloudRefused(
                    f"OpenStack has more than one network {wanted}. An operator must set openstack.network to its id."
                )
            if found:
                self._network = text(found[0], "id")
                return self._network
        raise CloudRefused(f"OpenStack has no network {wanted}. An operator must correct openstack.network.")

    async def flavor(self, offered: str) -> str:
        """Return the id of the Nova flavor behind an offered one.

        Raises:
            CloudRefused: there is none.
        """
        async with self._looking:
            if offered not in self._ids or self._monotonic() >= self._until:
                await self._read_flavors()
        if offered not in self._ids:
            wanted = self._flavors.get(offered, offered)
            raise CloudRefused(f"OpenStack has no flavor {wanted} for the size {offered}. Choose another size, or ask an operator.")
        return self._ids[offered]

    async def _read_flavors(self) -> None:
        found: list[Json] = []
        pages = self._connection.pages(Service.COMPUTE, "/flavors/detail", "flavors", "list the flavors", {})
        async for page in pages:
            found += sequence(page.data, "flavors")
        by_name = {text(flavor, "name"): text(flavor, "id") for flavor in found}
        specs = {text(mapping(flavor, "extra_specs"), FLAVOR_SPEC): text(flavor, "id") for flavor in found}
        chosen = {ours: by_name[theirs] for ours, theirs in self._flavors.items() if theirs in by_name}
        given = set(self._flavors)
        by_name = {name: uuid for name, uuid in by_name.items() if name not in given}
        self._ids = {**by_name, **{key: value for key, value in specs.items() if key and key not in given}, **chosen}
        self._until = self._monotonic() + FRESH_S

    def forget(self) -> None:
        """Ask again for everything."""
        self._until, self._network = 0.0, ""
