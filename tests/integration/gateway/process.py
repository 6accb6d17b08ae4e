"""A gateway in a process of its own: ``python -m integration.gateway.process STORE_URL PORT ORIGIN_PORT FOLDER``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from beamdesk.adapters.sql.store import SqlStore
from beamdesk.gateway import server
from integration.gateway.stage import make_app, make_settings


async def main(url: str, port: str, origin_port: str, folder: str) -> None:
    store = await SqlStore.open(url)
    app = make_app(store, int(origin_port))

    def started(listening: int) -> None:
        sys.stdout.write(f"{listening}\n")
        sys.stdout.flush()

    await server.run(app, make_settings(int(port), Path(folder)), asyncio.Event(), started)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
