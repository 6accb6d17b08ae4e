"""Fixtures of the gateway's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from integration.gateway.stage import Stage, make_stage


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The gateway runs on uvloop."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def stage(tmp_path: Path, anyio_backend: object) -> AsyncIterator[Stage]:
    """A gateway with one ready desktop."""
    async with make_stage(tmp_path) as made:
        yield made
