"""Some hosts' changing state, copied out of the table, and which of their cards fit a demand.

A copy can be written into: "what if this server were here?" is asked of copies only (`fragment.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from beamdesk.scheduling.arrays import Bools, Ints
from beamdesk.scheduling.cards import start_for
from beamdesk.scheduling.request import CardDemand
from beamdesk.scheduling.state import FREE, HostTable


@dataclass(slots=True)
class Rows:
    """State of the hosts in rows ``at`` of ``table``. [k] and [k, card] arrays."""

    table: HostTable
    at: Ints
    cpu: Ints
    memory: Ints
    idle: Ints
    slots: Ints
    profile: Ints
    usable: Bools
    """Cards that are free and promised to nobody."""

    def pick(self, which: Ints | Bools) -> Rows:
        """Return copies of some of these rows (an index may be repeated)."""
        return Rows(
            self.table,
            self.at[which],
            self.cpu[which],
            self.memory[which],
            self.idle[which],
            self.slots[which],
            self.profile[which],
            self.usable[which],
        )

    def fits(self, demand: CardDemand) -> Bools:
        """Tell for each card whether it could be given to the demand now. [k, card]."""
        good = self.table.suits(demand)[self.at] & self.usable
        if demand.profile is None:
            good &= self.idle >= demand.share
            return good
        return self.starts(demand, good) >= 0

    def starts(self, demand: CardDemand, among: Bools) -> Ints:
        """Return for each card of ``among`` the slot at which the demand's profile would best lie, -1 = nowhere. [k, card]."""
        result = np.full(self.idle.shape, -1, np.int64)
        cells = np.nonzero(among)
        if not len(cells[0]):
            return result
        kinds = np.stack([self.table.geometry[self.at[cells[0]], cells[1]], self.slots[cells], self.profile[cells]], axis=1)
        unique, inverse = np.unique(kinds, axis=0, return_inverse=True)
        best = []
        for number, slots, present in unique.tolist():
            geometry = self.table.geometries[number]
            best.append(start_for(geometry, geometry.index(demand.profile or ""), slots, present))
        result[cells] = np.array(best, np.int64)[inverse.ravel()]
        return result


def rows_of(table: HostTable, at: Ints, promised: Mapping[int, Collection[str]] | None = None) -> Rows:
    """Copy rows out of the table; cards in ``promised[row]`` are not usable."""
    usable = (table.state[at] == FREE) & ~table.stale[at][:, None]
    if promised:
        for number, row in enumerate(at.tolist()):
            for address in promised.get(row, ()):
                usable[number, table.position(row, address)] = False
    return Rows(
        table,
        at,
        table.cpu_free[at],
        table.memory_free[at],
        np.where(usable, table.idle[at], 0),
        table.slots[at],
        table.profile[at],
        usable,
    )
