"""One decision inside nova-scheduler: bring the table up to date, ask the core, see that Placement's offers can follow it.

The core decides over the hosts that Nova offers. Placement offers each host with sets of devices; a set with a card that the core
would not give (dirty, failed, booked, too small) is struck out, and a host without a set left is struck out too. The order of
sets is the core's, so that the first, which Nova claims, has the core's cards wherever Placement named them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from beamdesk.plugins.nova.asked import Asked
from beamdesk.plugins.nova.fetch import Source
from beamdesk.plugins.nova.journal import Entry, Journal
from beamdesk.plugins.nova.options import Options
from beamdesk.plugins.nova.seen import Offer, Seen
from beamdesk.plugins.nova.world import World
from beamdesk.scheduling import filters, line
from beamdesk.scheduling.decision import Decision
from beamdesk.scheduling.request import CardDemand, NumaRule, Request

LOG = logging.getLogger(__name__)
SHOWN = 5
"""Hosts of a ranking that are written down."""
ANY = (-1,)
"""Stands for the offers of a host of which Placement names no devices."""
Offers = Mapping[str, tuple[Offer, ...] | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer: hosts, best first; for each the numbers of Placement's offers that may be claimed, best first."""

    decision: Decision
    source: str
    hosts: tuple[str, ...] = ()
    offers: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def why(self) -> str:
        """Say in words why there is no host."""
        if self.decision.impossible is not None:
            return self.decision.impossible
        counts = (f"{count} {reason} ({filters.REASONS[reason]})" for reason, count in self.decision.refusals)
        return "No host can take it now: " + "; ".join(counts)


class Engine:
    """Decides. One for a process; filter and weigher share it."""

    def __init__(self, options: Options, source: Source, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        self._options, self._source, self._journal, self._clock = options, source, journal, clock
        self._world = World(options)
        self._lock = threading.Lock()
        self._journal_trouble = False

    def refuse(self, server: str, offered: int, why: str) -> None:
        """Write down a request that contradicts itself."""
        LOG.warning("Server %s is refused: %s", server, why)
        self._note(Entry(self._clock(), server, offered=offered, refused=why))

    def judge(self, asked: Asked, seen: Sequence[Seen], offers: Offers) -> Verdict:
        """Decide for one server over the hosts that Nova offers."""
        began, held = time.perf_counter(), self._source.held()
        with self._lock:
            now = self._clock()
            world = self._world
            world.bring_up_to_date(held, seen, now)
            request = asked.request
            if world.counts_only and request.cards is not None:
                request = _counted(request)
            for one in seen:
                world.offer(one.name, request.cpu_milli, request.memory_mib)
            mine = line.own(world.table, request, asked.bookings, now)
            verdict = self._decide(mine, [one.name for one in seen], offers, now)
            self._expect(verdict, offers, now)
        self._tell(verdict, offers, len(seen), time.perf_counter() - began)
        return verdict

    def _decide(self, asked: line.Asked, names: list[str], offers: Offers, now: float) -> Verdict:
        """Decide; where Placement's offers cannot follow for some hosts, decide again without them."""
        decision = self._over(asked, names, now)
        hosts = tuple(one.host for one in decision.ranking)
        cards = asked.request.cards
        if cards is None or cards.profile is not None or not hosts:
            return self._verdict(decision, hosts, {})
        usable = self._usable(asked, decision, offers, hosts)
        if unusable := [host for host in hosts if not usable[host]]:
            decision = self._over(asked, [name for name in names if name not in unusable], now)
            hosts = tuple(one.host for one in decision.ranking)
            if hosts:
                usable = self._usable(asked, decision, offers, hosts)
        return self._verdict(decision, hosts, {host: usable[host] for host in hosts})

    def _verdict(self, decision: Decision, hosts: tuple[str, ...], offers: dict[str, tuple[int, ...]]) -> Verdict:
        return Verdict(replace(decision, ranking=decision.ranking[:SHOWN]), self._world.source, hosts, offers)

    def _over(self, asked: line.Asked, names: list[str], now: float) -> Decision:
        """Ask the core over some hosts. All of them are no restriction: the decision is then the core's own, word for word."""
        only = frozenset() if len(names) == len(self._world.table) else frozenset(names)
        if not names:
            policy = self._world.scheduler.policy.name
            return Decision(policy, asked.request, now, 0, impossible="Placement offers no usable device.")
        return line.decide(self._world.scheduler, replace(asked, request=replace(asked.request, only_hosts=only)), now)

    def _usable(self, asked: line.Asked, decision: Decision, offers: Offers, hosts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        """Return for each host the numbers of the offers whose cards the core would give, those of the decision first."""
        request, table = decision.request, self._world.table
        at = np.array([table.row[host] for host in hosts])
        with line.without(table, tuple(one for one in asked.own if one != request.booking)):
            _, _, fit = filters.refusals(table, request, at, filters.window_of(request, decision.now))
        room = filters.numa_room(table, request, at, fit) if request.numa is NumaRule.STRICT else None
        given = frozenset(grant.address for grant in decision.grants)
        result: dict[str, tuple[int, ...]] = {}
        for number, host in enumerate(hosts):
            row = int(at[number])
            good = {address: place for place, address in enumerate(table.addresses[row]) if fit[number, place]}
            nodes = None if room is None else {node for node in range(room.shape[1]) if room[number, node]}
            ours = given if host == decision.host else frozenset()
            named = offers.get(host)
            if named is None:
                # Nova would take any of the devices that it holds for free: all of them must be fit to be given.
                result[host] = ANY if all(address in good for address in self._world.lendable(host)) else ()
            else:
                result[host] = self._follow(row, named, good, nodes, ours)
        return result

    def _follow(
        self, row: int, offers: tuple[Offer, ...], good: dict[str, int], nodes: set[int] | None, given: frozenset[str]
    ) -> tuple[int, ...]:
        """Sort the offers of one host, those with the decision's cards first; leave out what must not be claimed."""
        table = self._world.table
        known = set(table.addresses[row])
        able = []
        for number, offer in enumerate(offers):
            cards = [address for address in offer if address in known]
            if any(address not in good for address in cards):
                continue
            if nodes is not None and not any(all(table.numa[row, good[one]] == node for one in cards) for node in nodes):
                continue
            able.append((len(given.difference(cards)), sorted(good[one] for one in cards), number))
        return tuple(number for _, _, number in sorted(able))

    def _expect(self, verdict: Verdict, offers: Offers, now: float) -> None:
        decision = verdict.decision
        if decision.host is None:
            return
        request = decision.request
        self._world.expect(request.id, decision.host, request.cpu_milli, request.memory_mib, self._cards(verdict, offers), now)

    def _cards(self, verdict: Verdict, offers: Offers) -> tuple[str, ...]:
        """Return the cards that Nova will claim: those of the first offer, or the core's where Placement names none."""
        decision = verdict.decision
        if decision.host is None or decision.request.cards is None or decision.request.cards.profile is not None:
            return ()
        named = offers.get(decision.host)
        if named is None or not verdict.offers.get(decision.host):
            return tuple(grant.address for grant in decision.grants)
        return named[verdict.offers[decision.host][0]]

    def _tell(self, verdict: Verdict, offers: Offers, offered: int, took: float) -> None:
        decision = verdict.decision
        if decision.host is None:
            LOG.warning("Server %s finds no host (%s): %s", decision.request.id, verdict.source, verdict.why)
        else:
            LOG.debug("Server %s: %s of %d hosts (%s)", decision.request.id, decision.host, offered, verdict.source)
        self._note(
            Entry(decision.now, decision.request.id, verdict.source, offered, took, self._cards(verdict, offers), decision=decision)
        )

    def _note(self, entry: Entry) -> None:
        try:
            self._journal.write(entry)
        except OSError as error:
            if not self._journal_trouble:
                LOG.warning("Decisions cannot be written to [beamdesk]journal: %s", error)
            self._journal_trouble = True
        else:
            self._journal_trouble = False


def _counted(request: Request) -> Request:
    """Return the request with nothing but the number of its cards: no fact of any card is known to hold it against."""
    cards = request.cards
    if cards is None or cards.profile is not None:
        return request
    return replace(request, cards=CardDemand(cards.count), numa=NumaRule.NONE)
