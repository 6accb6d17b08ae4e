"""A host as it is described to the scheduler: capacity, cards, purpose. Validated, immutable, without anything that is in use."""

from __future__ import annotations

from dataclasses import dataclass

from beamdesk.scheduling.cards import Card
from beamdesk.scheduling.checks import amount, word
from beamdesk.scheduling.errors import InvalidHost


@dataclass(frozen=True, slots=True)
class NumaNode:
    """One NUMA node's share of the host's CPU and memory."""

    cpu_milli: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One host. Empty ``numa`` = a single node with everything.

    ``dedicated``: only requests that name one of ``aggregates`` may use it. ``enabled``: the operator's switch. ``stale``: its
    GPU report is too old to lend cards by.
    """

    name: str
    cpu_milli: int
    memory_mib: int
    disk_gib: int = 0
    cards: tuple[Card, ...] = ()
    numa: tuple[NumaNode, ...] = ()
    aggregates: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    dedicated: bool = False
    enabled: bool = True
    stale: bool = False

    def __post_init__(self) -> None:
        word(InvalidHost, "host.name", self.name)
        for field in ("cpu_milli", "memory_mib", "disk_gib"):
            amount(InvalidHost, f"host {self.name}: {field}", getattr(self, field))
        addresses = [card.address for card in self.cards]
        if len(set(addresses)) != len(addresses):
            raise InvalidHost(f"Host {self.name} reports two cards at one address.", field="cards")
        for node in self.numa:
            amount(InvalidHost, f"host {self.name}: numa.cpu_milli", node.cpu_milli)
            amount(InvalidHost, f"host {self.name}: numa.memory_mib", node.memory_mib)
        if self.numa and (
            sum(node.cpu_milli for node in self.numa) != self.cpu_milli
            or sum(node.memory_mib for node in self.numa) != self.memory_mib
        ):
            raise InvalidHost(f"Host {self.name}: its NUMA nodes do not add up to its CPU and memory.", field="numa")
        if any(card.numa >= len(self.nodes) for card in self.cards):
            raise InvalidHost(f"Host {self.name} has a card on a NUMA node that it does not have.", field="cards")

    @property
    def nodes(self) -> tuple[NumaNode, ...]:
        """Return the NUMA nodes, at least one."""
        return self.numa or (NumaNode(self.cpu_milli, self.memory_mib),)

    @property
    def ordered_cards(self) -> tuple[Card, ...]:
        """Return the cards, least capable first, then by address: the order in which equally good cards are given."""
        return tuple(sorted(self.cards, key=lambda card: (card.memory_mib, card.cores * card.clock_mhz, card.address)))
