"""Which hosts cannot take a request, and why: one reason per host, the first that applies in the order of `REASONS`.

Section 3.5.1 of the HEPS paper (filter by CPU and memory, then by the fine-grained description of the cards), extended. Filters
look at copies of rows and never at scores. Reasons are words of the interface: they never change once released.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamdesk.scheduling import bookings
from beamdesk.scheduling.arrays import Bools, Ints
from beamdesk.scheduling.request import GroupRule, NumaRule, Request
from beamdesk.scheduling.rows import Rows, rows_of
from beamdesk.scheduling.state import HostTable

REASONS = {
    "disabled": "the host is switched off for new desktops",
    "aggregate": "the host is not for this beamline",
    "image": "the image is not on the host",
    "cpu": "not enough CPU is free",
    "memory": "not enough memory is free",
    "disk": "not enough disk is free",
    "no_such_card": "the host does not have such cards, or not as many",
    "stale": "the host's report on its cards is too old",
    "cards_busy": "too few of the host's suitable cards are free",
    "numa": "no NUMA node has the cards, CPU and memory together",
    "booked": "what is free is booked by others before the lease ends",
    "guard": "CPU and memory left here are kept for the host's idle cards",
    "excluded": "the request leaves this host out",
    "group": "the rule of the desktop's group forbids this host",
}
"""Reason -> what it says to people. The order is the order of the filters."""
CODES = {reason: number for number, reason in enumerate(REASONS, start=1)}
PASSES = 0


@dataclass(frozen=True, slots=True)
class Window:
    """From now to the end of the lease: what a booking must not meet."""

    now: float = 0.0
    until: float = float("inf")
    spent: str | None = None


def window_of(request: Request, now: float) -> Window:
    """Return the time that a request would hold its host. A lease that is over does not end anything: it counts as open.

    The same rule as for servers that outstay their lease (`bookings.least_free`); else such a request could take what is booked.
    """
    until = float("inf") if request.until is None or request.until <= now else request.until
    return Window(now, until, request.booking)


def refusals(table: HostTable, request: Request, at: Ints, window: Window) -> tuple[Ints, Rows, Bools]:
    """Return for the rows ``at`` the code of the first reason against each (0 = none), their state, and the cards that fit."""
    promised = {}
    if table.booked:
        booked = (row for row in at.tolist() if row in table.booked)
        promised = {row: bookings.blocked(table, row, window.now, window.until, window.spent) for row in booked}
    free, now_free = rows_of(table, at), None
    if promised:
        now_free, free = free, rows_of(table, at, promised)
    reason = np.zeros(len(at), np.int64)
    for name, bad in _simple(table, request, at):
        _mark(reason, name, bad)
    current = fit = np.zeros(free.idle.shape, np.bool_)
    if request.cards is not None:
        fit = free.fits(request.cards)
        current = fit if now_free is None else now_free.fits(request.cards)
        _mark_cards(table, request, at, reason, current)
    if request.numa is NumaRule.STRICT:
        _mark(reason, "numa", ~np.asarray(numa_room(table, request, at, current).any(axis=1)))
    if promised or window.spent is not None:
        _mark_booked(table, request, at, reason, fit, window)
    return reason, free, fit


def _mark(reason: Ints, name: str, bad: Bools) -> None:
    reason[(reason == PASSES) & bad] = CODES[name]


def _simple(table: HostTable, request: Request, at: Ints) -> list[tuple[str, Bools]]:
    """Return the filters that compare one number or flag of a host, in order."""
    nowhere = np.zeros(len(table), np.bool_)
    result = [("disabled", ~table.enabled[at])]
    if request.aggregates:
        member = np.zeros(len(at), np.bool_)
        for name in request.aggregates:
            member |= table.aggregates.get(name, nowhere)[at]
        result.append(("aggregate", ~member))
    else:
        result.append(("aggregate", table.dedicated[at]))
    if request.image_required:
        result.append(("image", ~table.images.get(request.image or "", nowhere)[at]))
    for name, free, asked in (
        ("cpu", table.cpu_free, request.cpu_milli),
        ("memory", table.memory_free, request.memory_mib),
        ("disk", table.disk_free, request.disk_gib),
    ):
        if asked:
            result.append((name, free[at] < asked))
    return result


def _mark_cards(table: HostTable, request: Request, at: Ints, reason: Ints, fit: Bools) -> None:
    demand = request.cards
    if demand is None:
        return
    _mark(reason, "no_such_card", table.suits(demand)[at].sum(axis=1) < demand.count)
    _mark(reason, "stale", table.stale[at])
    _mark(reason, "cards_busy", fit.sum(axis=1) < demand.count)


def numa_room(table: HostTable, request: Request, at: Ints, fit: Bools) -> Bools:
    """Tell for each NUMA node whether CPU, memory and enough fitting cards are there together. [k, node]."""
    room = (table.numa_cpu_free[at] >= request.cpu_milli) & (table.numa_memory_free[at] >= request.memory_mib)
    room &= np.arange(room.shape[1]) < table.nodes[at][:, None]
    if request.cards is not None:
        for node in range(room.shape[1]):
            room[:, node] &= (fit & (table.numa[at] == node)).sum(axis=1) >= request.cards.count
    return room


def _mark_booked(table: HostTable, request: Request, at: Ints, reason: Ints, fit: Bools, window: Window) -> None:
    """Refuse where the lease would run into somebody's booking; who spends a booking runs on its host and cards only."""
    mine = table.bookings.get(window.spent) if window.spent is not None else None
    count = request.cards.count if request.cards is not None else 0
    for number, row in enumerate(at.tolist()):
        if reason[number] != PASSES:
            continue
        if window.spent is not None and (mine is None or mine.host != table.names[row]):
            reason[number] = CODES["booked"]
            continue
        if mine is not None and mine.cards:
            own = [table.position(row, address) for address in mine.cards]
            fit[number] &= np.isin(np.arange(fit.shape[1]), own)
        if row not in table.booked:
            continue
        cpu, memory = bookings.least_free(table, row, window.now, window.until, window.spent, window.now)
        room = not count or numa_fits(table, request, row, fit[number])
        if bookings.short(request.cpu_milli, cpu) or bookings.short(request.memory_mib, memory) or not room:
            reason[number] = CODES["booked"]


def numa_fits(table: HostTable, request: Request, row: int, fit: Bools) -> bool:
    """Tell whether enough of the fitting cards remain in one row, on one node where the request is strict."""
    if request.cards is None:
        return True
    if request.numa is not NumaRule.STRICT:
        return int(fit.sum()) >= request.cards.count
    return bool(numa_room(table, request, np.array([row]), fit[None]).any())


def placed_elsewhere(table: HostTable, request: Request) -> list[tuple[str, Bools]]:
    """Return the filters that depend on other servers or on named hosts, for all rows. Empty for most requests."""
    result: list[tuple[str, Bools]] = []
    if request.only_hosts or request.not_hosts:
        names = request.only_hosts or frozenset(table.names)
        allowed = np.zeros(len(table), np.bool_)
        allowed[[table.row[name] for name in names - request.not_hosts if name in table.row]] = True
        result.append(("excluded", ~allowed))
    members = table.groups.get(request.group or "", {})
    if members and request.group_rule in {GroupRule.TOGETHER, GroupRule.APART}:
        inside = np.zeros(len(table), np.bool_)
        inside[list(members)] = True
        result.append(("group", ~inside if request.group_rule is GroupRule.TOGETHER else inside))
    return result


def impossible(table: HostTable, request: Request) -> str | None:
    """Return why the request could not run even if every host were empty, or None. Says the largest that there is.

    Looks at the request's shape only, not at the hosts that it names.
    """
    rows = len(table)
    if not rows:
        return "There is no host."
    for text, totals, asked in (
        ("CPU (in thousandths)", table.cpu_total, request.cpu_milli),
        ("memory (MiB)", table.memory_total, request.memory_mib),
        ("disk (GiB)", table.disk_total, request.disk_gib),
    ):
        if asked > totals.max():
            return f"It asks for {asked} {text}; no host has more than {int(totals.max())}."
    if request.aggregates and not any(name in table.aggregates and table.aggregates[name].any() for name in request.aggregates):
        return f"No host is for {', '.join(sorted(request.aggregates))}."
    return _impossible_cards(table, request)


def _impossible_cards(table: HostTable, request: Request) -> str | None:
    demand = request.cards
    able: Bools = (
        (table.cpu_total >= request.cpu_milli) & (table.memory_total >= request.memory_mib) & (table.disk_total >= request.disk_gib)
    )
    if demand is not None:
        most = int((table.state >= 0).sum(axis=1).max())
        if demand.count > most:
            return f"It asks for {demand.count} cards; no host has more than {most}."
        suited = table.suits(demand).sum(axis=1)
        if demand.count > int(suited.max()):
            return f"It asks for {demand.count} cards of its kind; no host has more than {int(suited.max())} such cards."
        able &= suited >= demand.count
    if request.aggregates:
        member = np.zeros(len(table), np.bool_)
        for name in request.aggregates:
            member |= table.aggregates.get(name, np.zeros(len(table), np.bool_))
        able &= member
    else:
        able &= ~table.dedicated
    return None if able.any() else "No single host has all that it asks for, even empty."
