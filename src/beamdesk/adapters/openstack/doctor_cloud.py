"""The doctor's look at a real cloud, with the driver's own connection: `beamdesk.adapters.openstack.doctor_probe.Probe`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from keystoneauth1 import exceptions as ksa
from keystoneauth1.identity.base import BaseIdentityPlugin

from beamdesk.adapters.openstack.config import OpenStackConfig, Place
from beamdesk.adapters.openstack.connection import Connection, Reply, open_region
from beamdesk.adapters.openstack.doctor_probe import Access, Denied, Raw
from beamdesk.adapters.openstack.errors import NAMES, Service
from beamdesk.domain.errors import CloudError
from beamdesk.ports.clock import Clock

_REFUSED = frozenset({403, 404})
PLACEMENT = "1.29"
"""Placement's microversion with nested providers in allocation candidates."""
_PAGES = 100
_CLOCKS = {Service.COMPUTE: "/flavors", Service.NETWORK: "/networks", Service.IMAGE: "/images", Service.VOLUME: "/types"}
"""What each service is asked for the sake of its answer's date."""


@dataclass(slots=True)
class CloudProbe:
    """A `Probe` of a real cloud. ``administrator``: another account of the same place for what the first may not see."""

    place: Place
    config: OpenStackConfig
    connection: Connection
    clock: Clock
    administrator: Connection | None = None
    _kept: dict[object, asyncio.Future[Reply]] = field(default_factory=dict)
    _access: Access | None = None

    async def get(
        self,
        service: Service,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        admin: bool = False,
        version: str | None = None,
    ) -> Raw:
        """See `Probe.get`."""
        return (await self._reply(service, path, query or {}, admin=admin, version=version)).data

    async def _reply(self, service: Service, path: str, query: Mapping[str, str], *, admin: bool, version: str | None) -> Reply:
        key = (service, path, tuple(sorted(query.items())), admin)
        if key not in self._kept:
            connection = (self.administrator if admin else None) or self.connection
            version = version or (PLACEMENT if service is Service.PLACEMENT else None)
            doing = f"show {path.strip('/') or 'itself'}"
            call = connection.call(service, "GET", path, doing, query=query, accept=_REFUSED, version=version)
            self._kept[key] = asyncio.ensure_future(call)
        reply = await self._kept[key]
        if reply.status == 403:
            raise Denied(f"{NAMES[service]} does not show {path} to this account")
        return reply

    async def listing(
        self, service: Service, path: str, key: str, *, query: Mapping[str, str] | None = None, admin: bool = False
    ) -> list[Raw]:
        """See `Probe.listing`."""
        found: list[Raw] = []
        asked = {**(query or {}), "limit": "500"}
        for _ in range(_PAGES):
            data = await self.get(service, path, query=asked, admin=admin)
            page = data.get(key) or []
            found += page
            if not page or not (data.get("next") or data.get(f"{key}_links")):
                return found
            asked = {**asked, "marker": str(page[-1].get("id"))}
        raise CloudError(f"{NAMES[service]}'s list {path} does not end.")

    async def access(self) -> Access:
        """See `Probe.access`."""
        if self._access is None:
            await self.connection.project_id()  # the driver's own way to sign in, with its words for what goes wrong
            self._access = await asyncio.to_thread(partial(_access, self.place, self.config, self.clock))
        return self._access

    async def clocks(self) -> Mapping[Service, float | None]:
        """See `Probe.clocks`."""
        return {service: await self._ahead(service) for service in _CLOCKS if await self.connection.has(service)}

    async def _ahead(self, service: Service) -> float | None:
        before = self.clock.now()
        query = {"limit": "1"}
        reply = await self.connection.call(service, "GET", _CLOCKS[service], "tell its time", query=query, accept=_REFUSED)
        middle = before + (self.clock.now() - before) / 2
        return None if reply.clock is None else (reply.clock - middle).total_seconds()

    async def microversions(self) -> str:
        """See `Probe.microversions`."""
        return await self.connection.microversion()


def _access(place: Place, config: OpenStackConfig, clock: Clock) -> Access:
    region = open_region(place, config)
    session = region.get_session()  # a new one: its token is made now, and says when
    try:
        before = clock.now()
        found = cast("BaseIdentityPlugin", session.auth).get_access(session)
        middle = before + (clock.now() - before) / 2
        services = frozenset(
            kind
            for kind in (str(one) for one in Service)
            if session.get_endpoint(
                service_type=region.get_service_type(kind),
                interface=region.get_interface(kind),
                region_name=region.get_region_name(kind),
            )
        )
    except ksa.ClientException as error:
        raise CloudError(f"Keystone does not let Beamdesk in ({type(error).__name__}).") from error
    return Access(
        user=str(found.username),
        project=str(found.project_name or ""),
        project_id=str(found.project_id or ""),
        roles=tuple(sorted(found.role_names or ())),
        method=str(region.config.get("auth_type", "password")),
        services=services,
        ahead_s=(found.issued - middle).total_seconds() if found.issued else None,
    )
