"""Fragmentation: how much of a host's idle cards the typical request could not use.

Q. Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC'23. The
fragment of host n for task m is all of n's idle cards if m would not fit there (CPU short, wrong model, too few cards) or asks no
card, else what is idle on cards too small for m; averaged over the typical tasks. Placing a request changes it: that difference is
the gradient. Weights are whole numbers, so that sums are exact and a cached value equals a fresh one to the last bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from beamdesk.scheduling.arrays import CARD, Bools, Floats, Ints
from beamdesk.scheduling.request import CardDemand, Request
from beamdesk.scheduling.rows import Rows
from beamdesk.scheduling.state import HostTable

Grade = Callable[[Ints], Ints | Floats]
_ALIKE = 48
"""From this many rows on, look for rows that are alike before computing each."""
_CHUNK = 256
"""Rows evaluated at once: bounds memory (rows x cards x kinds of demand)."""


@dataclass(frozen=True, slots=True)
class Task:
    """A typical request: how often it comes, as a whole number."""

    cpu_milli: int
    memory_mib: int
    cards: CardDemand | None
    weight: int


Mix = tuple[Task, ...]


def typical(requests: Iterable[Request], share: float = 0.95, *, memory: bool = True) -> Mix:
    """Return the most frequent kinds of request that together make up ``share`` of all, weighted by their number.

    ``memory=False`` counts kinds that differ by memory alone as one, as FGD's authors do.
    """
    counts = Counter((one.cpu_milli, one.memory_mib if memory else 0, one.cards) for one in requests)
    total, chosen, mix = sum(counts.values()), 0, []
    for (cpu, mib, cards), count in sorted(counts.items(), key=lambda item: (-item[1], _order(item[0]))):
        mix.append(Task(cpu, mib, cards, count))
        chosen += count
        if chosen >= share * total:
            break
    return tuple(mix)


def _order(key: tuple[int, int, CardDemand | None]) -> tuple[str, ...]:
    cpu, memory, cards = key
    if cards is None:
        return str(cpu), str(memory), "0", "0", ""
    return str(cpu), str(memory), str(cards.count), str(cards.share), "|".join(sorted(cards.models))


class Fragmentation:
    """Fragmentation of hosts of one table under one mix. ``memory=False`` ignores memory, as published."""

    def __init__(self, table: HostTable, mix: Mix, *, memory: bool) -> None:
        asking = [task for task in mix if task.cards is not None and task.weight > 0]
        self.total = sum(task.weight for task in mix) or 1
        self.cardless = sum(task.weight for task in mix if task.cards is None)
        self.cpu = np.array([task.cpu_milli for task in asking], np.int64)
        self.memory = np.array([task.memory_mib if memory else 0 for task in asking], np.int64)
        self.count = np.array([task.cards.count for task in asking if task.cards], np.int64)
        self.weight = np.array([task.weight for task in asking], np.int64)
        # Tasks that ask for the same kind of card, whatever number of them, share the per-card work.
        kinds = [replace(task.cards, count=1) for task in asking if task.cards]
        self.kinds = list(dict.fromkeys(kinds))
        self.kind = np.array([self.kinds.index(kind) for kind in kinds], np.int64)
        self.least = np.array([kind.share for kind in self.kinds], np.int64)
        self.profiled = [number for number, kind in enumerate(self.kinds) if kind.profile is not None]
        self._table, self._facts = table, -1
        self._suits = np.zeros((0, 0, 0), np.bool_)

    def _refresh(self) -> None:
        if self._facts != self._table.facts_generation:
            self._facts = self._table.facts_generation
            empty = np.zeros((*self._table.state.shape, 0), np.bool_)
            self._suits = np.stack([self._table.suits(kind) for kind in self.kinds], axis=2) if self.kinds else empty

    def of(self, rows: Rows) -> Ints:
        """Return weight times thousandths of a card that are fragments, for each of the rows."""
        self._refresh()
        if len(rows.at) <= _CHUNK:
            return self._of(rows)
        parts = [
            self._of(rows.pick(np.arange(start, min(start + _CHUNK, len(rows.at))))) for start in range(0, len(rows.at), _CHUNK)
        ]
        return np.concatenate(parts)

    def _of(self, rows: Rows) -> Ints:
        idle = rows.idle
        total = idle.sum(axis=1)
        if not len(self.kinds):
            return np.asarray(total * self.cardless, np.int64)
        fit = self._suits[rows.at] & (idle[:, :, None] >= self.least)
        for number in self.profiled:
            suits = self._suits[rows.at, :, number] & (idle > 0)
            fit[:, :, number] = rows.starts(self.kinds[number], suits) >= 0
        enough, small = fit.sum(axis=1), (idle[:, :, None] * ~fit).sum(axis=1)
        able = (rows.cpu[:, None] >= self.cpu) & (rows.memory[:, None] >= self.memory) & (enough[:, self.kind] >= self.count)
        wasted = (np.where(able, small[:, self.kind], total[:, None]) * self.weight).sum(axis=1)
        return np.asarray(wasted + total * self.cardless, np.int64)

    def gain(self, rows: Rows, request: Request, fit: Bools, grade: Grade) -> tuple[Ints, Ints]:
        """Return what placing the request on each of the rows takes from fragmentation (negative = adds), and the best card.

        ``grade`` turns what is taken into what cards are compared by. The card is -1 where the request leaves no choice (no card,
        or several whole ones).
        """
        if len(rows.at) > _ALIKE:
            first, place = distinct(rows)
            gained, card = self.gain_each(rows.pick(first), request, fit[first], grade)
            return gained[place], card[place]
        return self.gain_each(rows, request, fit, grade)

    def gain_each(self, rows: Rows, request: Request, fit: Bools, grade: Grade) -> tuple[Ints, Ints]:
        """Do `gain`'s work, row by row."""
        card = np.full(len(rows.at), -1, np.int64)
        before = self.of(rows)
        demand = request.cards
        if demand is not None and demand.count == 1 and (demand.share < CARD or demand.profile is not None):
            return self._best_card(rows, request, demand, fit, before, grade)
        after = rows.pick(np.arange(len(rows.at)))
        after.cpu -= request.cpu_milli
        after.memory -= request.memory_mib
        if demand is not None:
            given = fit & (np.cumsum(fit, axis=1) <= demand.count)
            if demand.profile is None:
                after.idle[given] = 0
            else:
                lay(after, demand, given)
        return before - self.of(after), card

    def _best_card(
        self, rows: Rows, request: Request, demand: CardDemand, fit: Bools, before: Ints, grade: Grade
    ) -> tuple[Ints, Ints]:
        """Try each card that fits; of equal ones the first."""
        row, card = np.nonzero(fit)
        after = rows.pick(row)
        after.cpu -= request.cpu_milli
        after.memory -= request.memory_mib
        given = np.zeros(after.idle.shape, np.bool_)
        given[np.arange(len(row)), card] = True
        if demand.profile is None:
            after.idle[given] -= demand.share
        else:
            lay(after, demand, given)
        gained = before[row] - self.of(after)
        best, choice = np.full(len(rows.at), np.iinfo(np.int64).min), np.full(len(rows.at), -1, np.int64)
        order = np.lexsort((card, -grade(gained), row))
        first = np.r_[True, row[order][1:] != row[order][:-1]] if len(order) else np.zeros(0, np.bool_)
        chosen = order[first]
        best[row[chosen]], choice[row[chosen]] = gained[chosen], card[chosen]
        return best, choice


def lay(rows: Rows, demand: CardDemand, given: Bools) -> None:
    """Write the demand's profile onto the ``given`` cards of a copy, each at its best start."""
    starts = rows.starts(demand, given)
    for number, card in np.argwhere(given).tolist():
        geometry = rows.table.geometries[rows.table.geometry[rows.at[number], card]]
        index = geometry.index(demand.profile or "")
        profile = geometry.profiles[index]
        rows.slots[number, card] |= ((1 << profile.span) - 1) << int(starts[number, card])
        rows.profile[number, card] = -1 if geometry.mixed else index
        rows.idle[number, card] = max(0, int(rows.idle[number, card]) - profile.milli)


def distinct(rows: Rows) -> tuple[Ints, Ints]:
    """Return the first of each set of rows that are alike in all that fragmentation looks at, and each row's place among them.

    Fresh hosts of one make are alike: most of a cold table needs to be computed once per make.
    """
    table, at = rows.table, rows.at
    columns = [rows.cpu[:, None], rows.memory[:, None], rows.idle, rows.slots, rows.profile, table.kind[at][:, None]]
    keys = np.ascontiguousarray(np.concatenate(columns, axis=1))
    packed = keys.view([("", keys.dtype)] * keys.shape[1]).ravel()
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    return first, inverse.ravel()
