"""Policies: which terms with which weights, in which tier, with which tie rule. A policy is data; `decide.py` runs it.

Of hosts with equal totals the one with the smallest name is taken, under every policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from beamdesk.scheduling import score
from beamdesk.scheduling.arrays import CARD, Bools, Floats, Ints
from beamdesk.scheduling.cards import CardMode
from beamdesk.scheduling.errors import SchedulingError
from beamdesk.scheduling.fragment import Mix, Task
from beamdesk.scheduling.request import CardDemand, Request
from beamdesk.scheduling.rows import Rows
from beamdesk.scheduling.state import CLEANING, DIRTY, MODES, HostTable


class Scale(StrEnum):
    """What is done to a term's values over all hosts that can take the request, before its weight."""

    NONE = "none"
    SPREAD = "spread"
    """(value - least) / (most - least), 0 where all are equal: Nova's `normalize`."""
    POINTS = "points"
    """The same in whole points from 0 to 100: kube-scheduler's `NormalizeScore`."""


class CardRule(StrEnum):
    """Which of a host's cards a share or profile goes to, where no term says."""

    FULLEST = "fullest"
    LOTTERY = "lottery"


AnyTerm = Callable[[score.Scene], Floats | tuple[Floats, Ints]]


@dataclass(frozen=True, slots=True)
class Weighted:
    """A term in a policy. Weight 0 = shown in explanations, not counted."""

    name: str
    term: AnyTerm
    weight: float = 1.0
    scale: Scale = Scale.NONE


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """How hosts are compared. ``cpu`` terms serve requests without cards, ``gpu`` terms those with."""

    name: str
    cpu: tuple[Weighted, ...]
    gpu: tuple[Weighted, ...]
    cpu_hosts_first: bool = False
    guard: Guard | None = None
    cards: CardRule = CardRule.FULLEST
    decimals: int = 9
    group_weight: float = 1.0
    chance: bool = False
    """Terms look at the request's id: nothing computed for one request serves another."""

    def terms(self, request: Request) -> tuple[Weighted, ...]:
        """Return the terms that serve a request."""
        return self.gpu if request.cards is not None else self.cpu

    @property
    def local(self) -> bool:
        """Tell whether a host's total depends on nothing but its own row."""
        return all(one.scale is Scale.NONE for one in (*self.cpu, *self.gpu))


class Guard:
    """A CPU desktop may not use a GPU host if that would leave its idle cards without the CPU or memory to be used.

    What a card needs is the mean over the typical requests that such a host could serve. Cards that are dirty or being cleaned
    count as idle: they come back. While more than ``plenty`` of all cards are idle there is nothing to protect: such hosts may
    then be used, after all others.
    """

    def __init__(self, table: HostTable, mix: Mix, strength: float = 1.0, plenty: float = 0.2) -> None:
        self._table, self._mix, self._strength, self._plenty = table, mix, strength, plenty
        self._facts = -1
        self._cpu = self._memory = np.zeros(0, np.float64)

    def _refresh(self) -> None:
        table = self._table
        if self._facts == table.facts_generation:
            return
        self._facts = table.facts_generation
        sums = np.zeros((3, len(table)))
        for task in self._mix:
            if task.cards is None:
                continue
            able = (table.suits(task.cards).sum(axis=1) >= task.cards.count) & (table.cpu_total >= task.cpu_milli)
            able &= table.memory_total >= task.memory_mib
            for row, value in enumerate((task.cpu_milli, task.memory_mib, task.cards.count * task.cards.share / CARD)):
                sums[row, able] += task.weight * value
        cards = np.where(sums[2] > 0, sums[2], 1.0)
        self._cpu, self._memory = self._strength * sums[0] / cards, self._strength * sums[1] / cards

    def lets_go(self) -> bool:
        """Tell whether so many cards are idle that none needs protection."""
        return float(self._table.idle.sum()) > self._plenty * CARD * self._table.card_count

    def keeps_away(self, request: Request, rows: Rows) -> Bools:
        """Tell for each row whether a request without cards must not go there."""
        self._refresh()
        state = self._table.state[rows.at]
        coming = ((state == DIRTY) | (state == CLEANING)).sum(axis=1) * CARD
        cards = (rows.idle.sum(axis=1) + coming) / CARD
        short = (rows.cpu - request.cpu_milli < cards * self._cpu[rows.at]) | (
            rows.memory - request.memory_mib < cards * self._memory[rows.at]
        )
        return np.asarray(short & self._table.has_cards[rows.at] & (cards > 0), np.bool_)


def plain_mix(table: HostTable) -> Mix:
    """Return a mix for a site that has not said what it offers: one card or all cards of each kind of host."""
    mix: dict[Task, None] = {}
    for row in np.flatnonzero(table.has_cards).tolist():
        for position in range(len(table.addresses[row])):
            mode = MODES[table.mode[row, position]]
            if mode in {CardMode.VGPU, CardMode.MIG}:
                continue
            model = frozenset({table.models[table.model[row, position]]})
            cards = len(table.addresses[row])
            cpu, memory = int(table.cpu_total[row]), int(table.memory_total[row])
            container = mode is CardMode.HOST
            mix[Task(cpu // (2 * cards), memory // (2 * cards), CardDemand(1, models=model, container=container), 3)] = None
            mix[Task(cpu * 3 // 4, memory * 3 // 4, CardDemand(cards, models=model, container=container), 1)] = None
            break
    return tuple(mix)


def heps(_table: HostTable, _mix: Mix) -> Policy:
    """The paper to the letter (Algorithm 1): GPU requests by equation (4); others by (1), CPU hosts before GPU hosts."""
    return Policy(
        "heps",
        cpu=(Weighted("least_requested", score.least_requested),),
        gpu=(
            Weighted("gpu_score", score.gpu_score),
            Weighted("card_performance", score.card_performance, weight=0.0),
            Weighted("similarity", score.similarity, weight=0.0),
        ),
        cpu_hosts_first=True,
    )


def nova_default(_table: HostTable, _mix: Mix) -> Policy:
    """Nova as installed: RAM, CPU and PCI weighers, multiplier 1, each spread over the hosts that passed."""
    terms = (
        Weighted("free_memory", score.free_memory, scale=Scale.SPREAD),
        Weighted("free_cpu", score.free_cpu, scale=Scale.SPREAD),
        Weighted("few_free_cards", score.few_free_cards, scale=Scale.SPREAD),
    )
    return Policy("nova-default", cpu=terms, gpu=terms)


def fgd(table: HostTable, mix: Mix) -> Policy:
    """Fragmentation gradient descent as published: no memory, truncated score, ties to the smallest name."""
    terms = (Weighted("fragment", score.FragmentGradient(table, mix, memory=False, truncate=True)),)
    return Policy("fgd", cpu=terms, gpu=terms)


def best_fit(_table: HostTable, _mix: Mix) -> Policy:
    """The FGD paper's peer BestFit."""
    terms = (Weighted("best_fit", score.best_fit, scale=Scale.POINTS),)
    return Policy("best-fit", cpu=terms, gpu=terms)


def random(_table: HostTable, _mix: Mix) -> Policy:
    """The FGD paper's peer Random: any host, any card that fits."""
    terms = (Weighted("lottery", score.lottery),)
    return Policy("random", cpu=terms, gpu=terms, cards=CardRule.LOTTERY, chance=True)


def beamdesk(table: HostTable, mix: Mix) -> Policy:
    """Ours, the default: CPU hosts first for CPU desktops, fragmentation gradient with memory, tight hosts first, and the guard."""
    wanted = tuple(task for task in mix if task.cards is not None) or plain_mix(table)
    gradient = score.FragmentGradient(table, wanted, memory=True, truncate=False)
    terms = (
        Weighted("fragment", gradient),
        Weighted("tightness", score.tightness, weight=0.05),
        Weighted("numa_pair", score.numa_pair, weight=0.02),
        Weighted("image_cached", score.image_cached, weight=0.01),
    )
    return Policy("beamdesk", cpu=terms, gpu=terms, cpu_hosts_first=True, guard=Guard(table, wanted), decimals=5, group_weight=0.1)


POLICIES: dict[str, Callable[[HostTable, Mix], Policy]] = {
    "beamdesk": beamdesk,
    "heps": heps,
    "nova-default": nova_default,
    "fgd": fgd,
    "best-fit": best_fit,
    "random": random,
}
DEFAULT = "beamdesk"


def make(name: str, table: HostTable, mix: Mix = ()) -> Policy:
    """Make the policy ``name`` for a table. ``mix``: the typical requests, which `fgd` and `beamdesk` look at.

    Raises:
        SchedulingError: there is no such policy.
    """
    if name not in POLICIES:
        raise SchedulingError(f"There is no policy {name!r}. Known: {', '.join(POLICIES)}.", field="policy")
    return POLICIES[name](table, mix or plain_mix(table))
