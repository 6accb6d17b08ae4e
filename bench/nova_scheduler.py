"""nova-scheduler with the plugins beside stock Nova, in the same run: end to end over the message bus, and in process.

End to end: a real OpenStack with simulated hosts (`tests/controlplane`); the time from asking for a destination to the answer,
with Placement's candidates, Nova's database, filters, weigher and claim, as a conductor sees it. Rounds alternate between stock and
plugin, so that the machine's mood meets both; by how much the medians of one side's rounds differ says what a difference between
the sides is worth. In process: Nova's own handlers, filters and weighers only.

``python -m bench.nova_scheduler [--hosts 250] [--requests 40] [--rounds 6]``
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from beamdesk.scheduling.cards import Card
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.state import HostTable
from beamdesk.scheduling.wire import publish
from controlplane.environment import ensure_venv
from controlplane.layout import A100, FARM, T4, V100, Options
from controlplane.plane import ControlPlane
from novaplane import SnapshotApi, decide_inside, python_path

FACTS = {A100: ("A100", 81920, 6912, 1935, 1410), V100: ("V100", 32768, 5120, 900, 1380), T4: ("T4", 16384, 2560, 320, 1590)}
PLUGIN = {
    "available_filters": ["nova.scheduler.filters.all_filters", "beamdesk.plugins.nova.filter.BeamdeskFilter"],
    "enabled_filters": "ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,PciPassthroughFilter,BeamdeskFilter",
    "weight_classes": "beamdesk.plugins.nova.weigher.BeamdeskWeigher",
}
LIMIT = {"scheduler": {"max_placement_results": "1000"}}


def facts(number: int) -> HostFacts:
    kind = FARM[number % len(FARM)]
    cards = [(product, at) for product, count in kind.gpus for at in range(count)]
    told = tuple(Card(f"0000:{0x10 + at:02x}:00.0", *FACTS[product]) for product, at in cards)
    return HostFacts(f"host-{number:03d}", kind.vcpus * 4000, kind.memory_mb, 20000, told)


def end_to_end(hosts: int, requests: int, rounds: int, folder: Path) -> None:
    api = SnapshotApi(folder)
    api.serve(publish(HostTable([facts(number) for number in range(hosts)]), time.time()))
    plugin = {**LIMIT, "filter_scheduler": PLUGIN, "beamdesk": {"api_url": api.url, "credential_file": str(api.credential_file)}}
    options = Options(
        hosts=hosts, hosts_per_process=50, nova=plugin, python_path=(str(python_path(folder / "path")),), volumes=False
    )
    results: dict[str, dict[str, list[list[float]]]] = {name: {"cpu": [], "gpu": [], "spent": []} for name in ("stock", "plugin")}
    try:
        with ControlPlane(folder / "plane", options, say=print) as plane:
            file = plane.layout.etc / "nova/nova-scheduler.conf"
            texts = {"plugin": file.read_text(), "stock": _without_plugin(file.read_text())}
            python = ensure_venv(print) / "bin/python"
            try:
                file.write_text(texts["stock"])
                plane.restart("scheduler")
                _round(plane, python, file, 40)  # APIs and database warm, for whoever is measured first
                for number in range(rounds):
                    for name in ("stock", "plugin") if number % 2 else ("plugin", "stock"):
                        file.write_text(texts[name])
                        plane.restart("scheduler")
                        _round(plane, python, file, 6)  # warm: caches of cells, the first snapshot
                        measured = _round(plane, python, file, requests)
                        print(f"round {number + 1} of {rounds}, {name}: done", flush=True)
                        for kind, values in measured.items():
                            results[name][kind].append(values)
            finally:
                plane.stop(*reversed(plane.names()))
    finally:
        api.stop()
    for kind, what in (("cpu", "CPU desktops"), ("gpu", "GPU desktops"), ("spent", "CPU of nova-scheduler a request")):
        _compare(f"end to end, {hosts} hosts, {what}", results["stock"][kind], results["plugin"][kind])


def _without_plugin(text: str) -> str:
    """Return the configuration as stock Nova: its own weighers, the same other filters."""
    lines = [line.replace(",BeamdeskFilter", "") for line in text.splitlines()]
    return "\n".join(line for line in lines if not line.startswith(("weight_classes", "available_filters = beamdesk"))) + "\n"


def _round(plane: ControlPlane, python: Path, file: Path, requests: int) -> dict[str, list[float]]:
    before = _cpu(plane)
    done = subprocess.run(
        [python, "-P", "-W", "ignore", Path(__file__).parent / "_nova_rpc.py", file, str(requests)],
        capture_output=True, text=True, check=False, cwd=plane.layout.root,
        env={"PATH": "/usr/bin:/bin", "HOME": str(plane.layout.root), "LANG": "C.UTF-8", "OS_NOVA_CONFIG_DIR": str(file.parent)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    result: dict[str, list[float]] = json.loads(done.stdout)
    if result["none"]:
        raise RuntimeError(f"{result['none']} requests found no host: the figures would mean nothing")
    return {"cpu": result["cpu"], "gpu": result["gpu"], "spent": [(_cpu(plane) - before) / requests]}


def _cpu(plane: ControlPlane) -> float:
    """Return the CPU seconds that nova-scheduler and its workers have used: a figure that a busy machine changes little."""
    group, ticks = str(plane.pid("scheduler")), 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[2] == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def in_process(hosts: int, requests: int, folder: Path) -> None:
    """Filters and weighers alone, in Nova's handlers."""
    table = HostTable([facts(number) for number in range(hosts)])
    products = {model: product for product, (model, *_) in FACTS.items()}
    told: list[dict[str, Any]] = [
        {
            "name": one.name,
            "vcpus": one.cpu_milli // 1000,
            "memory_mib": one.memory_mib,
            "cards": [[card.address, products[card.model]] for card in one.cards],
        }
        for one in table.hosts
    ]
    chance = random.Random(1)
    kinds = ({"extra_specs": {}}, {"extra_specs": {"beamdesk:gpus": "1"}, "devices": 1})
    asked = [{"vcpus": 4, "memory_mib": 8192, **chance.choice(kinds)} for _ in range(requests)]
    api = SnapshotApi(folder)
    api.serve(publish(table, time.time()))
    options = {"api_url": api.url, "credential_file": str(api.credential_file)}
    python, path = ensure_venv(print) / "bin/python", python_path(folder / "path")
    took: dict[bool, list[float]] = {}
    try:
        for ours in (False, True):
            job = {"ours": ours, "options": options, "hosts": told, "requests": asked}
            took[ours] = [one["took"] for one in decide_inside(python, path, job)[10:]]
    finally:
        api.stop()
    _compare(f"in process, {hosts} hosts", [took[False]], [took[True]])


def _compare(what: str, stock: list[list[float]], ours: list[list[float]]) -> None:
    """Print the medians and p99 of all rounds together, and how far apart the medians of single rounds are."""

    def show(rounds: list[list[float]]) -> str:
        ordered = sorted(value for one in rounds for value in one)
        medians = [statistics.median(one) * 1e3 for one in rounds]
        between = f" (rounds {min(medians):.1f} to {max(medians):.1f})" if len(rounds) > 1 else ""
        return f"p50 {middle(rounds) * 1e3:7.1f} ms{between}  p99 {ordered[int(len(ordered) * 0.99)] * 1e3:7.1f} ms"

    def middle(rounds: list[list[float]]) -> float:
        return statistics.median(value for one in rounds for value in one)

    change, count = (middle(ours) / middle(stock) - 1) * 100, sum(map(len, ours))
    print(f"{what:<56} stock {show(stock)}   plugin {show(ours)}   {change:+.1f} %   n {count}   load {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=250)
    parser.add_argument("--requests", type=int, default=40, help="of each round")
    parser.add_argument("--rounds", type=int, default=6)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="beamdesk-bench-"))
    try:
        in_process(chosen.hosts, max(100, chosen.requests), folder)
        end_to_end(chosen.hosts, chosen.requests, chosen.rounds, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
