"""Remove what a dead helper left: containers, limits and mounts. Safe to run at any time when no helper runs."""

from __future__ import annotations

import time

from beamdesk.adapters.local.helper.cgroup import Cgroups
from beamdesk.adapters.local.helper.config import Config
from beamdesk.adapters.local.helper.container import remove_stream

_TIMEOUT_S = 5.0


def sweep(config: Config, cgroups: Cgroups) -> None:
    """Kill every container of the groups that carry the helper's tag, then remove groups and stream mounts."""
    deadline = time.monotonic() + _TIMEOUT_S
    for name in cgroups.names():
        cgroups.kill(name)
        while not cgroups.remove(name) and time.monotonic() < deadline:
            time.sleep(0.005)
            cgroups.kill(name)
    cgroups.remove_parent()
    if config.streams_dir.is_dir():
        for folder in config.streams_dir.iterdir():
            remove_stream(folder)
