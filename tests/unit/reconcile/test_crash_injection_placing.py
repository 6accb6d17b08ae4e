"""The crash-injection property where reconcilers place desktops: no card twice, no place without a desktop, bookings kept."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from beamdesk.adapters.sql.store import SqlStore
from engine_placing import PLACING_SCHEDULES, open_placing_stage
from engine_schedule import play

pytestmark = pytest.mark.heavy
_SETTINGS = settings(
    max_examples=int(os.environ.get("BEAMDESK_TEST_EXAMPLES", "10")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, to be copied: migrating is slower than a whole schedule."""
    path = tmp_path_factory.mktemp("template") / "store.db"

    async def make() -> None:
        await (await SqlStore.open(f"sqlite+aiosqlite:///{path}")).close()

    asyncio.run(make())
    return path


async def _run(template: Path, schedule: list[tuple[Any, ...]], *, racy: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        shutil.copy(template, path)
        stage, store = await open_placing_stage(f"sqlite+aiosqlite:///{path}", racy=racy)
        try:
            await play(stage, schedule, one_server=not racy)
            await stage.check_end()
        finally:
            await store.close()


@_SETTINGS
@given(schedule=PLACING_SCHEDULES)
def test_every_schedule_ends_as_desired_with_no_card_given_twice(template: Path, schedule: list[tuple[Any, ...]]) -> None:
    asyncio.run(_run(template, schedule, racy=False))


@_SETTINGS
@given(schedule=PLACING_SCHEDULES)
def test_every_schedule_ends_as_desired_on_a_cloud_that_makes_duplicates(template: Path, schedule: list[tuple[Any, ...]]) -> None:
    asyncio.run(_run(template, schedule, racy=True))
