"""Playing traces: from files and seeds to results, for the command line and the benchmarks. The playing itself is the core's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beamdesk.adapters.trace import openb
from beamdesk.adapters.trace.workload import Workload
from beamdesk.domain.errors import Invalid
from beamdesk.scheduling import replay
from beamdesk.scheduling.fragment import Mix, typical
from beamdesk.scheduling.host import HostFacts
from beamdesk.scheduling.policy import make
from beamdesk.scheduling.replay import Churn, ChurnResult, StaticResult
from beamdesk.scheduling.request import Request
from beamdesk.scheduling.state import HostTable

MARKS = tuple(range(131))
OPENB_HOSTS = {"gpu": "openb_node_list_gpu_node.csv", "all": "openb_node_list_all_node.csv"}
OPENB_REQUESTS = "openb_pod_list_default.csv"


@dataclass(frozen=True, slots=True)
class Openb:
    """The openb trace, read."""

    hosts: list[HostFacts]
    requests: list[Request]
    mix: Mix


def read_openb(folder: Path, nodes: str = "gpu") -> Openb:
    """Read the trace's folder; ``nodes``: ``gpu`` = GPU hosts as in the FGD paper, ``all`` = with the CPU hosts.

    Raises:
        Invalid: a file is missing or malformed.
    """
    requests = openb.read_requests(folder / OPENB_REQUESTS)
    return Openb(openb.read_hosts(folder / OPENB_HOSTS[nodes]), requests, typical(requests, memory=False))


def play_openb(trace: Openb, policy: str, seed: int, ratio: float = 1.3) -> StaticResult:
    """Play the inflated trace once: requests arrive in the seed's order and stay."""
    table, rng = HostTable(trace.hosts), np.random.default_rng(seed)
    requests = replay.inflate(trace.requests, replay.card_capacity(table), ratio, rng)
    return replay.static(table, make(policy, table, trace.mix), requests, trace.mix, marks=MARKS, timer=time.perf_counter)


def play_workload(workload: Workload, policy: str, *, moves: int = 0) -> ChurnResult:
    """Play one desktop workload."""
    table, mix = HostTable(workload.hosts), workload.mix()
    churn = Churn(table, make(policy, table, mix), mix, moves=moves, timer=time.perf_counter)
    return churn.run(workload.arrivals, workload.warm)


def workload_files(path: Path) -> list[Path]:
    """Return the workload files that a path names: itself, or a folder's ``*.jsonl`` in order of name.

    Raises:
        Invalid: there is none.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise Invalid(f"{path} holds neither openb CSV files nor workloads (*.jsonl).", field="trace")
    return files


def is_openb(path: Path) -> bool:
    """Tell whether a folder holds the openb trace."""
    return (path / OPENB_REQUESTS).is_file()


def mean(values: Iterable[float]) -> float:
    """Return the mean."""
    return float(np.mean(list(values)))


def milliseconds(results: Sequence[StaticResult | ChurnResult], percentile: float) -> float:
    """Return a percentile of the wall-clock time of all decisions."""
    return float(np.percentile(np.concatenate([np.array(one.seconds) for one in results]), percentile)) * 1000
