"""What operators do with a desktop's server besides starting and stopping it: shelve, rebuild, snapshot, resize, console.

Each is one write that Nova carries out by itself; its state is seen in the next observation.
"""

from __future__ import annotations

from beamdesk.adapters.openstack.config import OpenStackConfig
from beamdesk.adapters.openstack.connection import Connection
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack.lookups import Lookups
from beamdesk.adapters.openstack.records import NovaServer, mapping, text
from beamdesk.adapters.openstack.servers import Servers
from beamdesk.adapters.openstack.userdata import user_data
from beamdesk.domain.errors import CloudError, CloudRefused, NotSupported
from beamdesk.domain.server import ServerStatus
from beamdesk.ports.cloud import ServerSpec

_SHELVED = ("SHELVED", "SHELVED_OFFLOADED")
_NO_CONSOLE = frozenset({400, 404, 501})


class Operations:
    """Operations in one place. All refuse what is not this deployment's."""

    def __init__(self, connection: Connection, servers: Servers, lookups: Lookups, config: OpenStackConfig) -> None:
        self._connection = connection
        self._servers = servers
        self._lookups = lookups
        self._config = config

    async def shelve(self, uuid: str) -> None:
        """Give the host's share back and keep the disk (as an image, where it is the host's own); shelved already is success."""
        server = await self._present(uuid)
        if server.raw_status not in _SHELVED and not server.task.startswith("shelving"):
            await self._servers.act(uuid, "shelve", "shelve the server")

    async def unshelve(self, uuid: str) -> None:
        """Bring a shelved server back; running is success. Its guest gets no new nonce: `start_server` is for that."""
        server = await self._present(uuid)
        if server.raw_status in _SHELVED and server.task != "unshelving":
            await self._servers.act(uuid, "unshelve", "unshelve the server")

    async def rebuild(self, uuid: str, spec: ServerSpec) -> None:
        """Give the server a fresh root disk of ``spec.image_ref`` and a new nonce; address and home stay."""
        server = await self._present(uuid)
        if self._servers.desktop_of(server) != spec.desktop_id:
            raise CloudRefused("The server does not belong to this desktop.")
        if not server.image:
            raise NotSupported("A server that boots from a volume is not rebuilt here. Delete the server and make it again.")
        body = {"imageRef": spec.image_ref, "user_data": user_data(self._config.guest, spec.desktop_id, spec.nonce)}
        await self._servers.act(uuid, "rebuild", "rebuild the server", body)

    async def snapshot(self, uuid: str, name: str) -> str:
        """Make an image of the server's disk; return Glance's id. The home volume is not in it."""
        await self._present(uuid)
        reply = await self._servers.act(uuid, "createImage", "make a snapshot", {"name": name})
        image = text(reply, "image_id")
        if not image:
            raise CloudError("Nova makes a snapshot and does not say which. An operator finds it in Glance by its name.")
        return image

    async def resize(self, uuid: str, spec: ServerSpec) -> None:
        """Move the server to the size ``spec.flavor_ref``; `confirm_resize` makes it final once the server runs."""
        await self._present(uuid)
        flavor = await self._lookups.flavor(spec.flavor_ref)
        await self._servers.act(uuid, "resize", "resize the server", {"flavorRef": flavor})

    async def confirm_resize(self, uuid: str) -> bool:
        """Make a resize final; return whether there was one to confirm."""
        server = await self._present(uuid)
        if server.raw_status != "VERIFY_RESIZE":
            return False
        await self._servers.act(uuid, "confirmResize", "make the new size final")
        return True

    async def console_url(self, uuid: str) -> str:
        """Return the address of the server's screen before any agent runs; it holds a token that is worth the screen.

        Raises:
            NotSupported: the cloud has no such console. CloudRefused: the server is off, whatever the cloud would answer.
        """
        if (await self._present(uuid)).status is ServerStatus.SHUTOFF:
            raise CloudRefused("The server is off and has no screen. Start the desktop first.")
        body = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
        path = f"/servers/{uuid}/remote-consoles"
        reply = await self._connection.call(Service.COMPUTE, "POST", path, "open the console", body=body, accept=_NO_CONSOLE)
        url = text(mapping(reply.data, "remote_console"), "url")
        if not url.startswith(("https://", "http://")):
            raise NotSupported(f"This cloud has no console by noVNC. An operator must enable it in Nova. (Nova: {reply.message})")
        return url

    async def _present(self, uuid: str) -> NovaServer:
        server = await self._servers.mine(uuid)
        if server is None or server.status is ServerStatus.DELETING:
            raise CloudRefused("The server is gone.")
        return server
