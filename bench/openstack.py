"""A storm of desktops on a real OpenStack with simulated hosts: what Beamdesk adds to what a bare script costs, in one run.

``python -m bench.openstack [--hosts 250] [--desktops 500]`` lets a bare script of the SDK and Beamdesk (store, reconciler in a
process of its own, driver) make the same servers in turn: bare, Beamdesk, bare. Each turn has a new control plane, because one
that made and deleted hundreds of servers is slower; both clients warm it up alike. It prints when each server was up, the CPU
seconds of OpenStack's services (beyond those at rest) and of the clients until the last one was, and how many API calls were
sent. The script's servers are like Beamdesk's; turns that are *lean* make plain ones. The means of each client's storms are
compared; what they differ by is the noise, and how long the same piece of work took meanwhile tells of the machine. ``--every 4``:
not a storm but a busy morning, one desktop every four seconds. True on a quiet machine only: the load is beside each figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from beamdesk.adapters.openstack.config import Homes
from bench._api_calls import Calls
from bench._cloud_cpu import by_service, load
from bench._speed import watched
from bench._storm import Storm, compare
from bench._storm_bare import bare, clear
from bench._storm_ours import ours, reconcile
from controlplane.plane import ControlPlane, Options
from controlplane.world import World, open_world

LIMIT_S = 3600
IDLE_S = 60
TURNS = ("bare", "beamdesk", "bare")


def orders(desktops: int) -> list[str]:
    """Return the sizes of a storm: every fifth with a GPU, one in forty that fits nowhere."""
    return ["too-big" if number % 40 == 39 else "gpu" if number % 5 == 0 else "small" for number in range(desktops)]


async def _storm(
    name: str, plane: ControlPlane, world: World, desktops: int, calls: Calls, folder: Path, every_s: float = 0.0
) -> Storm:
    if name == "beamdesk":
        return await ours(plane, world, orders(desktops), calls, folder, LIMIT_S, every_s)
    return await asyncio.to_thread(bare, plane, world, orders(desktops), calls, LIMIT_S, every_s, lean=name == "lean")


async def turn(name: str, arguments: argparse.Namespace, plane: ControlPlane, folder: Path) -> Storm:
    """Let both clients warm the cloud up, then one make the storm; return what it cost beyond the cloud's rest."""
    calls = Calls({port: name for name, port in plane.layout.ports.items()})
    with calls.watched():
        async with open_world(plane, plane.clouds_yaml, folder, homes=Homes(), timeout_s=10) as world:
            if arguments.warm_up:
                await _storm("bare", plane, world, arguments.warm_up, calls, folder)
                await asyncio.to_thread(clear, plane, world)
                await _storm("beamdesk", plane, world, arguments.warm_up, calls, folder)  # deletes its own
            rest = await _at_rest(plane)
            idle = f"OpenStack at rest: {sum(rest.values()):.2f} CPU-s a second, taken off below"
            print(f"{idle} (load {load():.1f} on {os.cpu_count()} CPUs)", flush=True)
            with watched() as speed:
                begun = time.time()
                storm = await _storm(name, plane, world, arguments.desktops, calls, folder, arguments.every)
            storm = replace(storm, piece_ms=speed.piece_ms(begun, begun + storm.ended_s))
            if name == "beamdesk":
                await world.nothing_left()
                print("Beamdesk left nothing in the cloud", flush=True)
            elif arguments.state is not None:  # a cloud of its own ends with the turn
                await asyncio.to_thread(clear, plane, world)
    return storm.above(rest)


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Run the storms, each on a cloud in the same state, and print what they gave."""
    storms: list[Storm] = []
    for number, name in enumerate(arguments.turns):
        place = folder / str(number)
        place.mkdir()
        with cloud(arguments, place) as plane:
            storm = asyncio.run(turn(name, arguments, plane, place))
            storm.print(calls=all(one.name != name for one in storms))
        storms.append(storm)
    ran, scripts = ([one for one in storms if one.name == name] for name in ("beamdesk", "bare"))
    if ran and scripts:
        print("\n".join(["Beamdesk beside the bare script:", *compare(scripts, ran)]), flush=True)


async def _at_rest(plane: ControlPlane) -> Counter[str]:
    """Return the CPU seconds a second of a cloud that nobody asks for anything: its hosts report all the same."""
    before = by_service(plane)
    await asyncio.sleep(IDLE_S)
    return Counter({name: seconds / IDLE_S for name, seconds in (by_service(plane) - before).items()})


@contextmanager
def cloud(arguments: argparse.Namespace, folder: Path) -> Iterator[ControlPlane]:
    """Give a control plane of its own, or the one that ``python -m tests.controlplane up`` started by hand."""
    if arguments.state is not None:
        plane = ControlPlane(arguments.state, tied=False)
        plane.up()
        yield plane
        return
    options = Options(hosts=arguments.hosts, hosts_per_process=min(50, max(1, arguments.hosts // 2)), volumes=False)
    with ControlPlane(folder / "cloud", options, say=lambda text: print(text, flush=True)) as plane:
        yield plane


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=250)
    parser.add_argument("--desktops", type=int, default=500)
    parser.add_argument("--every", type=float, default=0.0, help="seconds between two desktops; 0: all at once")
    parser.add_argument("--warm-up", type=int, default=20, help="desktops of the storms before those that count")
    parser.add_argument("--turns", nargs="+", choices=("bare", "beamdesk", "lean"), default=TURNS)
    parser.add_argument("--state", type=Path, help="the folder of a control plane that runs, for all turns")
    parser.add_argument("--reconcile", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reconcile:
        uvloop.run(reconcile(**json.loads(arguments.reconcile)))  # as the product does
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started ends with this
    begun = time.time()
    with tempfile.TemporaryDirectory(prefix="beamdesk-bench-") as scratch:
        measure(arguments, Path(scratch))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.time() - begun:.0f} s in all; peak memory of this client {peak:.0f} MiB")


if __name__ == "__main__":
    main()
