"""The compute port: servers for desktops, wherever they run.

Contract (tests/contract/test_cloud_contract.py runs on every driver):

* every call returns as soon as the cloud accepted it; nobody waits for a state here;
* `create_server` finds by tag before it creates: called twice for a desktop there is one server;
* absent is success for stop and delete, and deleting twice is fine;
* `find_servers` tells whether the answer was complete: absence in an incomplete answer proves nothing;
* only resources that carry this deployment's UUID are ever touched or listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.domain.server import Observation, Server, ServerStatus

__all__ = [
    "Capacity",
    "Cloud",
    "News",
    "Observation",
    "Server",
    "ServerAccount",
    "ServerMount",
    "ServerOperations",
    "ServerSpec",
    "ServerStatus",
    "TellsNews",
]


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """The person as a POSIX account in the server."""

    login: str
    uid: int
    gid: int
    gids: tuple[int, ...]
    full_name: str


@dataclass(frozen=True, slots=True)
class ServerMount:
    """A data area of an experiment: ``raw`` (never writable) or ``processed``."""

    experiment: str
    area: str
    writable: bool


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """Everything a driver needs to make the server of one desktop. ``image_ref`` is the driver's own name of the image.

    ``flavor_ref``: the flavor's id on offer, for clouds that have flavors of their own. ``experiment``: decides the project where
    experiments have projects. ``beamline``: the beamline whose networks the server may reach now; empty outside the slot.
    ``host``, ``cards``: where we placed it, for drivers that let us choose; empty = the driver's choice. ``shared``: others have
    parts of the same cards. ``hints``: for a cloud that places servers itself, in the words of its scheduler's plugins
    (docs/reference/scheduling-vocabulary.md). ``first``: no server was ever ordered for this desktop, as far as its store knows; a
    driver that makes sure of that itself need not look for one.
    """

    desktop_id: DesktopId
    image_ref: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    gpus: int
    account: ServerAccount
    mounts: tuple[ServerMount, ...]
    nonce: str
    flavor_ref: str = ""
    experiment: str = ""
    beamline: str = ""
    host: str = ""
    cards: tuple[str, ...] = ()
    shared: bool = False
    hints: Mapping[str, str] = field(default_factory=dict)
    first: bool = False


@dataclass(frozen=True, slots=True)
class Capacity:
    """Totals that desktops may use: vCPUs, memory in MiB, disk in GiB, GPU cards. ``None`` = the cloud decides (no local queue)."""

    vcpus: int
    memory_mib: int
    disk_gib: int
    gpus: int


@dataclass(frozen=True, slots=True)
class News:
    """The desktops whose servers look other than when news was last told. ``everything``: nobody knows which, so any may."""

    desktops: frozenset[DesktopId]
    everything: bool = False


class Cloud(Protocol):
    """A driver. Raises only :class:`beamdesk.domain.errors.CloudError` and its children."""

    async def create_server(self, spec: ServerSpec) -> Server:
        """Create the desktop's server, or return the one that exists. ``created_at`` of one just made is about now."""

    async def start_server(self, server_id: ServerId, spec: ServerSpec) -> None:
        """Start a stopped server; running already is success. ``spec`` carries a fresh nonce for drivers whose guests forget."""

    async def stop_server(self, server_id: ServerId) -> None:
        """Stop the server and keep its home volume; absent or stopped is success."""

    async def delete_server(self, server_id: ServerId) -> None:
        """Delete the server, keep the home volume; absent is success."""

    async def delete_home(self, desktop_id: DesktopId) -> None:
        """Delete the desktop's home volume; absent is success; refused while a server uses it."""

    async def find_servers(self, desktop_id: DesktopId) -> Observation:
        """Find the desktop's servers by tag."""

    async def list_servers(self) -> Observation:
        """List every server of this deployment (for the sweeper and list pages): a constant number of calls."""

    async def list_homes(self) -> tuple[DesktopId, ...]:
        """List the desktops for which a home volume exists (for the sweeper)."""

    async def console_log(self, server_id: ServerId, lines: int = 200) -> str:
        """Return the last lines of the server's console, for operators."""

    async def capacity(self) -> Capacity | None:
        """Return what desktops may use in total, or None where the cloud itself queues and refuses."""

    async def close(self) -> None:
        """Release connections."""


@runtime_checkable
class TellsNews(Protocol):
    """What some drivers can do besides: one question for all desktops, so that nobody has to look at each again and again."""

    async def server_news(self) -> News:
        """Return whose servers changed since the last call; the first call knows nothing, and says so. Raises CloudError.

        Who gives up waiting may ask again: nothing is missed.
        """

    async def prove(self) -> None:
        """Ask the services behind the news something that costs them nothing. Raises CloudError: one does not answer."""

    def news_is_away(self) -> None:
        """Take note that news does not come: what it told is not told to anybody any more until it comes again."""


@runtime_checkable
class ServerOperations(Protocol):
    """What some drivers can do besides. All return once the cloud accepted it; CloudRefused where it makes no sense."""

    async def shelve_server(self, server_id: ServerId) -> None:
        """Give the host's share back and keep the disk; shelved already is success."""

    async def unshelve_server(self, server_id: ServerId) -> None:
        """Bring a shelved server back; running already is success."""

    async def rebuild_server(self, server_id: ServerId, spec: ServerSpec) -> None:
        """Give the server a fresh root disk of ``spec.image_ref`` and its guest a new nonce; address and home stay."""

    async def snapshot_server(self, server_id: ServerId, name: str) -> str:
        """Make an image of the server's disk; return the cloud's name of it."""

    async def resize_server(self, server_id: ServerId, spec: ServerSpec) -> None:
        """Move the server to the size ``spec.flavor_ref``."""

    async def confirm_resize(self, server_id: ServerId) -> bool:
        """Make a resize final; tell whether there was one to confirm."""

    async def console_url(self, server_id: ServerId) -> str:
        """Return the address of the server's screen, to be shown to operators only. Raises NotSupported where there is none."""
