"""Messages between the SRM agent on a host and the API (System Resource Monitoring, HEPS paper section 3.5).

An operator makes a one-time enrolment token for a host's name. The agent spends it once (`ENROL_PATH`) and keeps the credential of
the answer in a file of mode 0600; every later request carries it (`Authorization: Bearer`). It opens a session (`SESSION_PATH`)
when it starts or is told to, and sends numbered reports (`REPORT_PATH`): the first one full, later ones with what changed, an empty
one as a heartbeat. A report whose answer was lost is sent again, only ``sent_at`` anew; any other number is refused.
Transport: HTTPS.

Units are in the names; ``None`` = not known, never zero for unknown. This module must not interpret what it carries.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

ENROL_PATH = "/api/v1/srm/enrolments"
SESSION_PATH = "/api/v1/srm/sessions"
REPORT_PATH = "/api/v1/srm/reports"
REPORT_EVERY_S = 15.0
"""Seconds between two reports; four missed ones make a host stale."""
MAX_CARDS = 64
MAX_REPORT_BYTES = 64 * 1024


class FactsFrom(StrEnum):
    """Where a card's static numbers come from."""

    NVML = "nvml"
    CATALOGUE = "catalogue"
    UNKNOWN = "unknown"


class LendMode(StrEnum):
    """How the host is set up to lend a card. The words are the scheduling core's."""

    PASSTHROUGH = "passthrough"
    HOST = "host"
    VGPU = "vgpu"
    MIG = "mig"


@dataclass(frozen=True, slots=True)
class NumaFacts:
    """One NUMA node: logical CPUs and memory."""

    cpus: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """A network interface with a physical device behind it; speed in Mbit/s while it is up."""

    name: str
    up: bool
    speed_mbit: int | None = None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a host is. ``cpus`` are logical CPUs; disk is the file system that holds servers' disks."""

    cpus: int
    memory_mib: int
    disk_gib: int
    cpu_model: str = ""
    kernel: str = ""
    numa: tuple[NumaFacts, ...] = ()
    links: tuple[LinkFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class HostLoad:
    """What a host does: CPU 0..1 since the last report, memory and disk in use, bytes per second over all links."""

    cpu: float
    memory_used_mib: int
    disk_used_gib: int
    received_bytes_s: int = 0
    sent_bytes_s: int = 0


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """A part that can be lent of a card: its share in thousandths, its length in slots and the slots where it may begin."""

    name: str
    milli: int
    span: int
    starts: tuple[int, ...]
    memory_mib: int


@dataclass(frozen=True, slots=True)
class PartsFacts:
    """How a card in mode ``vgpu`` or ``mig`` can be divided; ``mixed`` = different profiles side by side."""

    name: str
    slots: int
    mixed: bool
    profiles: tuple[ProfileFacts, ...]


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is. Ids are four lower-case hex digits; ``numa`` is the index of its node in `HostFacts.numa`."""

    address: str
    vendor: str
    device: str
    subsystem_vendor: str
    subsystem_device: str
    model: str
    driver: str
    mode: LendMode
    numa: int
    facts_from: FactsFrom
    uuid: str = ""
    iommu_group: int | None = None
    link_width: int | None = None
    link_gts: float | None = None
    memory_mib: int | None = None
    cores: int | None = None
    bandwidth_gbs: int | None = None
    clock_mhz: int | None = None
    fp32_gflops: int | None = None
    nvenc: bool | None = None
    ecc: bool | None = None
    parts: PartsFacts | None = None


@dataclass(frozen=True, slots=True)
class CardLoad:
    """What a card does. ``held``: a server's process has it open; ``holder``: that server's id where it can be read.

    ``fault``: why the host takes the card for broken (empty = it works).
    """

    address: str
    held: bool
    holder: str = ""
    busy: float | None = None
    memory_used_mib: int | None = None
    temperature_c: int | None = None
    power_w: int | None = None
    ecc_uncorrected: int | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class CleanOrder:
    """Clean this card now and tell the result under this job; repeated in every answer until a result came."""

    address: str
    job: str


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What came of a cleaning job: digests of the argument list that ran and of what it printed, and how it ended."""

    address: str
    job: str
    succeeded: bool
    exit_status: int | None
    seconds: float
    command_sha256: str
    output_sha256: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Enrol:
    """Spend an enrolment token. ``machine`` is a digest that stays with the machine (never the machine-id itself)."""

    token: str
    host: str
    machine: str
    agent: str


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Answer to `Enrol`: the name under which the host is known, and its credential."""

    host: str
    credential: str


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a session. ``sent_at``: the agent's clock, seconds since 1970 UTC; ``boot`` changes when the host restarts."""

    host: str
    machine: str
    boot: str
    agent: str
    sent_at: float
    can_clean: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """Answer to `Open`: the session, its first number is 1; the API's clock; how often to report."""

    session: str
    now: float
    report_every_s: float = REPORT_EVERY_S


@dataclass(frozen=True, slots=True)
class Report:
    """What changed since the report before. ``full``: everything; what a full report does not name is not there (any more)."""

    session: str
    sequence: int
    sent_at: float
    full: bool = False
    host: HostFacts | None = None
    load: HostLoad | None = None
    cards: tuple[CardFacts, ...] = ()
    loads: tuple[CardLoad, ...] = ()
    gone: tuple[str, ...] = ()
    cleaned: tuple[Cleaned, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportReply:
    """Answer to `Report`. ``resync``: send a full report next."""

    sequence: int
    now: float
    resync: bool = False
    clean: tuple[CleanOrder, ...] = ()
