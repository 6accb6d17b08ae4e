"""What the reconciler's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from beamdesk.adapters.sql.store import SqlStore
from engine_kit import add_people


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = await SqlStore.open(f"sqlite+aiosqlite:///{tmp_path}/store.db")
    await add_people(opened)
    yield opened
    await opened.close()
