"""Reads the lists that the catalogue is made of, Glance's images and Nova's flavors: one call for each page of 500."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from beamdesk.adapters.openstack.connection import Connection
from beamdesk.adapters.openstack.errors import Service
from beamdesk.domain.errors import CloudError

Raw = Mapping[str, Any]
_LIMIT = 500
_PAGES = 20


async def read_lists(connection: Connection) -> tuple[list[Raw], list[Raw]]:
    """Return all images and all flavors that the account sees.

    Raises:
        CloudError: a service does not answer or refuses.
    """
    images = await _read(connection, Service.IMAGE, "/images", "images")
    return images, await _read(connection, Service.COMPUTE, "/flavors/detail", "flavors")


async def _read(connection: Connection, service: Service, path: str, key: str) -> list[Raw]:
    found: list[Raw] = []
    query = {"limit": str(_LIMIT)}
    for _ in range(_PAGES):
        reply = await connection.call(service, "GET", path, f"list {key}", query=query)
        page = cast("list[Raw]", reply.data.get(key) or [])
        found += page
        # Glance says `next`, Nova `flavors_links`; either may give shorter pages than asked for.
        if not page or not (reply.data.get("next") or reply.data.get(f"{key}_links")):
            return found
        query["marker"] = str(page[-1].get("id"))
    raise CloudError(f"OpenStack's list of {key} does not end.")
