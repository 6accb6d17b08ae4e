"""How much a desktop is used: CPU of the person's programs, so that an unattended computation is not taken for idleness.

The display and the stream themselves do not count: somebody merely looking at a still screen would otherwise seem to compute.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


class CpuMeter:
    """Measures the share (0..1) of the desktop's CPUs that its programs used since the last call.

    Args:
        own: the process ids that do not count (their children do).
        clock: monotonic seconds.
        proc: the process file system.
    """

    def __init__(self, own: Callable[[], Iterable[int]], clock: Callable[[], float], proc: Path = Path("/proc")) -> None:
        self._own = own
        self._clock = clock
        self._proc = proc
        self._at = clock()
        self._used = self._seconds()

    def share(self) -> float:
        """Return the share since the last call."""
        now, used = self._clock(), self._seconds()
        elapsed, spent = now - self._at, used - self._used
        self._at, self._used = now, used
        if elapsed <= 0:
            return 0.0
        return min(1.0, max(0.0, spent / elapsed / available_cpus()))

    def _seconds(self) -> float:
        """Return the CPU seconds of all programs that live, with those of ended children whose parents still live.

        So the time of a short-lived program is not lost: when it ends it moves to its parent.
        """
        own = set(self._own())
        ticks = 0
        for entry in os.listdir(self._proc):  # noqa: PTH208 every two seconds, so cheaply
            if not entry.isdigit():
                continue
            try:
                line = (self._proc / entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            fields = line[line.rfind(")") + 2 :].split()
            user, system, child_user, child_system = map(int, fields[11:15])
            ticks += child_user + child_system + (0 if int(entry) in own else user + system)
        return ticks / _TICK


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Return how many CPUs the desktop may use at once, by its cgroup where that can be seen, else by its affinity."""
    allowed = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        return allowed if quota == "max" else min(allowed, int(quota) / int(period))
    except (OSError, ValueError):
        pass
    try:
        quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text(encoding="ascii")
        period = (cgroup / "cpu/cpu.cfs_period_us").read_text(encoding="ascii")
        return allowed if int(quota) <= 0 else min(allowed, int(quota) / int(period))
    except (OSError, ValueError):
        return allowed
