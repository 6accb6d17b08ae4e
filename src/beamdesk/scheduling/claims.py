"""Writing servers into the table and out of it: all or nothing, under the table's lock, never one device twice.

A decision names devices; between decision and claim somebody else may have taken them. `claim` therefore checks again and raises
`NotFree`, and the caller decides anew. `restore` writes what exists already (after a restart), whether or not it fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from beamdesk.scheduling import bookings
from beamdesk.scheduling.arrays import CARD
from beamdesk.scheduling.cards import CardState, Geometry
from beamdesk.scheduling.errors import InvalidHost, NotFree
from beamdesk.scheduling.state import FAILED, FREE, STATES, USED, HostTable


@dataclass(frozen=True, slots=True)
class Grant:
    """One device given to a server: a whole card, a share (``milli``), or a ``profile`` at slot ``start``."""

    address: str
    milli: int = CARD
    profile: str | None = None
    start: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """What a server holds on a host. ``node`` = the NUMA node that it is bound to; ``booking`` is spent by claiming."""

    id: str
    host: str
    cpu_milli: int
    memory_mib: int
    disk_gib: int = 0
    grants: tuple[Grant, ...] = ()
    node: int | None = None
    until: float | None = None
    group: str | None = None
    booking: str | None = None


def claim(table: HostTable, wanted: Claim) -> None:
    """Write ``wanted`` into the table.

    Raises:
        NotFree: the id holds a claim already, the host is gone or off, or something of what is wanted is not free any more.
    """
    with table.lock:
        if wanted.id in table.claims:
            raise NotFree(f"{wanted.id} holds a claim already.", field="id")
        row = table.row.get(wanted.host)
        if row is None or not table.enabled[row]:
            raise NotFree(f"Host {wanted.host} is gone or switched off.", field="host")
        for field, free in (("cpu_milli", table.cpu_free), ("memory_mib", table.memory_free), ("disk_gib", table.disk_free)):
            asked = getattr(wanted, field)
            if asked and asked > free[row]:
                raise NotFree(f"Host {wanted.host} has no longer {field} {asked} free.", field=field)
        if len({grant.address for grant in wanted.grants}) != len(wanted.grants):
            raise NotFree("One card is granted twice in one claim.", field="grants")
        for grant in wanted.grants:
            if not _is_free(table, row, grant):
                raise NotFree(f"Card {grant.address} of {wanted.host} is no longer free.", field="grants")
        if wanted.booking is not None:
            bookings.remove(table, wanted.booking)
        _write(table, row, wanted)


def restore(table: HostTable, existing: Claim, charges: Sequence[tuple[int, int, int]] | None = None) -> tuple[str, ...]:
    """Write a server that exists already; return the addresses of its cards that the host does not have.

    ``charges``: which NUMA nodes bear it (node, CPU, memory), where that is known.
    """
    with table.lock:
        row = table.row.get(existing.host)
        if row is None:
            raise InvalidHost(f"There is no host {existing.host}.", field="host")
        if existing.id in table.claims:
            raise NotFree(f"{existing.id} holds a claim already.", field="id")
        _write(table, row, existing, charges)
        return tuple(grant.address for grant in existing.grants if table.position(row, grant.address) < 0)


def release(table: HostTable, claim_id: str, *, leave: CardState = CardState.DIRTY) -> Claim | None:
    """Take a server out of the table and return its claim; None when there is none (releasing twice is fine).

    Whole cards are left in state ``leave``: a device that was used is dirty until it is cleaned and attested. Shares and profiles
    are free at once, because the host's driver clears their memory.
    """
    with table.lock:
        known = table.claims.pop(claim_id, None)
        if known is None:
            return None
        row = table.row[known.host]
        for grant in known.grants:
            _give_back(table, row, grant, leave)
        table.cpu_free[row] += known.cpu_milli
        table.memory_free[row] += known.memory_mib
        table.disk_free[row] += known.disk_gib
        for node, cpu, memory in table.charges.pop(claim_id):
            table.numa_cpu_free[row, node] += cpu
            table.numa_memory_free[row, node] += memory
        table.holders[row].discard(claim_id)
        if known.group is not None:
            members = table.groups[known.group]
            members[row] -= 1
            if not members[row]:
                del members[row]
            table.promised()
        table.touch(row)
        return known


def _is_free(table: HostTable, row: int, grant: Grant) -> bool:
    at = row, table.position(row, grant.address)
    if at[1] < 0 or table.state[at] != FREE or table.stale[row]:
        return False
    if grant.profile is None:
        return bool(table.geometry[at] < 0 and table.idle[at] >= grant.milli)
    geometry, number = _geometry(table, at, grant.profile)
    if geometry is None or grant.start not in geometry.profiles[number].starts:
        return False
    mask = ((1 << geometry.profiles[number].span) - 1) << grant.start
    return not int(table.slots[at]) & mask and (geometry.mixed or table.profile[at] in {-1, number})


def _write(table: HostTable, row: int, wanted: Claim, known: Sequence[tuple[int, int, int]] | None = None) -> None:
    table.claims[wanted.id] = wanted
    table.holders[row].add(wanted.id)
    table.cpu_free[row] -= wanted.cpu_milli
    table.memory_free[row] -= wanted.memory_mib
    table.disk_free[row] -= wanted.disk_gib
    charges = table.charges[wanted.id] = _charges(table, row, wanted) if known is None else list(known)
    for node, cpu, memory in charges:
        table.numa_cpu_free[row, node] -= cpu
        table.numa_memory_free[row, node] -= memory
    for grant in wanted.grants:
        _take(table, row, grant)
    if wanted.group is not None:
        members = table.groups.setdefault(wanted.group, {})
        members[row] = members.get(row, 0) + 1
        table.promised()
    table.touch(row)


def _charges(table: HostTable, row: int, wanted: Claim) -> list[tuple[int, int, int]]:
    """Say which NUMA nodes bear the server. One that is bound to none floats: it is charged to the emptiest nodes first.

    So does one that is bound to a node which its host no longer reports.
    """
    nodes = len(table.hosts[row].nodes)
    if nodes == 1:
        return [(0, wanted.cpu_milli, wanted.memory_mib)]
    if wanted.node is not None and wanted.node < nodes:
        return [(wanted.node, wanted.cpu_milli, wanted.memory_mib)]
    order = sorted(range(nodes), key=lambda node: (-int(table.numa_cpu_free[row, node]), node))
    cpu, memory, charges = wanted.cpu_milli, wanted.memory_mib, []
    for node in order:
        part = min(cpu, max(0, int(table.numa_cpu_free[row, node])))
        share = min(memory, max(0, int(table.numa_memory_free[row, node])))
        charges.append((node, part, share))
        cpu, memory = cpu - part, memory - share
    node, part, share = charges[0]
    charges[0] = node, part + cpu, share + memory
    return charges


def _take(table: HostTable, row: int, grant: Grant) -> None:
    position = table.position(row, grant.address)
    if position < 0:
        return
    at = row, position
    table.used[at] += _milli(table, at, grant)
    if grant.profile is not None:
        geometry, number = _geometry(table, at, grant.profile)
        if geometry is None:
            # The card was divided anew under a server that uses it: nothing more is given of it.
            table.state[at] = FAILED
        else:
            table.slots[at] |= ((1 << geometry.profiles[number].span) - 1) << grant.start
            table.profile[at] = -1 if geometry.mixed else number
    if table.state[at] == FREE and table.used[at] >= CARD:
        table.state[at] = USED
    settle(table, at)


def _give_back(table: HostTable, row: int, grant: Grant, leave: CardState) -> None:
    position = table.position(row, grant.address)
    if position < 0:
        return
    at = row, position
    table.used[at] -= _milli(table, at, grant)
    if grant.profile is not None:
        geometry, number = _geometry(table, at, grant.profile)
        if geometry is not None:
            table.slots[at] &= ~(((1 << geometry.profiles[number].span) - 1) << grant.start)
        if not table.slots[at]:
            table.profile[at] = -1
    if table.state[at] == USED and table.used[at] < CARD:
        whole = grant.profile is None and grant.milli == CARD
        table.state[at] = STATES.index(leave) if whole else FREE
    settle(table, at)


def _milli(table: HostTable, at: tuple[int, int], grant: Grant) -> int:
    geometry, number = _geometry(table, at, grant.profile) if grant.profile is not None else (None, -1)
    return grant.milli if geometry is None else geometry.profiles[number].milli


def _geometry(table: HostTable, at: tuple[int, int], profile: str) -> tuple[Geometry | None, int]:
    """Return the card's geometry and the profile's number in it; (None, -1) when the card does not offer the profile."""
    if table.geometry[at] < 0:
        return None, -1
    geometry = table.geometries[table.geometry[at]]
    number = geometry.index(profile)
    return (geometry, number) if number >= 0 else (None, -1)


def settle(table: HostTable, at: tuple[int, int]) -> None:
    """Derive what is idle on a card from its state and use."""
    table.idle[at] = max(0, CARD - int(table.used[at])) if table.state[at] == FREE else 0
