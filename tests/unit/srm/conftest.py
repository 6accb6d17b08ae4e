from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apikit import running_app
from beamdesk.app.context import App


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def app(tmp_path: Path, anyio_backend: str) -> AsyncIterator[App]:
    async with running_app(tmp_path, hosts=None) as running:
        yield running
