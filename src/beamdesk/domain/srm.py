"""Hosts and devices as System Resource Monitoring knows them, and the rules of a device's state.

    free ──► used ──► dirty ──► cleaning ──► free          any ──► failed ──► dirty
                        ▲           │ failed, too late       (an operator, or the card came back)
                        └───────────┘

Only ``free`` is ever lent. What a host reports moves a device along these edges and no others; what contradicts them becomes an
`Alarm` for operators. States are those of the scheduling core. Nothing here reads a clock or a database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from beamdesk.protocol.srm import CardFacts, CardLoad, HostFacts, HostLoad, LendMode
from beamdesk.scheduling.cards import CardState

__all__ = [
    "OPERATOR_MAY_SET",
    "Alarm",
    "CardState",
    "Consumer",
    "DeviceRecord",
    "HostRecord",
    "Mean",
    "Sample",
    "SrmRules",
    "StateReason",
    "observe",
]


@dataclass(frozen=True, slots=True)
class SrmRules:
    """What a site sets. Reports from a clock further off than ``skew_refused`` are refused, beyond ``skew_noted`` told of."""

    stale_after: timedelta = timedelta(seconds=60)
    skew_noted: timedelta = timedelta(seconds=5)
    skew_refused: timedelta = timedelta(seconds=300)
    enrolment_ttl: timedelta = timedelta(hours=24)
    clean_timeout: timedelta = timedelta(minutes=20)
    clean_attempts: int = 3
    sample_every: timedelta = timedelta(seconds=60)
    history: timedelta = timedelta(days=14)


class StateReason(StrEnum):
    """Why a device is in its state. Values are stable."""

    NEW = "new"
    CLAIMED = "claimed"
    HELD = "held"
    RELEASED = "released"
    CLEANING = "cleaning"
    CLEANED = "cleaned"
    CLEANING_FAILED = "cleaning_failed"
    FAULT = "fault"
    MISSING = "missing"
    CAME_BACK = "came_back"
    REPLACED = "replaced"
    OPERATOR = "operator"


OPERATOR_MAY_SET: Mapping[CardState, frozenset[CardState]] = {
    CardState.FREE: frozenset({CardState.DIRTY, CardState.FAILED}),
    CardState.USED: frozenset({CardState.FAILED}),
    CardState.DIRTY: frozenset({CardState.CLEANING, CardState.FAILED}),
    CardState.CLEANING: frozenset({CardState.FREE, CardState.DIRTY, CardState.FAILED}),
    CardState.FAILED: frozenset({CardState.DIRTY}),
}
"""State -> states that an operator may set, as in the core (`beamdesk.scheduling.reports.FOLLOWS`; a test compares the two)."""


UNKNOWN: Final = "unknown"
"""Holder of a card that some process has open, where its server's id cannot be read."""


@dataclass(frozen=True, slots=True)
class HostRecord:
    """A host: who it is, what it said last. ``machine`` is empty until an agent enrolled; ``facts`` is None until it reported."""

    name: str
    created_at: datetime
    machine: str = ""
    enrol_hash: bytes | None = field(default=None, repr=False)
    enrol_expires_at: datetime | None = None
    token_hash: bytes | None = field(default=None, repr=False)
    enrolled_at: datetime | None = None
    enabled: bool = True
    dedicated: bool = False
    aggregates: tuple[str, ...] = ()
    session: str = ""
    sequence: int = 0
    report_digest: bytes | None = field(default=None, repr=False)
    resync: bool = False
    can_clean: bool = False
    agent: str = ""
    boot: str = ""
    facts: HostFacts | None = None
    load: HostLoad | None = None
    skew_s: float = 0.0
    seen_at: datetime | None = None
    stale: bool = False
    version: int = 1

    def is_stale(self, now: datetime, rules: SrmRules) -> bool:
        """Tell whether the last report is too old to lend its cards by."""
        return self.seen_at is None or now - self.seen_at > rules.stale_after


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A card of a host. ``holder``: who has it, where that is known; ``job``: the cleaning that is under way."""

    host: str
    address: str
    facts: CardFacts
    state: CardState
    state_since: datetime
    reason: StateReason = StateReason.NEW
    detail: str = ""
    load: CardLoad | None = None
    present: bool = True
    holder: str = ""
    job: str = ""
    job_until: datetime | None = None
    attempts: int = 0
    version: int = 1

    def moved(self, state: CardState, reason: StateReason, now: datetime, detail: str = "", *, holder: str = "") -> DeviceRecord:
        """Return the device in another state; a cleaning job does not outlive its state."""
        keeps_job = state is CardState.CLEANING
        return replace(
            self,
            state=state,
            state_since=now if state is not self.state else self.state_since,
            reason=reason,
            detail=detail,
            holder=holder,
            job=self.job if keeps_job else "",
            job_until=self.job_until if keeps_job else None,
            attempts=0 if state in {CardState.FREE, CardState.USED} else self.attempts,
        )


SPENDS_BOOKINGS: Final = 2
"""The protocol of the scheduler plugins since which they take a booking by its name, part after part."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A program that may read the scheduling snapshot. ``speaks``: the protocol of the plugins that it named when it last read."""

    name: str
    token_hash: bytes = field(repr=False)
    created_at: datetime
    used_at: datetime | None = None
    speaks: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of the history: a card at ``address``, the host itself under an empty one. None = not known."""

    host: str
    address: str
    at: datetime
    state: str
    busy: float | None
    memory_used_mib: int | None
    temperature_c: int | None


@dataclass(frozen=True, slots=True)
class Mean:
    """History over a stretch of time that begins at ``at``: means, the highest temperature, the part in which it was used."""

    address: str
    at: datetime
    busy: float | None
    memory_used_mib: float | None
    temperature_c: int | None
    used: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that operators must see; ``kind`` is stable."""

    host: str
    address: str
    kind: str
    detail: str


def is_same_card(one: CardFacts, other: CardFacts) -> bool:
    """Tell whether two descriptions can be of one physical card."""
    same_kind = (one.vendor, one.device, one.subsystem_device) == (other.vendor, other.device, other.subsystem_device)
    return same_kind and (not one.uuid or not other.uuid or one.uuid == other.uuid)


def observe(device: DeviceRecord, now: datetime) -> tuple[DeviceRecord, Alarm | None]:
    """Return the device after what its host says of it (``present`` and ``load`` are written already), and what to tell of it.

    Only whole cards become used by being held: parts of a card are accounted for by claims, and its driver clears them. A card that
    is claimed but not held yet waits for its server; one that was held and is let go is dirty.
    """
    if not device.present:
        return _missing(device, now)
    load = device.load
    if device.state is CardState.FAILED and device.reason is StateReason.MISSING:
        device = device.moved(CardState.DIRTY, StateReason.CAME_BACK, now)
    if load is not None and load.fault and device.state is not CardState.FAILED:
        alarm = Alarm(device.host, device.address, "card_fault", load.fault)
        return device.moved(CardState.FAILED, StateReason.FAULT, now, load.fault, holder=_holder(load)), alarm
    if load is None or device.facts.mode is not LendMode.PASSTHROUGH:
        return device, None
    return _held(device, load, now) if load.held else _let_go(device, now)


def _missing(device: DeviceRecord, now: datetime) -> tuple[DeviceRecord, Alarm | None]:
    if device.state is CardState.FAILED:
        return device, None
    lent = device.state is CardState.USED
    detail = "in use, but its host does not report it" if lent else "its host does not report it any more"
    alarm = Alarm(device.host, device.address, "card_missing_in_use" if lent else "card_missing", detail)
    return device.moved(CardState.FAILED, StateReason.MISSING, now, detail, holder=device.holder), alarm


def _held(device: DeviceRecord, load: CardLoad, now: datetime) -> tuple[DeviceRecord, Alarm | None]:
    if device.state in {CardState.FREE, CardState.USED}:
        return device.moved(CardState.USED, StateReason.HELD, now, holder=load.holder or device.holder or UNKNOWN), None
    holder = _holder(load)
    if device.state is CardState.CLEANING or holder == device.holder:
        return replace(device, holder=holder), None
    detail = f"a server holds it although it is {device.state}"
    return replace(device, holder=holder, detail=detail), Alarm(device.host, device.address, "card_held", detail)


def _holder(load: CardLoad) -> str:
    return (load.holder or UNKNOWN) if load.held else ""


def _let_go(device: DeviceRecord, now: datetime) -> tuple[DeviceRecord, Alarm | None]:
    if device.state is CardState.USED and device.reason is StateReason.HELD:
        return device.moved(CardState.DIRTY, StateReason.RELEASED, now), None
    if device.state is not CardState.USED and device.holder:
        return replace(device, holder=""), None
    return device, None
