"""The CPU seconds of a control plane's processes, by service, and of any one process. Reads /proc and nothing else."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

from controlplane.plane import ControlPlane

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
NOVA_AND_PLACEMENT = ("nova-api", "conductor", "scheduler", "computes", "placement")
"""What the issue's budget is counted against."""


def by_service(plane: ControlPlane) -> Counter[str]:
    """Return the CPU seconds that each service has used since it began; every service has a session of its own."""
    names = {str(pid): _group(name) for name, pid in plane.status().items() if pid}
    spent: Counter[str] = Counter(dict.fromkeys(names.values(), 0))
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[3] in names:
                spent[names[fields[3]]] += sum(map(int, fields[11:15]))
    return Counter({name: ticks * _TICK_S for name, ticks in spent.items()})  # type: ignore[misc]  # seconds are not whole


def _group(name: str) -> str:
    return "computes" if name.startswith("compute-") else name


def process_s(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def load() -> float:
    """Return the machine's load of the last minute."""
    return os.getloadavg()[0]
