"""The crash-injection property on a real PostgreSQL: its locks, its snapshots, its idea of a transaction."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings

from beamdesk.adapters.sql.schema import metadata
from beamdesk.adapters.sql.store import SqlStore
from engine_placing import PLACING_SCHEDULES, open_placing_stage
from engine_schedule import SCHEDULES, play
from engine_stage import open_stage
from postgres import Postgres, running_postgres

pytestmark = pytest.mark.postgres
EXAMPLES = int(os.environ.get("BEAMDESK_TEST_EXAMPLES", "15"))


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def url(postgres: Postgres) -> str:
    made = postgres.database()

    async def migrate() -> None:
        await (await SqlStore.open(made)).close()

    asyncio.run(migrate())
    return made


def _empty(url: str) -> None:
    tables = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")


async def _run(url: str, schedule: list[tuple[Any, ...]], *, placing: bool = False) -> None:
    stage, store = await (open_placing_stage(url, racy=True) if placing else open_stage(url, racy=True))
    try:
        await play(stage, schedule, one_server=False)
        await stage.check_end()
    finally:
        await store.close()


_SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


@_SETTINGS
@given(schedule=SCHEDULES)
def test_every_schedule_ends_as_desired(url: str, schedule: list[tuple[Any, ...]]) -> None:
    _empty(url)
    asyncio.run(_run(url, schedule))


@_SETTINGS
@given(schedule=PLACING_SCHEDULES)
def test_every_schedule_ends_as_desired_with_no_card_given_twice(url: str, schedule: list[tuple[Any, ...]]) -> None:
    _empty(url)
    asyncio.run(_run(url, schedule, placing=True))
