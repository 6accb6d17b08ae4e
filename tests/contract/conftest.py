"""The two databases of the store's contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from beamdesk.adapters.sql.store import SqlStore
from engine_kit import add_people


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    opened = await SqlStore.open(url)
    await add_people(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def other(url: str, store: SqlStore) -> AsyncIterator[SqlStore]:
    """The store of another process."""
    opened = await SqlStore.open(url)
    yield opened
    await opened.close()
