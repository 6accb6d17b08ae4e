"""Messages between the unprivileged services and the privileged helper of the local driver.

One JSON object a line over a Unix stream socket; the peer is authorised by SO_PEERCRED. Every field is checked by the helper
against its own root-owned configuration: a request can only choose among what that file allows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_ID = re.compile(r"[a-z0-9]{8,32}\Z")
_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,30}\Z")
_HASH = re.compile(r"[0-9a-f]{16,64}\Z")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")


class Op(StrEnum):
    """What the helper can be asked to do; nothing else."""

    HELLO = "hello"
    START = "start"
    STOP = "stop"
    DELETE = "delete"
    DELETE_HOME = "delete_home"
    LIST = "list"
    CONSOLE = "console"
    OPEN_FILE = "open_file"
    ENTRY_FACTS = "entry_facts"
    LIST_HOMES = "list_homes"


class ServerState(StrEnum):
    """State of a container as the helper sees it."""

    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class HelperAccount:
    """POSIX account of the person; uid and gids must lie in the ranges of the helper's configuration."""

    login: str
    uid: int
    gid: int
    gids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not _LOGIN.match(self.login):
            raise ValueError("login is not a POSIX login name")


@dataclass(frozen=True, slots=True)
class DataMount:
    """A folder under a configured data root: ``<root>/<experiment>/raw`` read-only, ``.../processed`` writable."""

    experiment: str
    area: str
    writable: bool

    def __post_init__(self) -> None:
        if not _NAME.match(self.experiment):
            raise ValueError("experiment is not a valid folder name")
        if self.area not in ("raw", "processed"):
            raise ValueError("area must be raw or processed")
        if self.area == "raw" and self.writable:
            raise ValueError("raw data are never writable")


@dataclass(frozen=True, slots=True)
class Start:
    """Start (or find running) the one container of ``desktop_id``. Limits: CPU in whole vCPUs, memory in MiB, disk in GiB.

    ``gpus``: one entry a card, its name or PCI address as in :class:`HostFacts`, or ``any`` for a free one of the helper's choice.
    ``shared``: others who say so too may use the same cards.
    """

    desktop_id: str
    deployment_id: str
    image: str
    account: HelperAccount
    mounts: tuple[DataMount, ...]
    vcpus: int
    memory_mib: int
    disk_gib: int
    gpus: tuple[str, ...]
    nonce: str
    shared: bool = False

    def __post_init__(self) -> None:
        if not _ID.match(self.desktop_id):
            raise ValueError("desktop_id must be 8-32 lower-case letters and digits")
        if not _HASH.match(self.image):
            raise ValueError("image must be a content hash")
        if not 1 <= self.vcpus <= 1024:
            raise ValueError("vcpus out of range")
        if not 128 <= self.memory_mib <= 16 * 1024 * 1024:
            raise ValueError("memory_mib out of range")
        if not 1 <= self.disk_gib <= 65536:
            raise ValueError("disk_gib out of range")


@dataclass(frozen=True, slots=True)
class ByDesktop:
    """Argument of stop, delete, delete_home and console.

    With a ``deployment_id`` the helper refuses to touch what belongs to another deployment.
    """

    desktop_id: str
    deployment_id: str = ""

    def __post_init__(self) -> None:
        if not _ID.match(self.desktop_id):
            raise ValueError("desktop_id must be 8-32 lower-case letters and digits")


@dataclass(frozen=True, slots=True)
class OpenFile:
    """Open ``path`` (relative, beneath the experiment's folder) read-only with the person's own uid and groups.

    Answered with :class:`Reply` and, when ok, the descriptor as SCM_RIGHTS.
    Symbolic links and mount crossings are not followed.
    """

    account: HelperAccount
    experiment: str
    path: str

    def __post_init__(self) -> None:
        if not _NAME.match(self.experiment):
            raise ValueError("experiment is not a valid folder name")
        if "\x00" in self.path or len(self.path) > 4096:
            raise ValueError("path is not valid")


MAX_FACTS = 200
"""Entries that one request may ask about."""


@dataclass(frozen=True, slots=True)
class FolderEntries:
    """Ask for size and time of ``names`` in the folder ``path``, with the rights and the limits of :class:`OpenFile`."""

    account: HelperAccount
    experiment: str
    path: str
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        OpenFile(self.account, self.experiment, self.path)
        if len(self.names) > MAX_FACTS:
            raise ValueError("too many names")
        if any(name in ("", ".", "..") or "/" in name or "\x00" in name or len(name) > 255 for name in self.names):
            raise ValueError("a name is not valid")


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """One regular file or folder as the person sees it: size in bytes, time of its last change in Unix seconds."""

    folder: bool
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class HelperServer:
    """One container known to the helper. ``created_at``: Unix seconds. ``cause`` explains ``failed``."""

    desktop_id: str
    deployment_id: str
    state: ServerState
    created_at: float
    stream_socket: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class HelperHome:
    """One home volume on this machine, whether or not a server exists for it."""

    desktop_id: str
    deployment_id: str
    disk_gib: int


@dataclass(frozen=True, slots=True)
class GpuCard:
    """A card: its name, and its PCI address and ids (four hex digits each) where the kernel tells them."""

    name: str
    address: str = ""
    vendor: str = ""
    device: str = ""
    subsystem: str = ""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What this host offers to desktops in total, what isolation needs and the kernel lacks, and the images that lie here whole.

    ``cards``: more about those in ``gpus``.
    """

    vcpus: int
    memory_mib: int
    disk_gib: int
    gpus: tuple[str, ...]
    missing: tuple[str, ...]
    images: tuple[str, ...] = ()
    cards: tuple[GpuCard, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """Envelope: exactly the argument that ``op`` needs is set."""

    op: Op
    start: Start | None = None
    desktop: ByDesktop | None = None
    file: OpenFile | None = None
    entries: FolderEntries | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Envelope of every answer. ``error`` is a stable code (empty = ok), ``detail`` one plain sentence.

    ``facts``: one for each name asked for, None where there is no such file or folder that the person may see.
    """

    error: str = ""
    detail: str = ""
    server: HelperServer | None = None
    servers: tuple[HelperServer, ...] | None = None
    host: HostFacts | None = None
    text: str = ""
    homes: tuple[HelperHome, ...] | None = None
    facts: tuple[EntryFacts | None, ...] | None = None
