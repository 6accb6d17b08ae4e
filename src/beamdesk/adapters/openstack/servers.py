"""Nova's servers of one deployment in one place: list, make, act, delete. Every list is filtered by our tag."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from beamdesk.adapters.openstack.connection import Connection, Json
from beamdesk.adapters.openstack.errors import Service
from beamdesk.adapters.openstack.names import DEPLOYMENT_KEY, DESKTOP_KEY, Names
from beamdesk.adapters.openstack.records import NovaServer, mapping, sequence, text
from beamdesk.domain.errors import CloudError, CloudRefused, CloudUnavailable
from beamdesk.domain.ids import DesktopId

_ABSENT = frozenset({404})
_BUSY = frozenset({409})
NEWS_S = 30.0
"""So long news may take: whoever waits for it decides how long that is worth waiting for."""
_PROVE_S = 5.0
_NEWS = "2.26"
"""The microversion of news: it has tags. What later ones add costs nova-api a third more for each server; only looks tell it."""


class Servers:
    """Servers that carry this deployment's tag, and no others."""

    def __init__(self, connection: Connection, names: Names, wrote: Callable[[str], None] = lambda _: None) -> None:
        """``wrote`` is told of each server that was given an order, whatever came of it."""
        self._connection = connection
        self._names = names
        self._wrote = wrote

    async def listed(self, desktop_id: DesktopId | None = None) -> tuple[NovaServer, ...]:
        """List the servers of a desktop, or all: one request for each 500."""
        tags = self._names.tag if desktop_id is None else f"{self._names.tag},{self._names.desktop_tag(desktop_id)}"
        return tuple(server for server in (await self._listed({"tags": tags}))[0] if self._names.tag in server.tags)

    async def among(self, desktop_ids: Iterable[DesktopId]) -> tuple[NovaServer, ...]:
        """List the servers of some desktops, with one request."""
        tags = ",".join(self._names.desktop_tag(one) for one in desktop_ids)
        servers = (await self._listed({"tags": self._names.tag, "tags-any": tags}))[0]
        return tuple(server for server in servers if self._names.tag in server.tags)

    async def clock(self) -> datetime | None:
        """Return Nova's own time, by its last answer; None where its answers do not tell it."""
        if self._connection.clock(Service.COMPUTE) is None:
            await self.prove()
        return self._connection.clock(Service.COMPUTE)

    async def prove(self) -> None:
        """Ask Nova for the name of one server, whichever: the cheapest question that its database has to answer."""
        query = {"limit": "1"}
        await self._connection.call(Service.COMPUTE, "GET", "/servers", "show that it answers", query=query, ahead=_PROVE_S)

    async def changed(self, since: datetime) -> tuple[tuple[NovaServer, ...], datetime | None]:
        """List what changed since a time, deleted servers included; with Nova's own time before the list, where it tells it.

        Nova takes the tags off a server that it deletes, so this asks by name, and other deployments' servers are among them.
        """
        query = {"name": "^beamdesk-", "changes-since": since.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return await self._listed(query, version=_NEWS, ahead=NEWS_S)

    async def _listed(
        self, query: dict[str, str], *, version: str | None = None, ahead: float = 0.0
    ) -> tuple[tuple[NovaServer, ...], datetime | None]:
        found: list[NovaServer] = []
        first: datetime | None = None
        async for reply in self._connection.pages(
            Service.COMPUTE, "/servers/detail", "servers", "list the servers", query, version=version, ahead=ahead
        ):
            found += [NovaServer.read(record) for record in sequence(reply.data, "servers")]
            first = first or reply.clock
        return tuple(found), first

    async def get(self, uuid: str) -> NovaServer | None:
        """Return a server by id, whosever it is; None = Nova knows none."""
        reply = await self._connection.call(Service.COMPUTE, "GET", f"/servers/{uuid}", "show the server", accept=_ABSENT)
        return None if reply.status == 404 else NovaServer.read(mapping(reply.data, "server"))

    async def mine(self, uuid: str) -> NovaServer | None:
        """Return a server of this deployment by id; None = there is none.

        Raises:
            CloudRefused: it belongs to somebody else. CloudError: Nova cannot tell, because its cell is down.
        """
        server = await self.get(uuid)
        if server is None:
            return None
        if server.partial:
            raise CloudError("A part of the cloud does not answer, and the server is in it. Beamdesk tries again.")
        if self._names.tag not in server.tags and server.metadata.get(DEPLOYMENT_KEY) != self._names.deployment:
            raise CloudRefused("The server does not belong to this deployment.")
        return server

    def desktop_of(self, server: NovaServer) -> DesktopId | None:
        """Return whose server it is."""
        marked = server.metadata.get(DESKTOP_KEY)
        return self._names.desktop_of(server.tags) or (DesktopId(marked) if marked else None)

    async def create(self, body: Json, hints: Mapping[str, str]) -> tuple[str, datetime]:
        """Make a server; return Nova's id and about when it was made. The answer's password is thrown away.

        ``hints`` reach the filters and weighers of nova-scheduler; it keeps them with the server, for each time that it is placed.
        """
        order = {"server": body, **({"os:scheduler_hints": dict(hints)} if hints else {})}
        reply = await self._connection.call(Service.COMPUTE, "POST", "/servers", "make the server", body=order)
        uuid = text(mapping(reply.data, "server"), "id")
        if not uuid:
            raise CloudUnavailable("Nova takes the order for a server and does not say which. Beamdesk looks again.")
        return uuid, reply.clock or datetime.now(UTC)

    def just_made(self, uuid: str, desktop_id: DesktopId, made_at: datetime) -> NovaServer:
        """Return a server as Nova would show it that has just taken the order for it."""
        tags, marks = (self._names.tag, self._names.desktop_tag(desktop_id)), self._names.metadata(desktop_id)
        name = self._names.resource(desktop_id)
        return NovaServer(uuid, "BUILD", "scheduling", made_at, tags, marks, "", "", partial=False, launched=False, name=name)

    async def delete(self, uuid: str) -> None:
        """Delete a server; absent is success."""
        try:
            await self._connection.call(Service.COMPUTE, "DELETE", f"/servers/{uuid}", "delete the server", accept=_ABSENT)
        finally:
            self._wrote(uuid)

    async def act(self, uuid: str, action: str, doing: str, argument: Json | None = None, *, busy_ok: bool = False) -> Json:
        """Do one of Nova's actions. ``busy_ok``: a state in which it makes no sense is no error."""
        path, accept = f"/servers/{uuid}/action", _BUSY if busy_ok else frozenset()
        try:
            reply = await self._connection.call(Service.COMPUTE, "POST", path, doing, body={action: argument}, accept=accept)
        finally:
            self._wrote(uuid)
        return reply.data

    async def attach(self, uuid: str, port: str) -> None:
        """Plug a port into a server."""
        path, body = f"/servers/{uuid}/os-interface", {"interfaceAttachment": {"port_id": port}}
        try:
            await self._connection.call(Service.COMPUTE, "POST", path, "connect the server to the network", body=body)
        finally:
            self._wrote(uuid)

    async def mark(self, uuid: str, metadata: dict[str, str]) -> bool:
        """Add metadata; return false where Nova's state of the server does not allow it now."""
        path, body = f"/servers/{uuid}/metadata", {"metadata": metadata}
        reply = await self._connection.call(Service.COMPUTE, "POST", path, "mark the server", body=body, accept=_BUSY)
        return reply.status not in _BUSY
