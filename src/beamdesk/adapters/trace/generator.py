"""A generator of desktop workloads, and the site that they run on.

Made to resemble the deployment that the HEPS paper plans: 250 hosts, a few hundred GPUs, CPU and GPU desktops of fixed sizes under
booked leases. Every number is here and in `docs/howto/replay-a-trace.md`; one seed gives one workload.

* Hosts: 150 CPU hosts (64 cores, 256 GiB), 60 with 4 T4 (64, 384 GiB), 25 with 8 A10 (96, 512 GiB), 15 with 8 A100 (128, 1 TiB).
* Sizes: `CPU_FLAVORS` and `GPU_FLAVORS` with their shares.
* Leases: half 2-10 h, a quarter 1-3 days, a quarter 1-3 weeks, uniform within each.
* Arrivals: Poisson in number, spread over the days with 4.3 times the night's rate from 8 to 18 h.
* Load 1.0 = what is asked for would on average use all cards (GPU), or all CPU of the CPU hosts (CPU).
"""

from __future__ import annotations

import numpy as np

from beamdesk.adapters.trace.workload import Flavor, Workload
from beamdesk.scheduling.arrays import Floats
from beamdesk.scheduling.cards import Card
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.replay import HOUR, Arrival
from beamdesk.scheduling.request import CardDemand

MODELS = {"T4": (16384, 2560, 320, 1590), "A10": (24576, 9216, 600, 1695), "A100": (40960, 6912, 1555, 1410)}
GROUPS = (
    ("cpu", 150, 64, 256, 0, ""),
    ("t4", 60, 64, 384, 4, "T4"),
    ("a10", 25, 96, 512, 8, "A10"),
    ("a100", 15, 128, 1024, 8, "A100"),
)
_MEDIUM, _BIG = frozenset({"A10", "A100"}), frozenset({"A100"})
GIB = 1024
CPU_FLAVORS = tuple(
    Flavor(f"cpu-{vcpus}-{memory}", vcpus * 1000, memory * GIB, None, share)
    for vcpus, memory, share in ((2, 4, 0.25), (4, 8, 0.35), (8, 16, 0.25), (16, 32, 0.10), (32, 64, 0.05))
)
GPU_FLAVORS = tuple(
    Flavor(f"gpu-{vcpus}-{memory}-{cards.count}{suffix}", vcpus * 1000, memory * GIB, cards, share)
    for vcpus, memory, cards, suffix, share in (
        (8, 32, CardDemand(1), "", 0.40),
        (16, 64, CardDemand(1), "", 0.20),
        (16, 64, CardDemand(1, models=_MEDIUM), "m", 0.14),
        (16, 96, CardDemand(1, models=_BIG), "b", 0.06),
        (24, 96, CardDemand(2), "", 0.10),
        (32, 128, CardDemand(4), "", 0.05),
        (48, 192, CardDemand(4, models=_MEDIUM), "m", 0.03),
        (96, 384, CardDemand(8, models=_MEDIUM), "m", 0.02),
    )
)
"""Suffix m: an A10 or better; b: an A100."""
MEAN_LEASE_HOURS = 0.5 * 6 + 0.25 * 48 + 0.25 * 336


def site() -> list[HostFacts]:
    """Return the 250 hosts."""
    hosts = []
    order = 0
    for _, count, vcpus, memory, cards, model in GROUPS:
        for _ in range(count):
            own = tuple(Card(f"0000:{16 + number:02x}:00.0", model, *MODELS[model]) for number in range(cards))
            hosts.append(HostFacts(f"host-{order:04d}", vcpus * 1000, memory * 1024, cards=own))
            order += 1
    return hosts


def workload(seed: int, *, gpu_load: float = 1.05, cpu_load: float = 1.15, days: int = 35, warm_days: int = 14) -> Workload:
    """Return ``days`` days of arrivals at the site."""
    rng, hosts, hours = np.random.default_rng(seed), site(), 24.0 * days
    cards = sum(len(host.cards) for host in hosts)
    cores = sum(host.cpu_milli for host in hosts if not host.cards)
    cards_asked = sum(one.cards.count * one.share for one in GPU_FLAVORS if one.cards)
    cores_asked = sum(one.cpu_milli * one.share for one in CPU_FLAVORS)
    arrivals = _stream(rng, gpu_load * cards / (cards_asked * MEAN_LEASE_HOURS), hours, GPU_FLAVORS)
    arrivals += _stream(rng, cpu_load * cores / (cores_asked * MEAN_LEASE_HOURS), hours, CPU_FLAVORS)
    arrivals.sort(key=lambda arrival: arrival.at)
    return Workload(gpu_load, warm_days * 24 * HOUR, tuple(hosts), (*CPU_FLAVORS, *GPU_FLAVORS), tuple(arrivals))


def _stream(rng: np.random.Generator, rate: float, hours: float, flavors: tuple[Flavor, ...]) -> list[Arrival]:
    count = int(rng.poisson(rate * hours))
    # Draw twice as many moments as needed, keep them with the hour's probability (mean 0.55), then as many as wanted.
    moments = rng.uniform(0, hours, count * 2)
    busy = np.where((moments % 24 > 8) & (moments % 24 < 18), 1.5, 0.35)
    moments = moments[rng.random(len(moments)) < busy / 1.5]
    moments = moments[rng.permutation(len(moments))][:count]
    leases = _leases(rng, len(moments))
    shares = np.array([one.share for one in flavors])
    kinds = [one.request() for one in flavors]
    chosen = rng.choice(len(kinds), len(moments), p=shares / shares.sum())
    return [
        Arrival(float(at) * HOUR, float(lease) * HOUR, kinds[kind])
        for at, lease, kind in zip(moments, leases, chosen.tolist(), strict=True)
    ]


def _leases(rng: np.random.Generator, count: int) -> Floats:
    kind = rng.random(count)
    short, days, weeks = rng.uniform(2, 10, count), rng.uniform(24, 72, count), rng.uniform(168, 504, count)
    return np.where(kind < 0.5, short, np.where(kind < 0.75, days, weeks))
