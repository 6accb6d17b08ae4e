"""Runs one service of Beamdesk as it is, with machines of this host as its cloud: ``launch.py serve|reconcile|gateway``."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from beamdesk import wiring
from beamdesk.adapters.catalog import FileCatalog
from beamdesk.settings import Settings, load_settings
from vm.machine import Plan, QemuCloud


@asynccontextmanager
async def _catalog(settings: Settings) -> AsyncIterator[FileCatalog]:
    yield FileCatalog(settings.cache_dir / "images" / "catalog.json", tuple(flavor.flavor() for flavor in settings.flavors))


if __name__ == "__main__":
    wiring.open_cloud = lambda _settings: QemuCloud(Plan.read(Path(os.environ["BEAMDESK_TEST_MACHINES"])))
    wiring._open_catalog = _catalog
    wiring.run(sys.argv[1], load_settings())
