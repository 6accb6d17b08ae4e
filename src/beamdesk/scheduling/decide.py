"""Deciding: run a policy over the table for one request. Deterministic; reads the table, never writes it.

Per policy and shape of request a `View` keeps what was computed for each host, and computes a host anew only when its row's
version changed: one decision costs what changed since the last, not what there is. A cold view gives the same decisions.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from beamdesk.scheduling import filters
from beamdesk.scheduling.arrays import Floats, Ints
from beamdesk.scheduling.claims import claim
from beamdesk.scheduling.decision import Decision, Ranked
from beamdesk.scheduling.filters import CODES, PASSES, REASONS, Window
from beamdesk.scheduling.give import give
from beamdesk.scheduling.policy import Policy, Scale
from beamdesk.scheduling.request import GroupRule, Request, Shape
from beamdesk.scheduling.score import Scene
from beamdesk.scheduling.state import HostTable

_NAMES = tuple(REASONS)


class View:
    """What a policy thinks of every host for one shape of request."""

    def __init__(self, table: HostTable, policy: Policy, request: Request) -> None:
        self.table, self.policy = table, policy
        self.terms = policy.terms(request)
        self.facts = table.facts_generation
        self.impossible = filters.impossible(table, request)
        self.seen = np.zeros(len(table), np.int64)
        self.reason = np.zeros(len(table), np.int64)
        self.values = np.zeros((len(self.terms), len(table)))
        self.total = np.zeros(len(table))
        self.card = np.full(len(table), -1, np.int64)
        self.guarded = np.zeros(len(table), np.bool_)

    def refresh(self, request: Request, window: Window) -> None:
        """Compute anew what changed. Hosts with bookings depend on the time and are always computed."""
        stale = self.seen != self.table.version
        if self.table.booked or window.spent is not None:
            # A spent booking closes all hosts but its own.
            stale[list(self.table.booked) if window.spent is None else slice(None)] = True
        at = np.flatnonzero(stale)
        if len(at):
            self._compute(request, at, window)
            self.seen[at] = self.table.version[at]
            if self.table.booked:
                self.seen[list(self.table.booked)] = 0
            if window.spent is not None:
                self.seen[:] = 0

    def _compute(self, request: Request, at: Ints, window: Window) -> None:
        reason, rows, fit = filters.refusals(self.table, request, at, window)
        if self.policy.guard is not None and request.cards is None:
            self.guarded[at] = (reason == PASSES) & self.policy.guard.keeps_away(request, rows)
        self.reason[at] = reason
        good = np.flatnonzero(reason == PASSES)
        if not len(good):
            return
        scene = Scene(self.table, request, rows.pick(good), fit[good])
        total = np.zeros(len(good))
        for number, weighted in enumerate(self.terms):
            value = weighted.term(scene)
            if isinstance(value, tuple):
                value, self.card[scene.at] = value
            self.values[number, scene.at] = value
            total += weighted.weight * value
        self.total[scene.at] = np.round(total, self.policy.decimals)


class Scheduler:
    """A table, a policy, and what is known of recent shapes of request. ``keep`` = how many hosts a decision ranks."""

    def __init__(self, table: HostTable, policy: Policy, *, keep: int = 5, shapes: int = 1024) -> None:
        self.table, self.policy = table, policy
        self._keep, self._shapes = keep, shapes
        self._views: OrderedDict[Shape, View] = OrderedDict()

    def _view(self, request: Request) -> View:
        if self.policy.chance:
            return View(self.table, self.policy, request)
        shape = request.shape
        view = self._views.get(shape)
        if view is None or view.facts != self.table.facts_generation:
            view = self._views[shape] = View(self.table, self.policy, request)
        self._views.move_to_end(shape)
        if len(self._views) > self._shapes:
            self._views.popitem(last=False)
        return view

    def decide(self, request: Request, now: float = 0.0) -> Decision:
        """Return the host and devices for a request, the ranking, and how many hosts were refused for which reason."""
        with self.table.lock:
            view = self._view(request)
            state = self.table.digest()
            if view.impossible is not None or (why := self._unknown_hosts(request)) is not None:
                return Decision(self.policy.name, request, now, state, impossible=view.impossible or why)
            window = filters.window_of(request, now)
            view.refresh(request, window)
            reason = self._refused(view, request)
            good = np.flatnonzero(reason == PASSES)
            refusals = _count(reason)
            if not len(good):
                return Decision(self.policy.name, request, now, state, refusals=refusals)
            total = self._totals(view, request, good)
            tier = self._tiers(view, request, good)
            order = _best(tier, total, self._keep)
            best = int(good[order[0]])
            grants, node = give(self.table, self.policy, request, best, int(view.card[best]), window)
            ranking = self._ranking(view, good, order, tier, total)
            return Decision(
                self.policy.name, request, now, state, self.table.names[best], grants, node, len(good), ranking, refusals
            )

    def place(self, request: Request, now: float = 0.0) -> Decision:
        """Decide and claim in one step; the decision's ``host`` is None when nothing was claimed."""
        with self.table.lock:
            decision = self.decide(request, now)
            if decision.host is not None:
                claim(self.table, decision.claim())
            return decision

    def verdicts(self, request: Request, now: float = 0.0) -> dict[str, str]:
        """Return why each host cannot take the request, by name; empty = it can. One pass over the table."""
        with self.table.lock:
            view = self._view(request)
            view.refresh(request, filters.window_of(request, now))
            reason = self._refused(view, request)
            return {name: "" if reason[row] == PASSES else _NAMES[reason[row] - 1] for name, row in self.table.row.items()}

    def _refused(self, view: View, request: Request) -> Ints:
        """Return the code of the first reason against each host, `PASSES` where there is none. [hosts]."""
        reason = self._reasons(view)
        for name, bad in filters.placed_elsewhere(self.table, request):
            reason = np.where((reason == PASSES) & bad, CODES[name], reason)
        return reason

    def _unknown_hosts(self, request: Request) -> str | None:
        if request.only_hosts and not any(name in self.table.row for name in request.only_hosts):
            return f"There is no host {', '.join(sorted(request.only_hosts))}."
        return None

    def _totals(self, view: View, request: Request, good: Ints) -> Floats:
        """Return the totals of the hosts that can take it. [k]."""
        if self.policy.local:
            total = view.total[good]
        else:
            parts = [one.weight * _scaled(view.values[number, good], one.scale) for number, one in enumerate(view.terms)]
            total = np.round(np.sum(parts, axis=0), self.policy.decimals)
        members = self.table.groups.get(request.group or "", {})
        if members and request.group_rule in {GroupRule.SOFT_TOGETHER, GroupRule.SOFT_APART}:
            sign = 1 if request.group_rule is GroupRule.SOFT_TOGETHER else -1
            inside = np.array([members.get(row, 0) for row in good.tolist()], np.float64)
            total = total + sign * self.policy.group_weight * inside
        return total

    def _reasons(self, view: View) -> Ints:
        """Return the reasons with the guard's among them, unless it lets go."""
        guard = self.policy.guard
        if guard is None or not view.guarded.any() or guard.lets_go():
            return view.reason
        return np.where(view.guarded, CODES["guard"], view.reason)

    def _tiers(self, view: View, request: Request, good: Ints) -> Ints:
        """CPU hosts, then GPU hosts, then GPU hosts under guard."""
        if self.policy.cpu_hosts_first and request.cards is None:
            return self.table.has_cards[good].astype(np.int64) + view.guarded[good]
        return np.zeros(len(good), np.int64)

    def _ranking(self, view: View, good: Ints, order: Ints, tier: Ints, total: Floats) -> tuple[Ranked, ...]:
        shown = good[order]
        columns = []
        for number, one in enumerate(view.terms):
            values = view.values[number]
            scaled = values[shown] if one.scale is Scale.NONE else _scaled(values[good], one.scale)[order]
            columns.append((one.weight * scaled).tolist())
        names = [one.name for one in view.terms]
        return tuple(
            Ranked(self.table.names[row], first, points, tuple(zip(names, parts, strict=True)))
            for row, first, points, parts in zip(
                shown.tolist(), tier[order].tolist(), total[order].tolist(), zip(*columns, strict=True), strict=True
            )
        )


def _scaled(values: Floats, scale: Scale) -> Floats:
    if scale is Scale.NONE:
        return values
    least, most = float(values.min()), float(values.max())
    if scale is Scale.POINTS:
        return np.floor((values - least) * 100 / (most - least)) if most > least else values
    return (values - least) / (most - least) if most > least else np.zeros(len(values))


def _best(tier: Ints, total: Floats, keep: int) -> Ints:
    """Return the first ``keep`` by tier, then total, then name (row order), without sorting all."""
    rows = np.flatnonzero(tier == tier.min())
    if len(rows) < keep:
        return np.lexsort((-total, tier))[:keep]
    if len(rows) > 4 * keep:
        edge = np.partition(total[rows], len(rows) - keep)[len(rows) - keep]
        rows = rows[total[rows] >= edge]
    return np.asarray(rows[np.argsort(-total[rows], kind="stable")][:keep], np.int64)


def _count(reason: Ints) -> tuple[tuple[str, int], ...]:
    counts = np.bincount(reason, minlength=len(_NAMES) + 1).tolist()
    return tuple((name, counts[number]) for number, name in enumerate(_NAMES, start=1) if counts[number])


def decide(table: HostTable, policy: Policy, request: Request, now: float = 0.0, *, keep: int = 5) -> Decision:
    """Decide once, from nothing kept."""
    return Scheduler(table, policy, keep=keep).decide(request, now)


def same_again(decision: Decision, table: HostTable, policy: Policy) -> bool:
    """Decide a stored decision's request again; tell whether state and outcome are those of the decision."""
    again = decide(table, policy, decision.request, decision.now, keep=max(1, len(decision.ranking)))
    return again == decision
