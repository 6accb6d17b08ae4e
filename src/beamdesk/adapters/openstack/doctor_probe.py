"""How the doctor looks at a cloud: reads only, with Beamdesk's own account, and with an administrator's where one is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from beamdesk.adapters.openstack.config import OpenStackConfig, Place
from beamdesk.adapters.openstack.errors import Service
from beamdesk.domain.errors import CloudRefused
from beamdesk.ports.clock import Clock

Raw = Mapping[str, Any]


class Denied(CloudRefused):
    """The account may not see this."""


@dataclass(frozen=True, slots=True)
class Access:
    """Whom the cloud takes us for. ``method``: how it signs in; ``services``: types in the catalogue that have an address here.

    ``ahead_s``: how many seconds the cloud's clock is ahead of ours, by the time in the token; None = it does not tell.
    """

    user: str
    project: str
    project_id: str
    roles: tuple[str, ...]
    method: str
    services: frozenset[str]
    ahead_s: float | None = None


class Probe(Protocol):
    """Read access to one place. Answers are kept: a check may ask again for nothing."""

    place: Place
    config: OpenStackConfig
    clock: Clock

    async def get(
        self,
        service: Service,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        admin: bool = False,
        version: str | None = None,
    ) -> Raw:
        """Return one answer; empty for what does not exist.

        Raises:
            Denied: the account may not. CloudError: the service does not answer.
        """

    async def listing(
        self, service: Service, path: str, key: str, *, query: Mapping[str, str] | None = None, admin: bool = False
    ) -> list[Raw]:
        """Return a whole list, page by page. Raises as `get`."""

    async def access(self) -> Access:
        """Sign in. Raises CloudError."""

    async def clocks(self) -> Mapping[Service, float | None]:
        """Return by how many seconds each service's clock is ahead of ours, by the Date of its answers; None = it tells none.

        Raises CloudError.
        """

    async def microversions(self) -> str:
        """Return the newest microversion of Nova that both know. Raises CloudError."""
