"""Named score terms. Each gives every host that passed the filters a number, higher is better, from its row and the request.

That a term sees one row at a time is what allows `decide.py` to recompute changed rows only. Terms know no policy and no weight.
Equation numbers are those of J. Xu and Q. Hu, "HEPS Virtual Cloud Desktop System Based on OpenStack", ISGC 2023, section 3.5.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from beamdesk.scheduling.arrays import CARD, Bools, Floats, Ints
from beamdesk.scheduling.filters import numa_room
from beamdesk.scheduling.fragment import Fragmentation, Mix
from beamdesk.scheduling.request import CardDemand, NumaRule, Request
from beamdesk.scheduling.rows import Rows
from beamdesk.scheduling.state import HostTable

MOST = 100.0
"""M of equation (1): the best score of a CPU host."""


@dataclass(slots=True)
class Scene:
    """What a term may look at: hosts that can take the request, and which of their cards fit. [k], [k, card]."""

    table: HostTable
    request: Request
    rows: Rows
    fit: Bools

    @property
    def at(self) -> Ints:
        """Return the row numbers."""
        return self.rows.at


Term = Callable[[Scene], Floats]


def least_requested(scene: Scene) -> Floats:
    """Equation (1): LRS = M * sum_i w_i (c_i - r_i) / c_i over CPU and memory, w = 0.5; r counts this request too."""
    table, at, request = scene.table, scene.at, scene.request
    cpu = (table.cpu_free[at] - request.cpu_milli) / np.maximum(table.cpu_total[at], 1)
    memory = (table.memory_free[at] - request.memory_mib) / np.maximum(table.memory_total[at], 1)
    return np.asarray(MOST * (0.5 * cpu + 0.5 * memory), np.float64)


def card_performance(scene: Scene) -> Floats:
    """Equation (2): S_card = (cc + bw + cl) / 3, each over the largest among all hosts; the mean of the cards that fit."""
    table, at, largest = scene.table, scene.at, scene.table.largest
    number = np.maximum(scene.fit.sum(axis=1), 1)
    parts = (
        (table.cores[at] * table.clock[at], largest.compute),
        (table.bandwidth[at], largest.bandwidth),
        (table.clock[at], largest.clock),
    )
    return np.asarray(sum((values * scene.fit).sum(axis=1) / (number * most) for values, most in parts) / 3, np.float64)


def similarity(scene: Scene) -> Floats:
    """Equation (3): the cosine of N (idle) and R (asked) = (cards, memory per card, cores per card, CPU, memory).

    The paper names no units; each component is divided by the largest among all hosts, so that none drowns the others.
    """
    table, at, request, largest = scene.table, scene.at, scene.request, scene.table.largest
    number = np.maximum(scene.fit.sum(axis=1), 1)
    memory, cores = asked_card(table, request.cards)
    share = request.cards.share / CARD if request.cards else 0.0
    pairs = (
        (scene.fit.sum(axis=1), request.cards.count if request.cards else 0, largest.cards),
        ((table.card_memory[at] * scene.fit).sum(axis=1) / number, memory * share, largest.card_memory),
        ((table.cores[at] * scene.fit).sum(axis=1) / number, cores * share, largest.cores),
        (table.cpu_free[at], request.cpu_milli, largest.cpu),
        (table.memory_free[at], request.memory_mib, largest.memory),
    )
    dot, has, wants = np.zeros(len(at)), np.zeros(len(at)), 0.0
    for idle, asked, most in pairs:
        n, r = np.asarray(idle, np.float64) / most, asked / most
        dot, has, wants = dot + n * r, has + n * n, wants + r * r
    return np.asarray(dot / np.maximum(np.sqrt(has) * np.sqrt(wants), 1e-12), np.float64)


def gpu_score(scene: Scene) -> Floats:
    """Equation (4): Gpu_score = S_card * S_similarity."""
    return card_performance(scene) * similarity(scene)


def asked_card(table: HostTable, demand: CardDemand | None) -> tuple[int, int]:
    """Return the memory and cores per card that a request stands for: its minima, else those of the least card that would do."""
    if demand is None:
        return 0, 0
    memory, cores = table.least_card(demand)
    return demand.memory_mib or memory, demand.cores or cores


def free_memory(scene: Scene) -> Floats:
    """Nova's RAMWeigher: free memory."""
    return scene.table.memory_free[scene.at].astype(np.float64)


def free_cpu(scene: Scene) -> Floats:
    """Nova's CPUWeigher: free CPU."""
    return scene.table.cpu_free[scene.at].astype(np.float64)


def few_free_cards(scene: Scene) -> Floats:
    """Nova's PCIWeigher: 100 - min(free devices, 99): hosts with few free devices first, for every kind of request."""
    return np.asarray(100 - np.minimum((scene.rows.idle == CARD).sum(axis=1), 99), np.float64)


def best_fit(scene: Scene) -> Floats:
    """FGD's peer BestFit: 100 * (1 - half of what stays idle of CPU and of cards, over the largest host), whole points."""
    table, request, largest = scene.table, scene.request, scene.table.largest
    cards = request.cards.milli if request.cards else 0
    cpu = (table.cpu_free[scene.at] - request.cpu_milli) / largest.cpu
    idle = (scene.rows.idle.sum(axis=1) - cards) / (largest.cards * CARD)
    return np.asarray((1 - (0.5 * cpu + 0.5 * idle)) * 100, np.int64).astype(np.float64)


def tightness(scene: Scene) -> Floats:
    """Minus what is idle: cards and CPU over the largest host's, memory and CPU alike. Breaks ties towards hosts in use."""
    table, largest = scene.table, scene.table.largest
    idle = scene.rows.idle.sum(axis=1) / (largest.cards * CARD)
    return np.asarray(-(idle + table.cpu_free[scene.at] / largest.cpu), np.float64)


def numa_pair(scene: Scene) -> Floats:
    """1 where cards, CPU and memory can lie on one NUMA node, for requests that prefer it."""
    if scene.request.numa is not NumaRule.PREFER:
        return np.zeros(len(scene.at))
    room = numa_room(scene.table, scene.request, scene.at, scene.fit)
    return np.asarray(room.any(axis=1), np.float64)


def image_cached(scene: Scene) -> Floats:
    """1 where the image is on the host already: the desktop starts without a transfer."""
    known = scene.table.images.get(scene.request.image or "")
    return np.zeros(len(scene.at)) if known is None else known[scene.at].astype(np.float64)


def lottery(scene: Scene) -> Floats:
    """A number from the request's id and the host's name: chance that can be replayed."""
    seed = int.from_bytes(hashlib.blake2b(scene.request.id.encode(), digest_size=8).digest(), "big")
    value = (scene.at.astype(np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    return np.asarray((value >> np.uint64(11)).astype(np.float64) / float(1 << 53), np.float64)


class FragmentGradient:
    """What placing the request takes from fragmentation, in cards (`fragment.py`); chooses the card of a shared host, too.

    ``truncate`` = as published: int(100 * sigmoid(cards)), whose plateaus leave much to the tie rule (smallest name).
    """

    def __init__(self, table: HostTable, mix: Mix, *, memory: bool, truncate: bool) -> None:
        self._fragmentation = Fragmentation(table, mix, memory=memory)
        self._truncate = truncate

    def __call__(self, scene: Scene) -> tuple[Floats, Ints]:
        """Return value and best card for each row."""
        gained, card = self._fragmentation.gain(scene.rows, scene.request, scene.fit, self.grade)
        return self.grade(gained), card

    def grade(self, gained: Ints) -> Floats:
        """Turn weighted thousandths into the value that hosts and cards are compared by."""
        cards = gained / (self._fragmentation.total * CARD)
        if not self._truncate:
            return np.asarray(cards, np.float64)
        return np.asarray(np.floor(100 / (1 + np.exp(-cards))), np.float64)
