"""What changed between two looks at a host, as the next report.

Numbers that never stand still are only worth telling when they moved noticeably; a slow drift is told when it adds up, because the
comparison is with what was told last, not with the last look.
"""

from __future__ import annotations

from dataclasses import replace

from beamdesk.protocol.srm import CardFacts, CardLoad, Cleaned, HostFacts, HostLoad, Report
from beamdesk.srm.collect import Seen

BUSY_STEP, MEMORY_STEP_MIB, HEAT_STEP_C, POWER_STEP_W = 0.05, 64, 2, 10
CPU_STEP, HOST_MEMORY_STEP_MIB, NETWORK_STEP = 0.05, 512, 1_000_000


class Told:
    """What the API knows by now."""

    def __init__(self) -> None:
        self.host: HostFacts | None = None
        self.load: HostLoad | None = None
        self.cards: dict[str, CardFacts] = {}
        self.loads: dict[str, CardLoad] = {}


def full(seen: Seen, session: str, sequence: int, cleaned: tuple[Cleaned, ...]) -> Report:
    """Return a report of everything; the time is for the sender to write."""
    cards, loads = tuple(seen.cards.values()), tuple(seen.loads.values())
    return Report(session, sequence, 0.0, True, seen.host, seen.load, cards, loads, (), cleaned)


def changed(told: Told, seen: Seen, session: str, sequence: int, cleaned: tuple[Cleaned, ...]) -> Report:
    """Return a report of what is not as it was told; the time is for the sender to write."""
    return Report(
        session,
        sequence,
        0.0,
        host=seen.host if seen.host != told.host else None,
        load=seen.load if told.load is None or _host_moved(told.load, seen.load) else None,
        cards=tuple(card for address, card in seen.cards.items() if told.cards.get(address) != card),
        loads=tuple(load for address, load in seen.loads.items() if _moved(told.loads.get(address), load)),
        gone=tuple(sorted(told.cards.keys() - seen.cards.keys())),
        cleaned=cleaned,
    )


def learn(told: Told, report: Report) -> None:
    """Take over what a report told, once it was accepted."""
    if report.full:
        told.cards.clear()
        told.loads.clear()
    told.host = report.host or told.host
    told.load = report.load or told.load
    told.cards.update({card.address: card for card in report.cards})
    told.loads.update({load.address: load for load in report.loads})
    for address in report.gone:
        told.cards.pop(address, None)
        told.loads.pop(address, None)


def _host_moved(before: HostLoad, now: HostLoad) -> bool:
    return (
        abs(before.cpu - now.cpu) >= CPU_STEP
        or abs(before.memory_used_mib - now.memory_used_mib) >= HOST_MEMORY_STEP_MIB
        or before.disk_used_gib != now.disk_used_gib
        or abs(before.received_bytes_s - now.received_bytes_s) >= NETWORK_STEP
        or abs(before.sent_bytes_s - now.sent_bytes_s) >= NETWORK_STEP
    )


def _moved(before: CardLoad | None, now: CardLoad) -> bool:
    if before is None:
        return True
    measured = {"busy": None, "memory_used_mib": None, "temperature_c": None, "power_w": None}
    if replace(before, **measured) != replace(now, **measured):  # type: ignore[arg-type]  # None is a value of each
        return True
    steps = (
        (before.busy, now.busy, BUSY_STEP),
        (before.memory_used_mib, now.memory_used_mib, MEMORY_STEP_MIB),
        (before.temperature_c, now.temperature_c, HEAT_STEP_C),
        (before.power_w, now.power_w, POWER_STEP_W),
    )
    return any(_stepped(one, other, step) for one, other, step in steps)


def _stepped(one: float | None, other: float | None, step: float) -> bool:
    if one is None or other is None:
        return one is not other
    return abs(one - other) >= step
