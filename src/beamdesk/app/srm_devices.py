"""What a report does to a host's devices: pure bookkeeping around the rules of `beamdesk.domain.srm`.

Also the two steps that the product itself takes with a card: lend and give back. Nothing here trusts or refuses a sender: its
callers did.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from beamdesk.domain.errors import Conflict, NotFound
from beamdesk.domain.events import EventKind, NewEvent
from beamdesk.domain.srm import Alarm, CardState, DeviceRecord, SrmRules, StateReason, is_same_card, observe
from beamdesk.ports.store import Transaction
from beamdesk.protocol.srm import CardFacts, Cleaned, CleanOrder, Report


@dataclass(slots=True)
class Changes:
    """The devices of a host while a report is taken in, and what to tell operators."""

    host: str
    devices: dict[str, DeviceRecord]
    alarms: list[Alarm] = field(default_factory=list)

    def changed(self, before: Mapping[str, DeviceRecord]) -> list[DeviceRecord]:
        """Return the devices that are not as they were."""
        return [device for address, device in self.devices.items() if before.get(address) != device]

    def events(self, before: Mapping[str, DeviceRecord]) -> list[NewEvent]:
        """Return an event for each change of state, and for each alarm."""
        found = []
        for address, device in self.devices.items():
            known = before.get(address)
            if known is None or known.state is not device.state:
                found.append(state_event(device, known.state if known else None))
        for alarm in self.alarms:
            data = {"host": alarm.host, "address": alarm.address, "kind": alarm.kind, "detail": alarm.detail}
            found.append(NewEvent(EventKind.SRM_ALARM, data=dict(data)))
        return found

    @staticmethod
    def open_orders(devices: Iterable[DeviceRecord], *, can_clean: bool) -> tuple[CleanOrder, ...]:
        """Return the cleaning jobs that wait for a result."""
        open_jobs = (device for device in devices if device.state is CardState.CLEANING and device.job and device.present)
        return tuple(CleanOrder(device.address, device.job) for device in open_jobs) if can_clean else ()


def state_event(device: DeviceRecord, before: CardState | None) -> NewEvent:
    """Return the event that tells of a device's change of state."""
    data = {"host": device.host, "address": device.address, "from": str(before or ""), "to": str(device.state)}
    return NewEvent(EventKind.SRM_DEVICE, data={**data, "reason": str(device.reason), "detail": device.detail})


def apply_report(host: str, known: Mapping[str, DeviceRecord], said: Report, now: datetime) -> Changes:
    """Return the devices after a report: new, changed, gone, held, let go. What is lent is never forgotten."""
    changes = Changes(host, dict(known))
    facts = {card.address: card for card in said.cards}
    loads = {load.address: load for load in said.loads}
    gone = set(known) - set(facts) if said.full else set(said.gone)
    for address in sorted(set(known) | set(facts)):
        device = _described(changes, known.get(address), host, address, facts.get(address), now)
        if device is None:
            continue
        if address in loads:
            device = replace(device, load=loads[address])
        present = address not in gone if (address in gone or address in facts) else device.present
        device, alarm = observe(replace(device, present=present), now)
        changes.devices[address] = device
        if alarm is not None:
            changes.alarms.append(alarm)
    return changes


def _described(
    changes: Changes, device: DeviceRecord | None, host: str, address: str, facts: CardFacts | None, now: datetime
) -> DeviceRecord | None:
    if device is None:
        return DeviceRecord(host, address, facts, CardState.FREE, now) if facts is not None else None
    if facts is None or facts == device.facts:
        return device
    if is_same_card(device.facts, facts):
        return replace(device, facts=facts)
    detail = "another card is in its place"
    changes.alarms.append(Alarm(host, address, "card_replaced", detail))
    fresh = replace(device, facts=facts, load=None)
    if device.state is CardState.USED:
        return fresh.moved(CardState.FAILED, StateReason.REPLACED, now, detail, holder=device.holder)
    return fresh.moved(CardState.DIRTY, StateReason.REPLACED, now, detail)


def apply_cleaned(changes: Changes, result: Cleaned, rules: SrmRules, now: datetime) -> None:
    """Take in what came of a cleaning. Only the job that is under way counts: a result for any other is an alarm."""
    device = changes.devices.get(result.address)
    if device is None or device.state is not CardState.CLEANING or not _same(device.job, result.job):
        changes.alarms.append(
            Alarm(changes.host, result.address, "cleaning_unknown", "a result for a cleaning that nobody asked for")
        )
        return
    evidence = f"command {result.command_sha256[:16]}, output {result.output_sha256[:16]}, {result.seconds:.1f} s"
    if not result.succeeded:
        detail = result.detail or f"exit status {result.exit_status}"
        changes.devices[result.address] = _not_cleaned(changes, device, f"{detail} ({evidence})", rules, now)
    elif device.load is not None and device.load.held:
        detail = f"a server holds it after its cleaning ({evidence})"
        changes.devices[result.address] = _not_cleaned(changes, device, detail, rules, now)
    else:
        changes.devices[result.address] = device.moved(CardState.FREE, StateReason.CLEANED, now, evidence)


def _same(one: str, other: str) -> bool:
    return bool(one) and hmac.compare_digest(one.encode(), other.encode())


def _not_cleaned(changes: Changes, device: DeviceRecord, detail: str, rules: SrmRules, now: datetime) -> DeviceRecord:
    attempts = device.attempts + 1
    state = CardState.FAILED if attempts >= rules.clean_attempts else CardState.DIRTY
    if state is CardState.FAILED:
        changes.alarms.append(Alarm(device.host, device.address, "cleaning_failed", detail))
    return replace(device.moved(state, StateReason.CLEANING_FAILED, now, detail), attempts=attempts)


def too_late(device: DeviceRecord, rules: SrmRules, now: datetime) -> tuple[DeviceRecord, list[NewEvent]]:
    """Return a device whose cleaning did not end in time, and the events of it."""
    changes = Changes(device.host, {device.address: device})
    changes.devices[device.address] = _not_cleaned(changes, device, "no result in time", rules, now)
    return changes.devices[device.address], changes.events({device.address: device})


def orders(changes: Changes, rules: SrmRules, now: datetime, *, can_clean: bool, new_job: Callable[[], str]) -> None:
    """Begin the cleaning of every dirty device that nobody holds, where the host has a hook for it."""
    if not can_clean:
        return
    for address, device in changes.devices.items():
        idle = device.present and not (device.load is not None and device.load.held)
        waits = device.state is CardState.CLEANING and not device.job
        if idle and (waits or (device.state is CardState.DIRTY and device.attempts < rules.clean_attempts)):
            begun = device.moved(CardState.CLEANING, StateReason.CLEANING, now)
            changes.devices[address] = replace(begun, job=new_job(), job_until=now + rules.clean_timeout)


async def lend(tx: Transaction, host: str, address: str, holder: str, now: datetime) -> None:
    """Record that the product gave a free card to ``holder`` (a desktop's id, say); the same holder twice is fine.

    Raises:
        NotFound: no such card. Conflict: it is not free.
    """
    device = await _device(tx, host, address)
    if device.state is CardState.USED and device.holder == holder:
        return
    if device.state is not CardState.FREE or not device.present:
        raise Conflict(f"Card {address} of {host} is {device.state}, not free.", field="address")
    await _put(tx, device, device.moved(CardState.USED, StateReason.CLAIMED, now, holder=holder), now)


async def give_back(tx: Transaction, host: str, address: str, now: datetime) -> None:
    """Record that nobody has a card any more: it is dirty. Giving back twice, or what is gone, is fine."""
    device = await tx.srm.device(host, address)
    if device is not None and device.state is CardState.USED:
        await _put(tx, device, device.moved(CardState.DIRTY, StateReason.RELEASED, now), now)


async def _device(tx: Transaction, host: str, address: str) -> DeviceRecord:
    device = await tx.srm.device(host, address)
    if device is None:
        raise NotFound(f"There is no card {address} on a host {host}.")
    return device


async def _put(tx: Transaction, before: DeviceRecord, after: DeviceRecord, now: datetime) -> None:
    await tx.srm.put_device(replace(after, version=before.version + 1))
    await tx.events.add(now, state_event(after, before.state))
