"""A reconciler as a process of its own: ``python reconciler.py STORE_URL CLOUD_FILE``. Killed by the tests."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from beamdesk.adapters.fake.cloud import FakeCloud, FakeTimes
from beamdesk.adapters.fake.world import FileWorld
from beamdesk.adapters.sql.store import SqlStore
from beamdesk.adapters.system import SystemClock, SystemSecrets
from beamdesk.ports.cloud import Capacity
from beamdesk.reconcile.main import run
from beamdesk.reconcile.rules import ReconcileRules

RULES = replace(ReconcileRules(), claim=timedelta(seconds=2), call_timeout=timedelta(seconds=1), sweep=timedelta(seconds=1))


async def main(url: str, cloud_file: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    store, clock = await SqlStore.open(url), SystemClock()
    times = FakeTimes(call=0.02, build=0.1, delete=0.1)
    cloud = FakeCloud(clock, world=FileWorld(Path(cloud_file)), times=times, capacity=Capacity(6, 65536, 1000, 0))
    await run(store, cloud, clock, SystemSecrets(), RULES, stop)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
