"""One table from two sources, joined by address: cards, bookings, claims of the snapshot; CPU, memory, free devices of Nova.

Nova knows best what is in use, the records know best what is clean. A card counts as free only if both say so. Nova frees a
device when its server goes; the records may notice a moment later. Such a card is *wary*: not lent until the records have shown
it used or dirty and then free, or still call it free ``settle`` seconds later. Where no API is configured nobody keeps records,
and Nova's word is all.

Nova's hosts are as old as their last report. What was decided meanwhile is kept as *pending* and subtracted, until the host's
number of servers rises or a minute has passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from beamdesk.plugins.nova.fetch import Held, Place
from beamdesk.plugins.nova.options import Options
from beamdesk.plugins.nova.seen import Seen
from beamdesk.scheduling.arrays import CARD
from beamdesk.scheduling.cards import Card, CardMode, CardState
from beamdesk.scheduling.claims import settle
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.host import HostFacts, NumaNode
from beamdesk.scheduling.policy import DEFAULT, make
from beamdesk.scheduling.snapshot import Snapshot, open_table
from beamdesk.scheduling.state import DIRTY, FREE, MODES, USED, HostTable

PENDING_S = 60.0
REPORTED_S = 30.0
"""A host that reports so long after a decision, without the server, will not get it any more: it came and went, or failed."""
WHOLE = MODES.index(CardMode.PASSTHROUGH)


@dataclass(frozen=True, slots=True)
class Pending:
    """A server that was decided for and that Nova's host may not show yet."""

    server: str
    cpu_milli: int
    memory_mib: int
    cards: tuple[str, ...]
    since: float


@dataclass(slots=True)
class Known:
    """What is remembered of one host between two requests. ``gpus``: GPUs that Nova ever showed there."""

    seen: Seen
    pending: list[Pending] = field(default_factory=list)
    gpus: dict[str, str] = field(default_factory=dict)


class World:
    """The table that decisions are made over. Not safe for threads by itself: `engine.py` holds its lock."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._known: dict[str, Known] = {}
        self._held: Held | None = None
        self._source = ""
        self._stale_facts = True
        self._occupied: dict[Place, float] = {}
        self._wary: dict[Place, tuple[float, float]] = {}
        self._base: list[list[int]] = []
        self._raised: set[str] = set()
        self.table = HostTable(())
        self.scheduler = Scheduler(self.table, make(DEFAULT, self.table))

    @property
    def source(self) -> str:
        """Return what decisions rest on now: ``records``, ``fallback-refuse`` or ``fallback-count``."""
        return self._source

    @property
    def counts_only(self) -> bool:
        """Tell whether nothing at all is known of the cards: they can be counted, but no minimum can be checked."""
        return self._source == "fallback-count" and self._held is None

    def bring_up_to_date(self, held: Held | None, hosts: Sequence[Seen], now: float) -> None:
        """Take in the latest snapshot and the hosts that Nova offers for this request."""
        changed = [one for one in hosts if self._note(one)]
        source = self._source_of(held, now)
        published = None if held is None else held.published
        old = None if self._held is None else self._held.published
        anew = published is not old or source != self._source
        self._held, self._source = held, source
        if anew or self._stale_facts:
            self._open()
        expired = self._expire(now)
        if anew or self._stale_facts:
            rows: Iterable[str] = self._known
            self._stale_facts = False
        else:
            rows = {one.name for one in changed} | expired | {host for host, _ in self._wary} | self._raised
        self._raised = set()
        for name in rows:
            self._overlay(name, now)

    def _source_of(self, held: Held | None, now: float) -> str:
        if held is not None and now - held.asof <= self._options.stale_after:
            return "records"
        return f"fallback-{self._options.gpu_fallback}"

    def _note(self, one: Seen) -> bool:
        """Remember what Nova says of a host; tell whether anything is new."""
        known = self._known.get(one.name)
        if known is None:
            known = self._known[one.name] = Known(one)
            self._stale_facts = True
        elif known.seen == one:
            return False
        else:
            known.pending = _still_pending(known, one)
            self._stale_facts |= known.seen.facts != one.facts
            known.seen = one
        for address, vendor, product in one.pools:
            if vendor in self._options.gpu_vendors and address not in known.gpus:
                known.gpus[address] = f"{vendor}:{product}"
                self._stale_facts = True
        return True

    def _expire(self, now: float) -> set[str]:
        """Forget what was pending for too long."""
        touched = set()
        for name, known in self._known.items():
            if known.pending and known.pending[0].since < now - PENDING_S:
                known.pending = [one for one in known.pending if one.since >= now - PENDING_S]
                touched.add(name)
        return touched

    def expect(self, server: str, host: str, cpu_milli: int, memory_mib: int, cards: tuple[str, ...], now: float) -> None:
        """Record that a server was decided for. A second decision for one server (Nova's alternates) changes nothing."""
        known = self._known.get(host)
        if known is None or any(one.server == server for other in self._known.values() for one in other.pending):
            return
        known.pending.append(Pending(server, cpu_milli, memory_mib, cards, now))
        for address in cards:
            self._occupied.setdefault((host, address), now)
        self._overlay(host, now)

    def _open(self) -> None:
        """Make the table anew: the snapshot's hosts and those that only Nova knows."""
        published = None if self._held is None else self._held.published
        before = published.snapshot if published is not None else Snapshot((), (), ())
        hosts = [self._described(host) for host in before.hosts]
        listed = {host.name for host in hosts}
        hosts += [self._bare(known) for name, known in sorted(self._known.items()) if name not in listed]
        self.table = open_table(Snapshot(tuple(hosts), before.claims, before.bookings))
        policy = self._options.policy or (DEFAULT if published is None else published.policy)
        mix = () if published is None else published.mix
        self.scheduler = Scheduler(self.table, make(policy, self.table, mix), keep=1 << 30)
        self._base = self.table.state.tolist()

    def _described(self, host: HostFacts) -> HostFacts:
        """Return a host of the snapshot with Nova's amounts and aggregates, and with GPUs that nobody reported."""
        known = self._known.get(host.name)
        stale = host.stale or self._source == "fallback-refuse"
        if self._source == "fallback-count":
            stale = False
        if known is None:
            return replace(host, stale=stale)
        seen = known.seen
        return replace(
            host,
            cpu_milli=seen.cpu_milli,
            memory_mib=seen.memory_mib,
            numa=_scaled(host, seen),
            cards=host.cards + self._unreported(known, host.cards),
            aggregates=host.aggregates | seen.aggregates,
            dedicated=host.dedicated or seen.dedicated,
            stale=stale,
        )

    def _bare(self, known: Known) -> HostFacts:
        seen = known.seen
        return HostFacts(
            seen.name,
            seen.cpu_milli,
            seen.memory_mib,
            cards=self._unreported(known, ()),
            aggregates=seen.aggregates,
            dedicated=seen.dedicated,
            stale=self._source == "fallback-refuse",
        )

    def _unreported(self, known: Known, cards: tuple[Card, ...]) -> tuple[Card, ...]:
        """Return GPUs that only Nova knows. Their host is a GPU host; they are lent only where counting is allowed."""
        reported = {card.address for card in cards}
        state = CardState.FREE if self._source == "fallback-count" and self._held is None else CardState.FAILED
        return tuple(
            Card(address, kind, 0, 0, 0, 0, state=state) for address, kind in sorted(known.gpus.items()) if address not in reported
        )

    def _overlay(self, name: str, now: float) -> None:
        """Write what Nova and pending decisions say over a host's row."""
        table, known = self.table, self._known[name]
        row = table.row[name]
        table.cpu_free[row] = max(0, known.seen.cpu_free - sum(one.cpu_milli for one in known.pending))
        table.memory_free[row] = max(0, known.seen.memory_free - sum(one.memory_mib for one in known.pending))
        if table.nodes[row] == 1:
            table.numa_cpu_free[row, 0], table.numa_memory_free[row, 0] = table.cpu_free[row], table.memory_free[row]
        free = known.seen.addresses - {address for one in known.pending for address in one.cards}
        for position, address in enumerate(table.addresses[row]):
            if table.mode[row, position] == WHOLE:
                self._overlay_card((row, position), (name, address), address in free, now)
        table.touch(row)

    def _overlay_card(self, at: tuple[int, int], place: Place, free: bool, now: float) -> None:
        """Only a card that records and Nova call free, and not only just, stays free."""
        table, base = self.table, self._base[at[0]][at[1]]
        state = base
        if not free:
            self._occupied.setdefault(place, now)
            self._wary.pop(place, None)
            state = USED if base == FREE else base
        elif place in self._occupied and self._options.api_url:
            self._wary[place] = now, self._occupied.pop(place)
        if free and place in self._wary:
            if self._vouched_for(place):
                del self._wary[place]
            elif base == FREE:
                state = DIRTY
        if base == FREE:
            table.state[at] = state
            table.used[at] = CARD if state == USED else 0
            settle(table, at)

    def _vouched_for(self, place: Place) -> bool:
        """Tell whether the records know that a card was used: they showed it so, or have had time enough to notice."""
        freed, since = self._wary[place]
        return self._held is not None and (self._held.noticed_at(place) >= since or self._held.asof >= freed + self._options.settle)

    def lendable(self, name: str) -> frozenset[str]:
        """Return the cards of a host that Nova would give to a server now."""
        known = self._known.get(name)
        return frozenset() if known is None else known.seen.addresses & set(self.table.addresses[self.table.row[name]])

    def offer(self, name: str, cpu_milli: int, memory_mib: int) -> None:
        """Believe Placement where it offers a host whose last report seems too full: its claims are the newer truth."""
        row = self.table.row[name]
        if self.table.cpu_free[row] < cpu_milli or self.table.memory_free[row] < memory_mib:
            self.table.cpu_free[row] = max(int(self.table.cpu_free[row]), cpu_milli)
            self.table.memory_free[row] = max(int(self.table.memory_free[row]), memory_mib)
            self._raised.add(name)
            self.table.touch(row)


def _still_pending(known: Known, one: Seen) -> list[Pending]:
    """Return what was decided for a host and is not in its numbers yet.

    Nova puts a server on a host a moment before it writes the host's numbers: while the host counts fewer servers than it has,
    the latest of them are not in its numbers. nova-compute tells the scheduler of a server when it is built, after it has written
    the numbers: as many as these count more than before, beyond the servers that are known, are the first whose cards it holds.
    """
    arrived = [server for server in known.pending if server.server in one.known]
    counted = {server.server for server in arrived[: max(0, len(arrived) - max(0, len(one.known) - one.servers))]}
    unheard = [server for server in known.pending if server.server not in one.known and not one.addresses & set(server.cards)]
    counted |= {server.server for server in unheard[: max(0, one.beyond - known.seen.beyond)]}
    return [
        server
        for server in known.pending
        if server.server not in counted and (server.server in one.known or one.updated < server.since + REPORTED_S)
    ]


def _scaled(host: HostFacts, seen: Seen) -> tuple[NumaNode, ...]:
    """Return the NUMA nodes in Nova's amounts: its allocation ratios and reserves are not in the records."""
    if not host.numa or (host.cpu_milli, host.memory_mib) == (seen.cpu_milli, seen.memory_mib):
        return host.numa
    nodes, cpu, memory = [], seen.cpu_milli, seen.memory_mib
    for one in host.numa[:-1]:
        part = NumaNode(
            one.cpu_milli * seen.cpu_milli // max(1, host.cpu_milli), one.memory_mib * seen.memory_mib // max(1, host.memory_mib)
        )
        nodes.append(part)
        cpu, memory = cpu - part.cpu_milli, memory - part.memory_mib
    return (*nodes, NumaNode(max(0, cpu), max(0, memory)))
