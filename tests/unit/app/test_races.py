"""Races that only a database with several writers shows: the same checks on PostgreSQL."""

import anyio
import pytest

from apikit import caller, events_of, running_app, wanted
from beamdesk.app import desktops
from beamdesk.app.context import SiteRules
from beamdesk.domain.catalog import Resources
from beamdesk.domain.errors import QuotaExceeded
from beamdesk.domain.policy import Quota
from postgres import running_postgres

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


@pytest.fixture(scope="module")
def postgres():
    with running_postgres() as server:
        yield server


async def test_parallel_applications_do_not_pass_the_quota_together(postgres, tmp_path):
    rules = SiteRules(person_quota=Quota(2, Resources(9, 99999, 999, 0)), experiment_quota=Quota(3, Resources(99, 999999, 999, 0)))
    async with running_app(tmp_path, rules=rules, url=postgres.database()) as app:
        ada, bob, results = await caller(app, "ada"), await caller(app, "bob"), []

        async def one(who):
            try:
                await desktops.apply(app, who, wanted())
                results.append(who.person.login)
            except QuotaExceeded:
                results.append("refused")

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(one, ada)
                group.start_soon(one, bob)
        assert sorted(results).count("refused") == 5
        assert max(results.count("ada"), results.count("bob")) == 2


async def test_the_same_key_at_the_same_time_makes_one_desktop_and_one_event(postgres, tmp_path):
    rules = SiteRules(person_quota=Quota(1, Resources(9, 99999, 999, 0)))  # a second one would not even be allowed
    async with running_app(tmp_path, rules=rules, url=postgres.database()) as app:
        ada, made = await caller(app, "ada"), []

        async def one():
            made.append((await desktops.apply(app, ada, wanted(), idempotency_key="race")).desktop.id)

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(one)
        assert len(set(made)) == 1
        assert len(await events_of(app, "desktop.created")) == 1
