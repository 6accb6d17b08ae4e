"""`beamdesk schedule`: explain decisions of a deployment; replay traces through the scheduling core, which needs none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from beamdesk.adapters.trace import play, workload
from beamdesk.adapters.trace.generator import workload as generate_workload
from beamdesk.adapters.trace.plots import draw
from beamdesk.cli.explain import explain_command, hosts_command
from beamdesk.cli.failure import Exit, Failure
from beamdesk.domain.errors import BeamdeskError, Invalid
from beamdesk.scheduling.policy import POLICIES

schedule_app = typer.Typer(help="Why desktops are where they are; traces through the scheduler.", no_args_is_help=True)

CHURN = {
    "gpu": "GPU desktops accepted",
    "multi": "multi-card desktops accepted",
    "cpu": "CPU desktops accepted",
    "lent": "cards lent",
    "stranded": "cards stranded",
    "fragments": "fragments",
    "cpu_used": "CPU used",
}


schedule_app.command("explain")(explain_command)
schedule_app.command("hosts")(hosts_command)


@schedule_app.command("replay")
def replay_command(
    trace: Annotated[Path, typer.Option(help="Folder of openb CSV files, folder of workloads, or one workload.")],
    policy: Annotated[list[str] | None, typer.Option(help="Policy; may be repeated. Default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many seeds (openb) or files per load (workloads).")] = 1,
    first_seed: Annotated[int, typer.Option(help="First seed of an openb replay.")] = 42,
    nodes: Annotated[str, typer.Option(help="openb hosts: gpu (as published) or all.")] = "gpu",
    moves: Annotated[int, typer.Option(min=0, max=8, help="Desktops that may be moved for one request (workloads).")] = 0,
    out: Annotated[Path | None, typer.Option(help="Draw curves into OUT.png and OUT.svg.")] = None,
) -> None:
    """Play a trace under one or several policies and print what came of it."""
    try:
        policies = policy or list(POLICIES)
        if unknown := [name for name in policies if name not in POLICIES]:
            raise Invalid(f"There is no policy {', '.join(unknown)}. Known: {', '.join(POLICIES)}.", field="policy")
        if nodes not in play.OPENB_HOSTS:
            raise Invalid(f"nodes must be one of {', '.join(play.OPENB_HOSTS)}, not {nodes!r}.", field="nodes")
        if play.is_openb(trace):
            _openb(trace, policies, range(first_seed, first_seed + seeds), nodes, out)
        else:
            _workloads(trace, policies, seeds, moves, out)
    except BeamdeskError as error:
        raise Failure(Exit.USAGE, error.message) from error


@schedule_app.command("generate")
def generate_command(
    folder: Annotated[Path, typer.Argument(help="Where to write the workloads.")],
    seeds: Annotated[int, typer.Option(min=1, max=1000)] = 1,
    first_seed: Annotated[int, typer.Option()] = 42,
    loads: Annotated[str, typer.Option(help="GPU loads, parted by commas; the CPU load is 0.10 higher.")] = "1.05",
) -> None:
    """Write desktop workloads for the built-in site, one file for each load and seed."""
    try:
        points = [float(load) for load in loads.split(",")]
    except ValueError as error:
        raise Failure(Exit.USAGE, f"loads must be numbers parted by commas, not {loads!r}.") from error
    if not all(0 < load <= 10 for load in points):
        raise Failure(Exit.USAGE, "A load must be above 0 and at most 10.")
    folder.mkdir(parents=True, exist_ok=True)
    for load in points:
        for seed in range(first_seed, first_seed + seeds):
            path = folder / f"load-{load:.2f}-seed-{seed}.jsonl"
            workload.write(path, generate_workload(seed, gpu_load=load, cpu_load=round(load + 0.1, 6)))
            typer.echo(str(path))


def _openb(trace: Path, policies: list[str], seeds: range, nodes: str, out: Path | None) -> None:
    data = play.read_openb(trace, nodes)
    typer.echo(
        f"# openb, {len(data.hosts)} hosts, seeds {seeds.start}-{seeds.stop - 1}; cards lent (%) at 90/95/100/130 % asked for"
    )
    typer.echo(
        f"{'policy':14}"
        + "".join(
            f"{name:>9}" for name in ("90", "95", "100", "130", "±", "frag", "gpu acc", "cpu acc", "spilled", "p50 ms", "p99 ms")
        )
    )
    curves = {}
    for name in policies:
        results = [play.play_openb(data, name, seed) for seed in seeds]
        points = {mark: play.mean(one.curve[mark] for one in results) for mark in play.MARKS}
        finals = [one.final for one in results]
        spread = max(abs(final - play.mean(finals)) for final in finals)
        typer.echo(
            f"{name:14}{points[90]:9.2f}{points[95]:9.2f}{points[100]:9.2f}{points[130]:9.2f}{spread:9.2f}"
            f"{play.mean(one.fragments for one in results):9.2f}{play.mean(one.accepted_gpu for one in results):9.2f}"
            f"{play.mean(one.accepted_cpu for one in results):9.2f}{play.mean(one.spilled for one in results):9.0f}"
            f"{play.milliseconds(results, 50):9.2f}{play.milliseconds(results, 99):9.2f}"
        )
        curves[name] = [(float(mark), points[mark]) for mark in play.MARKS if mark >= 60]
    if out is not None:
        files = draw(out, "openb, requests arrive and stay", {"cards lent": curves}, "cards asked for, % of all")
        typer.echo(f"# {' '.join(map(str, files))}")


def _workloads(trace: Path, policies: list[str], seeds: int, moves: int, out: Path | None) -> None:
    by_load: dict[float, list[workload.Workload]] = {}
    for path in play.workload_files(trace):
        one = workload.read(path)
        if len(by_load.setdefault(one.load, [])) < seeds:
            by_load[one.load].append(one)
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {CHURN[name]: {} for name in ("gpu", "multi", "cpu", "stranded")}
    typer.echo(
        f"{'load':>5} {'policy':14}"
        + "".join(f"{name:>10}" for name in CHURN)
        + f"{'spilled':>9}{'moved':>7}{'p50 ms':>8}{'p99 ms':>8}"
    )
    for load, workloads in sorted(by_load.items()):
        for name in policies:
            results = [play.play_workload(one, name, moves=moves) for one in workloads]
            means = {field: play.mean(getattr(one, field) for one in results) for field in CHURN}
            typer.echo(
                f"{load:5.2f} {name:14}"
                + "".join(f"{value:10.2f}" for value in means.values())
                + f"{play.mean(one.spilled for one in results):9.0f}{play.mean(one.moved for one in results):7.0f}"
                + f"{play.milliseconds(results, 50):8.2f}{play.milliseconds(results, 99):8.2f}"
            )
            for field, title in CHURN.items():
                if title in panels:
                    panels[title].setdefault(name, []).append((100 * load, means[field]))
    if out is not None:
        files = draw(out, "Desktops with leases", panels, "GPU load, % of cards")
        typer.echo(f"# {' '.join(map(str, files))}")
