"""The OpenStack driver: servers for desktops in the projects, regions and clouds that the settings name.

Implements :class:`beamdesk.ports.cloud.Cloud` and holds no state but caches. A server's id is ``place:uuid``. What does not name a
place asks all of them at once; what one of them cannot tell makes an observation incomplete, and a question that needs all of them
fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from beamdesk.adapters.openstack.config import OpenStackConfig
from beamdesk.adapters.openstack.names import split_server_id
from beamdesk.adapters.openstack.place import PlaceDriver
from beamdesk.domain.errors import CloudError, CloudRefused, CloudUnavailable
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.server import Observation, Server
from beamdesk.ports.cloud import Capacity, News, ServerSpec

T = TypeVar("T")
UNLIMITED = 10**9
_UNSURE = "A part of the cloud does not tell whether the desktop has a server there. Beamdesk looks again."


class OpenStackCloud:
    """Servers of one deployment on OpenStack."""

    def __init__(self, config: OpenStackConfig, deployment_id: str) -> None:
        """Read clouds.yaml; no service is asked yet.

        Raises:
            ConfigurationError: a place names no usable cloud.
        """
        self.places = {place.name: PlaceDriver(place, config, deployment_id) for place in config.places}

    async def create_server(self, spec: ServerSpec) -> Server:
        """Make the desktop's server in the first place that takes its experiment, or return the one that exists anywhere."""
        chosen = next((place for place in self.places.values() if place.place.takes(spec.experiment)), None)
        if chosen is None:
            raise CloudRefused("No project in OpenStack takes this experiment. An operator must add it to openstack.places.")
        others = [place for place in self.places.values() if place is not chosen]
        elsewhere = await self._ask_all([place.watch.look(spec.desktop_id) for place in others])
        told = [answer for answer in elsewhere if isinstance(answer, Observation)]
        found = [server for observation in told for server in observation.servers]
        if not found and not (len(told) == len(others) and all(observation.complete for observation in told)):
            silent = any(isinstance(answer, CloudUnavailable) for answer in elsewhere)
            raise (CloudUnavailable if silent else CloudError)(_UNSURE)
        return min(found, key=lambda server: (server.created_at, server.id)) if found else await chosen.create(spec)

    async def start_server(self, server_id: ServerId, spec: ServerSpec) -> None:
        """Start a stopped server; running already is success."""
        place, uuid = self._existing(server_id)
        await place.power.start(uuid, spec)

    async def stop_server(self, server_id: ServerId) -> None:
        """Stop the server; absent or stopped is success."""
        if at := self._at(server_id):
            await at[0].power.stop(at[1])
        else:
            await self.prove()  # "absent" is only true where somebody answers

    async def delete_server(self, server_id: ServerId) -> None:
        """Delete the server and its port, keep the home volume; absent is success."""
        if at := self._at(server_id):
            await at[0].delete(at[1])
        else:
            await self.prove()  # "absent" is only true where somebody answers

    async def delete_home(self, desktop_id: DesktopId) -> None:
        """Delete the home volume and whatever else the desktop left; absent is success; refused while a server uses it."""
        await _everywhere([place.delete_home(desktop_id) for place in self.places.values()])

    async def find_servers(self, desktop_id: DesktopId) -> Observation:
        """Find the desktop's servers by tag, in every place."""
        return _joined(await self._ask_all([place.watch.see(desktop_id) for place in self.places.values()]))

    async def server_news(self) -> News:
        """Return whose servers changed since the last call: one request for each place."""
        told = await _everywhere([place.watch.news() for place in self.places.values()])
        return News(frozenset[DesktopId]().union(*(one.desktops for one in told)), any(one.everything for one in told))

    async def prove(self) -> None:
        """Ask each place's Nova for one server's name."""
        await _everywhere([place.servers.prove() for place in self.places.values()])

    def news_is_away(self) -> None:
        """Tell nothing from memory until news comes again."""
        for place in self.places.values():
            place.watch.distrust()

    async def list_servers(self) -> Observation:
        """List every server of this deployment: two requests for each place and 500 servers."""
        return _joined(await self._ask_all([place.observe_all() for place in self.places.values()]))

    async def list_homes(self) -> tuple[DesktopId, ...]:
        """List the desktops that left something behind or have a home volume."""
        homes = await _everywhere([place.homes() for place in self.places.values()])
        return tuple(sorted(frozenset[DesktopId]().union(*homes)))

    async def console_log(self, server_id: ServerId, lines: int = 200) -> str:
        """Return the last lines of the server's console."""
        at = self._at(server_id)
        return await at[0].console(at[1], lines) if at and lines > 0 else ""

    async def shelve_server(self, server_id: ServerId) -> None:
        """Give the host's share back and keep the disk."""
        place, uuid = self._existing(server_id)
        await place.operations.shelve(uuid)

    async def unshelve_server(self, server_id: ServerId) -> None:
        """Bring a shelved server back."""
        place, uuid = self._existing(server_id)
        await place.operations.unshelve(uuid)

    async def rebuild_server(self, server_id: ServerId, spec: ServerSpec) -> None:
        """Give the server a fresh root disk and its guest a new nonce."""
        place, uuid = self._existing(server_id)
        await place.operations.rebuild(uuid, spec)

    async def snapshot_server(self, server_id: ServerId, name: str) -> str:
        """Make an image of the server's disk; return its reference."""
        place, uuid = self._existing(server_id)
        return await place.operations.snapshot(uuid, name)

    async def resize_server(self, server_id: ServerId, spec: ServerSpec) -> None:
        """Move the server to another size."""
        place, uuid = self._existing(server_id)
        await place.operations.resize(uuid, spec)

    async def confirm_resize(self, server_id: ServerId) -> bool:
        """Make a resize final; tell whether there was one."""
        place, uuid = self._existing(server_id)
        return await place.operations.confirm_resize(uuid)

    async def console_url(self, server_id: ServerId) -> str:
        """Return the address of the server's screen."""
        place, uuid = self._existing(server_id)
        return await place.operations.console_url(uuid)

    async def capacity(self) -> Capacity | None:
        """Return what the projects' quotas allow; None where they limit nothing: the cloud itself refuses.

        Beamdesk's projects should be its own: what others run in them is not subtracted. Cards have no quota of their own.
        """
        limits = await _everywhere([place.limits() for place in self.places.values()])
        vcpus = [one.get("maxTotalCores", -1) for one in limits]
        memory = [one.get("maxTotalRAMSize", -1) for one in limits]
        if min(vcpus) < 0 and min(memory) < 0:
            return None
        return Capacity(_total(vcpus), _total(memory), UNLIMITED, UNLIMITED)

    async def close(self) -> None:
        """Release the connections."""
        for place in self.places.values():
            place.close()

    def _existing(self, server_id: ServerId) -> tuple[PlaceDriver, str]:
        at = self._at(server_id)
        if at is None:
            raise CloudRefused("There is no such server.")
        return at

    def _at(self, server_id: ServerId) -> tuple[PlaceDriver, str] | None:
        """Return where a server is; None for what this driver never gave out."""
        split = split_server_id(server_id)
        if split is None:
            return None
        if split[0] not in self.places:
            raise CloudRefused(f"The server is in the place {split[0]}, which openstack.places does not have any more.")
        return self.places[split[0]], split[1]

    @staticmethod
    async def _ask_all(looks: Sequence[Awaitable[Observation]]) -> list[Observation | CloudError]:
        answers = await asyncio.gather(*looks, return_exceptions=True)
        for error in answers:
            if isinstance(error, BaseException) and not isinstance(error, CloudError):
                raise error
        return [answer for answer in answers if isinstance(answer, (Observation, CloudError))]


def _joined(answers: Sequence[Observation | CloudError]) -> Observation:
    """Join what the places told; it is incomplete where one of them did not answer, and an error where none did."""
    seen = [answer for answer in answers if isinstance(answer, Observation)]
    errors = [answer for answer in answers if isinstance(answer, CloudError)]
    if errors and not seen:
        raise errors[0]
    complete = not errors and all(observation.complete for observation in seen)
    return Observation(tuple(server for observation in seen for server in observation.servers), complete)


async def _everywhere(questions: Sequence[Awaitable[T]]) -> list[T]:
    """Ask all at once and wait for all; the first error counts."""
    answers = await asyncio.gather(*questions, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def _total(limits: Sequence[int]) -> int:
    return UNLIMITED if min(limits) < 0 else sum(limits)
