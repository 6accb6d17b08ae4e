"""Scheduling figures, each beside its peers in the same run: decision time, the openb trace, desktops with leases.

    python -m bench.scheduling           times, desktops at one load, openb where BEAMDESK_OPENB names its folder
    python -m bench.scheduling times
    python -m bench.scheduling openb --trace DIR [--seeds 10]
    python -m bench.scheduling desktops [--seeds 6] [--loads 0.9,0.95,1.0,1.05,1.3]

The trace is not part of the project (docs/howto/replay-a-trace.md). Times are CPU time of the deciding thread and, beside it, the
wall clock, which on a busy machine measures its neighbours; the machine's load is printed. Variants were tried on
generated workloads of seeds 1-3; what is reported here are seeds from 42 on.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from beamdesk.adapters.trace import generator, play
from beamdesk.adapters.trace.plots import draw
from beamdesk.scheduling.cards import Card, CardState
from beamdesk.scheduling.claims import release
from beamdesk.scheduling.decide import Scheduler
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.policy import make
from beamdesk.scheduling.state import HostTable

PUBLISHED = {"random": 87.5, "best-fit": 93.1, "fgd": 95.4}
"""Lent cards (%) at 130 % arrival on `default`, Weng et al., from the authors' result files."""
POLICIES = ("nova-default", "heps", "fgd", "beamdesk")


def machine() -> str:
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"# {os.cpu_count()} CPUs ({platform.machine()}), load {load}, numpy {np.__version__}, {time.strftime('%Y-%m-%d %H:%M')}"


def site(hosts: int) -> list[HostFacts]:
    """250: the generator's site; else hosts of 8 cards, three models in turn."""
    if hosts == 250:
        return generator.site()
    models = list(generator.MODELS)
    return [
        HostFacts(
            f"host-{number:06d}",
            128_000,
            1 << 20,
            cards=tuple(Card(f"c{card}", models[number % 3], *generator.MODELS[models[number % 3]]) for card in range(8)),
        )
        for number in range(hosts)
    ]


def times(decisions: int = 3000, warm: int = 500) -> None:
    print(machine())
    print(f"{'hosts':>6} {'policy':14}{'cpu p50':>9}{'cpu p99':>9}{'wall p50':>10}{'wall p99':>10}{'first':>8}   (ms)")
    kinds = [one.request() for one in (*generator.GPU_FLAVORS, *generator.CPU_FLAVORS)]
    for hosts in (250, 10_000):
        for name in POLICIES:
            table, chance, live = HostTable(site(hosts)), random.Random(42), []
            scheduler = Scheduler(table, make(name, table, generator.workload(1, days=1).mix()))
            cpu, wall = [], []
            for number in range(warm + decisions):
                request = replace(chance.choice(kinds), id=f"d{number}")
                begun, used = time.perf_counter(), time.thread_time()
                decision = scheduler.place(request)
                cpu.append((time.thread_time() - used) * 1000)
                wall.append((time.perf_counter() - begun) * 1000)
                live += [request.id] if decision.host else []
                if len(live) > 2 * hosts:
                    release(table, live.pop(chance.randrange(len(live))), leave=CardState.FREE)
            percentiles = [np.percentile(one[warm:], part) for one in (cpu, wall) for part in (50, 99)]
            print(
                f"{hosts:6} {name:14}"
                + "".join(f"{one:{width}.2f}" for one, width in zip(percentiles, (9, 9, 10, 10), strict=True))
                + f"{cpu[0]:8.1f}",
                flush=True,
            )


def openb(trace: Path, seeds: int, out: Path | None) -> None:
    data = play.read_openb(trace)
    print(machine())
    print(f"# openb default, {len(data.hosts)} hosts, seeds 42-{41 + seeds}; lent cards (%) at 90/95/100/130 % arrival")
    curves = {}
    for name in ("fgd", "best-fit", "beamdesk", "random", "heps"):
        results = [play.play_openb(data, name, seed) for seed in range(42, 42 + seeds)]
        points = {mark: play.mean(one.curve[mark] for one in results) for mark in play.MARKS}
        known = f"published {PUBLISHED[name]}, difference {points[130] - PUBLISHED[name]:+.2f}" if name in PUBLISHED else ""
        cpu = play.mean(one.accepted_cpu for one in results)
        print(
            f"{name:14}"
            + "".join(f"{points[mark]:8.2f}" for mark in (90, 95, 100, 130))
            + f"  cpu accepted {cpu:6.2f}  p99 {play.milliseconds(results, 99):5.2f} ms  {known}",
            flush=True,
        )
        curves[name] = [(float(mark), points[mark]) for mark in play.MARKS if mark >= 80]
    if out is not None:
        print(*draw(out, "openb: requests arrive and stay", {"cards lent": curves}, "cards asked for, % of all"))


def desktops(seeds: int, loads: list[float], out: Path | None) -> None:
    print(machine())
    print(f"# 250 hosts, 560 cards, seeds 42-{41 + seeds}, CPU load = GPU load + 0.10; %")
    fields = ("gpu", "multi", "cards", "cpu", "lent", "stranded", "fragments")
    print(f"{'load':>5} {'policy':22}" + "".join(f"{name:>10}" for name in fields) + f"{'moved':>8}{'p99 ms':>8}")
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    titles = {
        "gpu": "GPU desktops accepted",
        "multi": "multi-card accepted",
        "cpu": "CPU desktops accepted",
        "stranded": "cards stranded",
    }
    for load in loads:
        workloads = [generator.workload(seed, gpu_load=load, cpu_load=round(load + 0.1, 6)) for seed in range(42, 42 + seeds)]
        for name, moves in (*((name, 0) for name in POLICIES), ("beamdesk", 1)):
            label = name if not moves else f"{name} + 1 move"
            results = [play.play_workload(one, name, moves=moves) for one in workloads]
            means = {field: play.mean(getattr(one, field) for one in results) for field in fields}
            print(
                f"{load:5.2f} {label:22}"
                + "".join(f"{value:10.2f}" for value in means.values())
                + f"{play.mean(one.moved for one in results):8.0f}{play.milliseconds(results, 99):8.2f}",
                flush=True,
            )
            for field, title in titles.items():
                panels.setdefault(title, {}).setdefault(label, []).append((100 * load, means[field]))
    if out is not None:
        print(*draw(out, "Desktops with leases", panels, "GPU load, % of cards"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=["all", "times", "openb", "desktops"])
    parser.add_argument("--trace", type=Path, default=os.environ.get("BEAMDESK_OPENB"), help="folder of the openb CSV files")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--loads", default="0.9,0.95,1.0,1.05,1.3")
    parser.add_argument("--out", type=Path, help="draw curves into OUT.png and OUT.svg")
    options = parser.parse_args()
    everything = options.what == "all"
    if everything or options.what == "times":
        times()
    if everything or options.what == "desktops":
        loads = [1.05] if everything else [float(load) for load in options.loads.split(",")]
        desktops(2 if everything else options.seeds, loads, options.out)
    if options.trace is not None and options.what in {"all", "openb"}:
        openb(Path(options.trace), 2 if everything else options.seeds, options.out)
    elif options.what in {"all", "openb"}:
        print("openb was not replayed: name its folder by --trace or BEAMDESK_OPENB (docs/howto/replay-a-trace.md)")


if __name__ == "__main__":
    main()
