"""What Nova says of one host at this moment, taken out of a HostState. Reads attributes only, so that no nova is needed to test it.

CPU and memory are counted with Nova's own allocation ratios. A PCI pool has one device and names its address;
the address is what joins Nova's devices with the records of cards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

DEDICATED = "beamdesk:dedicated"
"""Key in the metadata of a host aggregate: only requests that name it may use its hosts."""


class HostState(Protocol):
    """The attributes of Nova's HostState that are read here."""

    host: str
    vcpus_total: int
    vcpus_used: int
    cpu_allocation_ratio: float | None
    total_usable_ram_mb: int
    free_ram_mb: int
    ram_allocation_ratio: float | None
    num_instances: int
    instances: Mapping[str, Any]
    updated: datetime | None
    aggregates: Iterable[Any]
    pci_stats: Any
    allocation_candidates: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One host in Nova's eyes, as of ``updated`` (seconds since the epoch).

    ``pools``: address, vendor and product of the PCI devices that Nova holds for free. ``known``: the servers that it has there.
    """

    name: str
    cpu_milli: int
    cpu_free: int
    memory_mib: int
    memory_free: int
    servers: int
    aggregates: frozenset[str]
    dedicated: bool
    pools: tuple[tuple[str, str, str], ...]
    known: frozenset[str] = frozenset()
    updated: float = 0.0

    @property
    def beyond(self) -> int:
        """Return how many servers its numbers count beyond those that it is known to have."""
        return max(0, self.servers - len(self.known))

    @property
    def facts(self) -> tuple[int, int, frozenset[str], bool]:
        """Return what does not change with servers."""
        return self.cpu_milli, self.memory_mib, self.aggregates, self.dedicated

    @property
    def addresses(self) -> frozenset[str]:
        """Return the addresses of the devices that Nova holds for free."""
        return frozenset(address for address, _, _ in self.pools)


def look(state: HostState) -> Seen:
    """Read a HostState. Negative amounts (overcommitted hosts) count as nothing free."""
    cpu = round(state.vcpus_total * _ratio(state.cpu_allocation_ratio) * 1000)
    memory = round(state.total_usable_ram_mb * _ratio(state.ram_allocation_ratio))
    memory_used = state.total_usable_ram_mb - state.free_ram_mb
    names, dedicated = _aggregates(state.aggregates)
    return Seen(
        state.host,
        max(0, cpu),
        max(0, cpu - round(state.vcpus_used * 1000)),
        max(0, memory),
        max(0, memory - memory_used),
        state.num_instances,
        names,
        dedicated,
        tuple(
            (str(pool["address"]), str(pool.get("vendor_id", "")), str(pool.get("product_id", "")))
            for pool in _pools(state)
            if pool.get("count", 0) > 0 and pool.get("address")
        ),
        frozenset(state.instances),
        state.updated.timestamp() if state.updated is not None else 0.0,
    )


def _ratio(value: float | None) -> float:
    """Nova writes 0.0 or None while a compute service has not yet said its ratio."""
    return value or 1.0


def _pools(state: HostState) -> list[Mapping[str, Any]]:
    return list(state.pci_stats.pools) if state.pci_stats is not None else []


def _aggregates(aggregates: Iterable[Any]) -> tuple[frozenset[str], bool]:
    known = list(aggregates)
    dedicated = any(str((one.metadata or {}).get(DEDICATED, "")).lower() == "true" for one in known)
    return frozenset(str(one.name) for one in known), dedicated


Offer = tuple[str, ...]


def offers(state: HostState) -> tuple[Offer, ...] | None:
    """Return for each of Placement's candidates on this host the addresses of its devices; None where Placement names none.

    Placement names providers, Nova's pools say which device a provider is. Without PCI in Placement no pool has a provider.
    """
    by_provider = {
        str(pool["rp_uuid"]): str(pool["address"]) for pool in _pools(state) if pool.get("rp_uuid") and pool.get("address")
    }
    if not by_provider:
        return None
    candidates = getattr(state, "allocation_candidates", None) or ()
    return tuple(tuple(by_provider[one] for one in candidate["allocations"] if one in by_provider) for candidate in candidates)
