"""The first test of the project.

Several reconcilers work on the same desktops while the schedule kills them before and after any cloud call and any commit, lets claims
expire under their hands, loses answers, hides servers from lists, and people start, stop and delete. Whatever happens: never two
servers for one desktop, never an orphan, and in the end everything is as desired.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from beamdesk.adapters.sql.store import SqlStore
from engine_schedule import SCHEDULES, play
from engine_stage import open_stage

EXAMPLES = int(os.environ.get("BEAMDESK_TEST_EXAMPLES", "10"))
_SETTINGS = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
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
        stage, store = await open_stage(f"sqlite+aiosqlite:///{path}", racy=racy)
        try:
            await play(stage, schedule, one_server=not racy)
            await stage.check_end()
        finally:
            await store.close()


@_SETTINGS
@given(schedule=SCHEDULES)
@example(schedule=[("pass", 0), ("advance", 200), ("advance", 601)])  # everybody stands still until the nonce is worthless
def test_every_schedule_ends_as_desired(template: Path, schedule: list[tuple[Any, ...]]) -> None:
    asyncio.run(_run(template, schedule, racy=False))


@_SETTINGS
@given(schedule=SCHEDULES)
def test_every_schedule_ends_as_desired_on_a_cloud_that_makes_duplicates(template: Path, schedule: list[tuple[Any, ...]]) -> None:
    asyncio.run(_run(template, schedule, racy=True))
