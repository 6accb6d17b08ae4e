"""Messages between the guest agent in a desktop and the guest API.

The agent holds a one-time enrolment nonce (32 random bytes, URL-safe base64, in a file of mode 0600), spends it with
`POST /guest/v1/enrol`, and from then on authenticates with the identity that the answer carries (`Authorization: Bearer`).
`POST /guest/v1/report` is sent at every change of a step and as a heartbeat. Transport: HTTPS, or HTTP over a Unix socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

ENROL_PATH = "/guest/v1/enrol"
REPORT_PATH = "/guest/v1/report"
THUMBNAIL_PATH = "/guest/v1/thumbnail"
HEARTBEAT_S = 2.0
"""Seconds between two heartbeats; three missed ones count as a silent agent."""
MAX_THUMBNAIL_BYTES = 64 * 1024
NO_CARD_WORKS = -1.0
"""In the place of a GPU's use: there is no card on which a program could compute. Older APIs take it for 0."""


class StepName(StrEnum):
    """What the agent brings up, in this order; the portal's progress list shows them by name."""

    ENROL = "enrol"
    ACCOUNT = "account"
    STORAGE = "storage"
    DISPLAY = "display"
    DESKTOP = "desktop"
    STREAM = "stream"


class StepState(StrEnum):
    """State of one step."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """One named step and, when it failed, the cause in plain words (at most 500 characters)."""

    name: StepName
    state: StepState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Enrol:
    """Exchange the one-time nonce for an identity; a second use, a wrong or an expired nonce is answered 403."""

    nonce: str


@dataclass(frozen=True, slots=True)
class Group:
    """A POSIX group of the person inside the desktop."""

    name: str
    gid: int


@dataclass(frozen=True, slots=True)
class Account:
    """The person's POSIX account inside the desktop."""

    login: str
    uid: int
    gid: int
    full_name: str
    groups: tuple[Group, ...]
    home: str


@dataclass(frozen=True, slots=True)
class Mount:
    """Storage the desktop shows at ``target``.

    ``kind`` ``bind`` is already mounted by the host (the agent only checks it); the others are mounted by the agent: ``nfs``,
    ``nfs4``, ``oceanstor``, ``lustre``, ``ceph``, and ``disk``, a volume of the cloud (source ``auto``: the one attached as home).
    ``options``: further mount options. ``secret``: the key of a ``ceph`` client.
    """

    kind: str
    source: str
    target: str
    writable: bool
    options: str = ""
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Stream:
    """Where the streaming server must listen and the only secret it may accept.

    ``listen``: ``unix:PATH`` or ``tcp:ADDRESS:PORT``. ``secret`` is the server's master token: the gateway pushes its per-session
    tokens with it, and no browser ever sees it.
    """

    listen: str
    secret: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Answer to :class:`Enrol`: who this guest is from now on and what it has to become."""

    desktop_id: str
    token: str
    title: str
    account: Account
    mounts: tuple[Mount, ...]
    stream: Stream
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Activity:
    """What counts as use: seconds since the last input event, and the CPU and GPU use (0..1) since the last report.

    ``gpu``: of the busiest of the desktop's own cards that work; `NO_CARD_WORKS` without one; None: there is a card whose use is
    not known.
    """

    input_idle_s: float
    cpu: float
    gpu: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """State of the guest: all steps, the activity, and the cause if it gave up (empty while it works)."""

    steps: tuple[Step, ...]
    activity: Activity
    failure: str = ""


@dataclass(frozen=True, slots=True)
class ReportReply:
    """Answer to :class:`Report`. ``messages`` are shown to the person on the desktop (lease warnings)."""

    messages: tuple[str, ...] = ()
