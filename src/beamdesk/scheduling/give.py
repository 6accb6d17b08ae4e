"""Which devices of the chosen host a request gets, and on which NUMA node. One row, plain Python: hosts are chosen elsewhere."""

from __future__ import annotations

import hashlib

import numpy as np

from beamdesk.scheduling import filters
from beamdesk.scheduling.arrays import CARD
from beamdesk.scheduling.cards import start_for
from beamdesk.scheduling.claims import Grant
from beamdesk.scheduling.errors import NotFree
from beamdesk.scheduling.filters import Window
from beamdesk.scheduling.policy import CardRule, Policy
from beamdesk.scheduling.request import CardDemand, NumaRule, Request
from beamdesk.scheduling.state import HostTable


def give(
    table: HostTable, policy: Policy, request: Request, row: int, wish: int, window: Window
) -> tuple[tuple[Grant, ...], int | None]:
    """Return the devices and the NUMA node. ``wish``: the card that the policy's term chose, -1 = none."""
    if request.cards is None and request.numa is NumaRule.NONE:
        return (), None
    at = np.array([row])
    _, _, fit = filters.refusals(table, request, at, window)
    good = np.flatnonzero(fit[0]).tolist()
    node = _node(table, request, row, good)
    if request.cards is None:
        return (), node
    good = _on_one_node(table, request, row, good, node)
    if len(good) < request.cards.count:
        raise NotFree(f"Host {table.names[row]} has no longer {request.cards.count} such cards.", field="cards")
    chosen = _choose(table, policy, request, row, good, wish)
    return tuple(_grant(table, request.cards, row, position) for position in chosen), node


def _node(table: HostTable, request: Request, row: int, good: list[int]) -> int | None:
    """Return the node that has all together and fewest fitting cards to spare; None where the request does not ask for one."""
    if request.numa is NumaRule.NONE:
        return None
    fit = np.zeros((1, table.width), np.bool_)
    fit[0, good] = True
    room = np.flatnonzero(filters.numa_room(table, request, np.array([row]), fit)[0]).tolist()
    spare = {node: sum(1 for position in good if table.numa[row, position] == node) for node in room}
    return min(room, key=lambda node: (spare[node], int(table.numa_cpu_free[row, node]), node)) if room else None


def _on_one_node(table: HostTable, request: Request, row: int, good: list[int], node: int | None) -> list[int]:
    """Keep to one node's cards where possible: the bound node's, or for several cards the node with fewest to spare."""
    demand = request.cards
    if node is not None:
        return [position for position in good if table.numa[row, position] == node]
    if demand is None or demand.count == 1 or table.nodes[row] == 1:
        return good
    by_node: dict[int, list[int]] = {}
    for position in good:
        by_node.setdefault(int(table.numa[row, position]), []).append(position)
    enough = [(len(positions), number) for number, positions in by_node.items() if len(positions) >= demand.count]
    return by_node[min(enough)[1]] if enough else good


def _choose(table: HostTable, policy: Policy, request: Request, row: int, good: list[int], wish: int) -> list[int]:
    demand = request.cards
    if demand is None:
        return []
    shared = demand.share < CARD or demand.profile is not None
    if demand.count == 1 and shared and wish in good:
        return [wish]
    if shared and policy.cards is CardRule.LOTTERY:
        return sorted(good, key=lambda position: _ticket(request.id, position))[: demand.count]
    if shared:
        return sorted(good, key=lambda position: (int(table.idle[row, position]), position))[: demand.count]
    return good[: demand.count]


def _ticket(request_id: str, position: int) -> bytes:
    return hashlib.blake2b(f"{request_id}/{position}".encode(), digest_size=8).digest()


def _grant(table: HostTable, demand: CardDemand, row: int, position: int) -> Grant:
    address = table.addresses[row][position]
    if demand.profile is None:
        return Grant(address, demand.share)
    geometry = table.geometries[table.geometry[row, position]]
    number = geometry.index(demand.profile)
    start = start_for(geometry, number, int(table.slots[row, position]), int(table.profile[row, position]))
    return Grant(address, geometry.profiles[number].milli, demand.profile, start)
