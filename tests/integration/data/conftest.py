from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from beamdesk.adapters.demo import tomography
from beamdesk.adapters.preview.pool import SandboxedPreviews


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def previews() -> AsyncIterator[SandboxedPreviews]:
    made = SandboxedPreviews(wall_s=20)
    yield made
    await made.close()


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.nxs"
    tomography.write_scan(str(path), tomography.Scan(size=64, projections=20, flats=4, darks=2))
    return path
