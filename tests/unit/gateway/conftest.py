"""Fixtures of the gateway's unit tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Only asyncio is used."""
    return "asyncio"
