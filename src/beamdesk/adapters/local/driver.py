"""The local driver: servers as containers on this machine, through the privileged helper.

Implements :class:`beamdesk.ports.cloud.Cloud`. Holds no state: the helper knows which servers exist. A server's id is its
desktop's id.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from beamdesk.adapters.local.client import HelperClient, HelperRefused
from beamdesk.domain.errors import CloudError, CloudRefused, NotSupported
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.ports.cloud import Capacity, Observation, Server, ServerAccount, ServerSpec, ServerStatus
from beamdesk.protocol.helper import (
    ByDesktop,
    DataMount,
    GpuCard,
    HelperAccount,
    HelperServer,
    HostFacts,
    Op,
    Reply,
    Request,
    ServerState,
    Start,
)
from beamdesk.scheduling.cards import Card, CardMode
from beamdesk.scheduling.host import HostFacts as Place
from beamdesk.srm import catalogue

_ANY_CARD = "any"
_MODEL = "GPU"
_STATUS = {
    ServerState.RUNNING: ServerStatus.ACTIVE,
    ServerState.STOPPED: ServerStatus.SHUTOFF,
    ServerState.FAILED: ServerStatus.ERROR,
}


@dataclass(frozen=True, slots=True)
class LocalCloud:
    """Servers of one deployment on this machine. Starting takes about 0.1 s, stopping less than 1 s; nothing is polled.

    ``name``: what the scheduler calls this machine. ``aggregates``, ``dedicated``: whom it serves, as with a host of Nova.
    """

    helper: HelperClient
    deployment_id: str
    name: str = "this-machine"
    aggregates: frozenset[str] = frozenset()
    dedicated: bool = False

    async def create_server(self, spec: ServerSpec) -> Server:
        """Start the desktop's container, or return the one that exists, in whatever state."""
        found = await self._find(spec.desktop_id)
        return _server(found) if found else await self._start(spec)

    async def start_server(self, server_id: ServerId, spec: ServerSpec) -> None:
        """Start a stopped container with a fresh root file system, its old home and a fresh nonce."""
        if str(server_id) != str(spec.desktop_id):
            raise CloudRefused("The server does not belong to this desktop.")
        await self._start(spec)

    async def stop_server(self, server_id: ServerId) -> None:
        """Stop the container; its home stays."""
        await self._on_desktop(Op.STOP, server_id)

    async def delete_server(self, server_id: ServerId) -> None:
        """Stop and forget the container; its home stays."""
        await self._on_desktop(Op.DELETE, server_id)

    async def delete_home(self, desktop_id: DesktopId) -> None:
        """Delete the home's image file."""
        await self._on_desktop(Op.DELETE_HOME, desktop_id)

    async def find_servers(self, desktop_id: DesktopId) -> Observation:
        """Find the desktop's container; there is at most one."""
        found = await self._find(desktop_id)
        return Observation((_server(found),) if found else ())

    async def list_servers(self) -> Observation:
        """List this deployment's containers with one call."""
        return Observation(tuple(_server(item) for item in await self._list()))

    async def list_homes(self) -> tuple[DesktopId, ...]:
        """List the desktops of this deployment that have a home volume."""
        homes = (await self.helper.call(Request(op=Op.LIST_HOMES))).homes or ()
        return tuple(DesktopId(home.desktop_id) for home in homes if home.deployment_id == self.deployment_id)

    async def console_log(self, server_id: ServerId, lines: int = 200) -> str:
        """Return the last lines that the container wrote."""
        reply = await self._on_desktop(Op.CONSOLE, server_id)
        return "\n".join(reply.text.splitlines()[-lines:]) if lines > 0 else ""

    async def capacity(self) -> Capacity | None:
        """Return what desktops may use on this machine in total.

        Raises:
            NotSupported: it cannot isolate desktops; the text names what it lacks.
        """
        host = await self._able_host()
        return Capacity(host.vcpus, host.memory_mib, host.disk_gib, len(host.gpus))

    async def _able_host(self) -> HostFacts:
        host = await self.host()
        if host.missing:
            raise NotSupported(f"No desktop can run on this machine: it lacks {', '.join(host.missing)}. Tell the operators.")
        return host

    async def host(self) -> HostFacts:
        """Return what the helper says of this machine, with what it lacks for desktops (``missing``)."""
        host = (await self.helper.call(Request(op=Op.HELLO))).host
        if host is None:
            raise CloudError("The helper's greeting is not understood.")
        return host

    async def hosts(self) -> tuple[Place, ...]:
        """Return this machine as the scheduler sees it. Its cards are driven by its own kernel; what they are, the catalogue says.

        Raises:
            NotSupported: it cannot isolate desktops; the text names what it lacks.
        """
        host = await self._able_host()
        more = {card.name: card for card in host.cards}
        cards = tuple(_card(more.get(name) or GpuCard(name)) for name in host.gpus)
        return (
            Place(
                self.name,
                1000 * host.vcpus,
                host.memory_mib,
                host.disk_gib,
                cards,
                aggregates=self.aggregates,
                images=frozenset(host.images),
                dedicated=self.dedicated,
            ),
        )

    async def close(self) -> None:
        """Do nothing: no connection is held."""

    async def _start(self, spec: ServerSpec) -> Server:
        try:
            start = Start(
                desktop_id=spec.desktop_id,
                deployment_id=self.deployment_id,
                image=spec.image_ref,
                account=helper_account(spec.account),
                mounts=tuple(DataMount(mount.experiment, mount.area, mount.writable) for mount in spec.mounts),
                vcpus=spec.vcpus,
                memory_mib=spec.memory_mib,
                disk_gib=spec.disk_gib,
                gpus=spec.cards or (_ANY_CARD,) * spec.gpus,
                nonce=spec.nonce,
                shared=spec.shared,
            )
        except ValueError as error:
            raise CloudRefused(f"The desktop cannot run on this machine: {error}.") from error
        try:
            reply = await self.helper.call(Request(op=Op.START, start=start))
        except HelperRefused as error:
            if error.helper_code == "no_capacity":  # something else just took it: the same request fits later
                raise CloudError(error.message, helper_code=error.helper_code) from error
            raise
        if reply.server is None:
            raise CloudError("The helper did not say what it started.")
        return _server(reply.server)

    async def _on_desktop(self, op: Op, desktop_id: str) -> Reply:
        try:
            argument = ByDesktop(desktop_id, self.deployment_id)
        except ValueError as error:
            raise CloudRefused(f"Not a server of this machine: {error}.") from error
        return await self.helper.call(Request(op=op, desktop=argument))

    async def _list(self) -> tuple[HelperServer, ...]:
        servers = (await self.helper.call(Request(op=Op.LIST))).servers or ()
        return tuple(server for server in servers if server.deployment_id == self.deployment_id)

    async def _find(self, desktop_id: str) -> HelperServer | None:
        return next((server for server in await self._list() if server.desktop_id == desktop_id), None)


def _card(card: GpuCard) -> Card:
    """Return a card as the scheduler sees it, under its PCI address where that is known.

    A number that is not known is 0, so that no request with a minimum gets such a card.
    """
    known = catalogue.load().find(card.vendor, card.device, card.subsystem)
    facts = (known.model, known.memory_mib, known.cores, known.bandwidth_gbs, known.clock_mhz) if known else (_MODEL, 0, 0, 0, 0)
    return Card(card.address or card.name, *facts, mode=CardMode.HOST)


def helper_account(account: ServerAccount) -> HelperAccount:
    """Return the part of an account that the helper needs."""
    return HelperAccount(login=account.login, uid=account.uid, gid=account.gid, gids=account.gids)


def _server(server: HelperServer) -> Server:
    return Server(
        id=ServerId(server.desktop_id),
        desktop_id=DesktopId(server.desktop_id),
        status=_STATUS[server.state],
        created_at=datetime.fromtimestamp(server.created_at, UTC),
        address=f"unix:{server.stream_socket}" if server.stream_socket else None,
        fault=server.cause,
    )
