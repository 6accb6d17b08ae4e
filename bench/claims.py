"""Claims a second on both databases: claim, and claim + apply, by 1 and by 4 reconcilers at once.

``python bench/claims.py [--rows 2000]`` prints one line a case, with the load of the machine beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.domain.desktop import Phase
from beamdesk.reconcile.apply import outcome_of
from engine_kit import T0, make_desktop
from postgres import running_postgres


async def _fill(store: SqlStore, rows: int) -> None:
    async with store.begin(write=True) as tx:
        for number in range(rows):
            await tx.desktops.insert(make_desktop(f"bench{number:06}", T0))


async def _work(store: SqlStore, name: str, batch: int, *, apply: bool) -> int:
    done = 0
    while True:
        async with store.begin(write=True) as tx:
            claimed = await tx.desktops.claim(token=name, now=T0, until=T0 + timedelta(minutes=1), limit=batch)
        if not claimed:
            return done
        for one in claimed if apply else ():
            after = replace(one.desktop, phase=Phase.BUILDING, due_at=T0 + timedelta(days=1))
            async with store.begin(write=True) as tx:
                await tx.desktops.apply(one, outcome_of(after), T0)
        done += len(claimed)


async def _case(database: str, url: str, rows: int, workers: int, batch: int, *, apply: bool) -> None:
    stores = [await SqlStore.open(url) for _ in range(workers)]
    await _fill(stores[0], rows)
    began, cpu = time.perf_counter(), time.process_time()
    shares = await asyncio.gather(*(_work(store, f"w{n}", batch, apply=apply) for n, store in enumerate(stores)))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert sum(shares) == rows, shares
    what = "claim + apply" if apply else "claim"
    rate = f"{rows / seconds:8.0f} /s"
    print(
        f"{database:<10} {what:<14} workers {workers}  batch {batch:2}  {rate}  CPU {cpu / rows * 1e3:5.2f} ms each  load {_load()}"
    )
    for store in stores:
        await store.close()


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"


def main() -> None:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    rows = parser.parse_args().rows
    cases = [(1, 1, False), (1, 16, True), (4, 1, True), (4, 16, True)]
    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        for number, (workers, batch, apply) in enumerate(cases):
            asyncio.run(_case("sqlite", f"sqlite+aiosqlite:///{folder}/{number}.db", rows, workers, batch, apply=apply))
            asyncio.run(_case("postgresql", postgres.database(), rows, workers, batch, apply=apply))


if __name__ == "__main__":
    main()
