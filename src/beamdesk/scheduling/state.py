"""The table of hosts as numpy arrays: capacity, what is free, and each card's state. Row order is name order.

Whoever changes a row raises its version, so that anything computed per host knows what is stale (`View` in `decide.py`). The table
decides nothing. Servers are written into it by `claims.py`, bookings by `bookings.py`; both take its lock. Readers that run beside
writers take it too.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from beamdesk.scheduling.arrays import CARD, Bools, Ints
from beamdesk.scheduling.cards import Card, CardMode, CardState, Geometry
from beamdesk.scheduling.errors import InvalidHost
from beamdesk.scheduling.host import HostFacts

if TYPE_CHECKING:
    from beamdesk.scheduling.bookings import Booking
    from beamdesk.scheduling.claims import Claim
    from beamdesk.scheduling.request import CardDemand

STATES = tuple(CardState)
MODES = tuple(CardMode)
FREE, USED, DIRTY, CLEANING, FAILED = range(len(STATES))
ABSENT = -1


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest of each kind among all hosts. ``compute`` = cores x clock, to which the FP32 rate is proportional."""

    compute: int
    bandwidth: int
    clock: int
    card_memory: int
    cores: int
    cards: int
    cpu: int
    memory: int


class HostTable:
    """All hosts. ``[row]`` arrays are per host, ``[row, card]`` arrays per card, padded with `ABSENT` cards."""

    def __init__(self, hosts: Iterable[HostFacts]) -> None:
        self.lock = threading.RLock()
        self.claims: dict[str, Claim] = {}
        self.charges: dict[str, list[tuple[int, int, int]]] = {}
        self.bookings: dict[str, Booking] = {}
        self.groups: dict[str, dict[int, int]] = {}
        self.generation = 0
        self.facts_generation = 0
        self._promised: int | None = None
        self.load(hosts)

    def load(self, hosts: Iterable[HostFacts]) -> None:
        """Describe all hosts anew, as if they held nothing. Only `reports.py` calls this on a table in use.

        Raises:
            InvalidHost: two hosts of one name; the table is unchanged then.
        """
        ordered = sorted(hosts, key=lambda host: host.name)
        for one, other in itertools.pairwise(ordered):
            if one.name == other.name:
                raise InvalidHost(f"Two hosts are named {one.name}.", field="name")
        self.hosts = ordered
        self.names = [host.name for host in ordered]
        self.row = {name: row for row, name in enumerate(self.names)}
        self._allocate()
        for row, host in enumerate(ordered):
            self._write_facts(row, host)
        self.facts_changed()

    def _allocate(self) -> None:
        rows, width = len(self.hosts), max((len(host.cards) for host in self.hosts), default=0) or 1
        nodes = max((len(host.nodes) for host in self.hosts), default=1)
        self.cpu_total, self.memory_total, self.disk_total = (np.zeros(rows, np.int64) for _ in range(3))
        self.cpu_free, self.memory_free, self.disk_free = (np.zeros(rows, np.int64) for _ in range(3))
        self.nodes = np.array([len(host.nodes) for host in self.hosts], np.int64)
        self.numa_cpu_free, self.numa_memory_free = (np.zeros((rows, nodes), np.int64) for _ in range(2))
        self.enabled, self.stale, self.dedicated, self.has_cards = (np.zeros(rows, np.bool_) for _ in range(4))
        self.version, self.facts_hash = np.ones(rows, np.int64), np.zeros(rows, np.int64)
        self.state = np.full((rows, width), ABSENT, np.int64)
        self.used, self.idle, self.slots = (np.zeros((rows, width), np.int64) for _ in range(3))
        self.profile = np.full((rows, width), -1, np.int64)
        self.model, self.geometry = (np.full((rows, width), -1, np.int64) for _ in range(2))
        self.card_memory, self.cores, self.bandwidth, self.clock = (np.zeros((rows, width), np.int64) for _ in range(4))
        self.mode, self.numa = (np.zeros((rows, width), np.int64) for _ in range(2))
        self.addresses: list[tuple[str, ...]] = [()] * rows
        self.holders: list[set[str]] = [set() for _ in range(rows)]
        self.booked: dict[int, list[Booking]] = {}
        self.models: list[str] = []
        self.geometries: list[Geometry] = []
        self.aggregates: dict[str, Bools] = {}
        self.images: dict[str, Bools] = {}
        self.kind = np.zeros(rows, np.int64)
        self._kinds: list[object] = []
        self._digests, self._digest_version = np.zeros(rows, np.uint64), np.zeros(rows, np.int64)
        self._fits: dict[CardDemand, Bools] = {}
        self._least: dict[CardDemand, tuple[int, int]] = {}
        self._largest: Largest | None = None

    def __len__(self) -> int:
        return len(self.hosts)

    @property
    def width(self) -> int:
        """Return how many cards a row has room for."""
        return self.state.shape[1]

    def _write_facts(self, row: int, host: HostFacts) -> None:
        """Write a host that holds nothing."""
        self.hosts[row] = host
        self.cpu_total[row] = self.cpu_free[row] = host.cpu_milli
        self.memory_total[row] = self.memory_free[row] = host.memory_mib
        self.disk_total[row] = self.disk_free[row] = host.disk_gib
        for node, share in enumerate(host.nodes):
            self.numa_cpu_free[row, node], self.numa_memory_free[row, node] = share.cpu_milli, share.memory_mib
        self.enabled[row], self.stale[row], self.dedicated[row] = host.enabled, host.stale, host.dedicated
        self.has_cards[row] = bool(host.cards)
        for names, table in ((host.aggregates, self.aggregates), (host.images, self.images)):
            for name in names:
                table.setdefault(name, np.zeros(len(self), np.bool_))[row] = True
        cards = host.ordered_cards
        self.addresses[row] = tuple(card.address for card in cards)
        for position, card in enumerate(cards):
            self._write_card(row, position, card)
        self.facts_hash[row] = _facts_hash(host)
        self.kind[row] = _intern(self._kinds, tuple(card.facts for card in cards))

    def _write_card(self, row: int, position: int, card: Card) -> None:
        at = (row, position)
        self.state[at], self.mode[at], self.numa[at] = STATES.index(card.state), MODES.index(card.mode), card.numa
        self.model[at] = _intern(self.models, card.model)
        self.card_memory[at], self.cores[at] = card.memory_mib, card.cores
        self.bandwidth[at], self.clock[at] = card.bandwidth_gbs, card.clock_mhz
        self.geometry[at] = -1 if card.geometry is None else _intern(self.geometries, card.geometry)
        self.idle[at] = CARD if card.state is CardState.FREE else 0

    def touch(self, row: int) -> None:
        """Record that a row changed."""
        self.generation += 1
        self.version[row] += 1

    def promised(self) -> None:
        """Record that a booking or a group changed."""
        self._promised = None

    def facts_changed(self) -> None:
        """Record that what does not change with servers changed: everything computed is stale."""
        self.generation += 1
        self.facts_generation += 1
        self._promised = None
        self._fits.clear()
        self._least.clear()
        self._largest = None

    @property
    def card_count(self) -> int:
        """Return how many cards there are, in whatever state."""
        return sum(map(len, self.addresses))

    def position(self, row: int, address: str) -> int:
        """Return the place of a card in its row, or -1."""
        addresses = self.addresses[row]
        return addresses.index(address) if address in addresses else -1

    def suits(self, demand: CardDemand) -> Bools:
        """Tell for each card whether its facts meet the demand, whatever its state. [row, card]."""
        known = self._fits.get(demand)
        if known is None:
            known = self._fits[demand] = self._suits(demand)
        return known

    @property
    def largest(self) -> Largest:
        """Return the largest of each kind among all hosts: what scores are normalised by. Never 0."""
        if self._largest is None:
            arrays = (
                self.cores * self.clock,
                self.bandwidth,
                self.clock,
                self.card_memory,
                self.cores,
                (self.state != ABSENT).sum(axis=1),
                self.cpu_total,
                self.memory_total,
            )
            self._largest = Largest(*(max(1, int(array.max(initial=0))) for array in arrays))
        return self._largest

    def least_card(self, demand: CardDemand) -> tuple[int, int]:
        """Return memory and cores of the smallest card that suits a demand, (0, 0) when there is none."""
        known = self._least.get(demand)
        if known is None:
            suits = self.suits(demand)
            cards = zip(self.card_memory[suits].tolist(), self.cores[suits].tolist(), strict=True)
            known = self._least[demand] = min(cards, default=(0, 0))
        return known

    def _suits(self, demand: CardDemand) -> Bools:
        good = (
            (self.state != ABSENT)
            & (self.card_memory >= demand.memory_mib)
            & (self.cores >= demand.cores)
            & (self.bandwidth >= demand.bandwidth_gbs)
            & (self.clock >= demand.clock_mhz)
        )
        if demand.models:
            good &= np.isin(self.model, [number for number, name in enumerate(self.models) if name in demand.models])
        if demand.profile is not None:
            offering = [number for number, one in enumerate(self.geometries) if one.index(demand.profile) >= 0]
            return np.asarray(good & np.isin(self.geometry, offering), np.bool_)
        whole = self.mode == MODES.index(CardMode.PASSTHROUGH)
        lent = self.mode == MODES.index(CardMode.HOST)
        if demand.share < CARD:
            return np.asarray(good & lent, np.bool_)
        return np.asarray(good & (whole | lent if demand.container else whole), np.bool_)

    def digest(self) -> int:
        """Return a 64-bit summary of the whole state: equal states have equal digests, in whatever order they came about."""
        stale = np.flatnonzero(self._digest_version != self.version)
        if len(stale):
            columns = [self.facts_hash, self.cpu_free, self.memory_free, self.disk_free, self.enabled, self.stale]
            wide = [self.numa_cpu_free, self.numa_memory_free, self.state, self.used, self.slots, self.profile]
            parts = [column[stale].astype(np.int64)[:, None] for column in columns] + [table[stale] for table in wide]
            self._digests[stale] = _mix(np.concatenate(parts, axis=1).view(np.uint64), stale)
            self._digest_version[stale] = self.version[stale]
        if self._promised is None:
            groups = sorted((name, sorted(rows.items())) for name, rows in self.groups.items() if rows)
            text = repr((sorted(self.bookings.items()), groups))
            self._promised = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        return (int(self._digests.sum(dtype=np.uint64)) + self._promised) % (1 << 64)


T = TypeVar("T")


def _intern(known: list[T], value: T) -> int:
    if value not in known:
        known.append(value)
    return known.index(value)


def _facts_hash(host: HostFacts) -> int:
    facts = (
        host.name,
        host.cpu_milli,
        host.memory_mib,
        host.disk_gib,
        host.nodes,
        sorted(host.aggregates),
        sorted(host.images),
        host.dedicated,
        [(card.address, *card.facts) for card in host.ordered_cards],
    )
    return int.from_bytes(hashlib.blake2b(repr(facts).encode(), digest_size=8).digest(), "big", signed=True)


def _mix(table: npt.NDArray[np.uint64], salt: Ints) -> npt.NDArray[np.uint64]:
    """Hash each row of numbers, all columns at once: quick, and good enough to see a difference. Not for adversaries."""
    column = np.arange(1, table.shape[1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    value = (table + salt.astype(np.uint64)[:, None] * np.uint64(0xD6E8FEB86659FD93) + column) * (column | np.uint64(1))
    value ^= value >> np.uint64(32)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(29)
    return np.asarray(value.sum(axis=1, dtype=np.uint64), np.uint64)
