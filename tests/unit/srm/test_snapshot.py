"""The snapshot is the core's state: what is free there is free here, and nothing else."""

from __future__ import annotations

import pytest

from apikit import api_client, caller, clock_of
from beamdesk.app import srm, srm_snapshot
from beamdesk.app.context import App
from beamdesk.domain.errors import NotSignedIn
from beamdesk.domain.srm import CardState
from beamdesk.protocol.srm import LendMode, PartsFacts, ProfileFacts
from beamdesk.scheduling.reports import check_invariants
from beamdesk.scheduling.snapshot import open_table
from beamdesk.scheduling.wire import open_scheduler, read_snapshot
from srmkit import FIRST, OPERATOR, SECOND, Agent, a_card, held

pytestmark = pytest.mark.anyio


async def consumer(app: App) -> str:
    return await srm.make_consumer(app, await caller(app, OPERATOR), "nova")


async def read(app: App) -> tuple[str, str]:
    document, tag = await srm_snapshot.snapshot(app, await consumer(app), address="10.0.0.9", known=lambda _tag: False)
    assert document is not None
    return document, tag


async def test_a_used_card_is_its_holders_claim(app: App) -> None:
    agent = await Agent.reporting(app)
    await agent.say(loads=(held(holder="server-1"),))
    document, _tag = await read(app)
    table = open_scheduler(read_snapshot(document)).table
    assert {name: claim.grants[0].address for name, claim in table.claims.items()} == {"server-1": FIRST}
    assert check_invariants(table) == []
    row = table.row["gpu01"]
    assert [bool(table.idle[row, table.position(row, address)]) for address in (FIRST, SECOND)] == [False, True]


@pytest.mark.parametrize("state", [CardState.DIRTY, CardState.FAILED])
async def test_what_is_not_free_is_not_free_there(app: App, state: CardState) -> None:
    await Agent.reporting(app)
    await srm.set_device(app, await caller(app, OPERATOR), "gpu01", FIRST, state, why="test")
    table = open_table(read_snapshot((await read(app))[0]).snapshot)
    row = table.row["gpu01"]
    assert not table.idle[row, table.position(row, FIRST)]
    assert check_invariants(table) == []


async def test_holders_that_cannot_be_told_apart_are_still_two(app: App) -> None:
    one = await Agent.reporting(app)
    two = await Agent.reporting(app, "gpu02")
    for agent in (one, two):
        await agent.say(loads=(held(FIRST, "moving"), held(SECOND, "")))
    table = open_table(read_snapshot((await read(app))[0]).snapshot)
    assert len(table.claims) == 4
    assert not table.idle.any()


async def test_a_silent_host_is_stale_and_a_closed_one_is_off(app: App) -> None:
    await Agent.reporting(app)
    await srm.change_host(app, await caller(app, OPERATOR), "gpu01", enabled=False, aggregates=("b7",), dedicated=True)
    clock_of(app).tick(app.rules.srm.stale_after.total_seconds() + 1)
    (host,) = read_snapshot((await read(app))[0]).snapshot.hosts
    assert (host.stale, host.enabled, host.dedicated, host.aggregates) == (True, False, True, frozenset({"b7"}))


async def test_a_host_that_never_reported_is_not_there(app: App) -> None:
    await Agent.enrolled(app)
    assert read_snapshot((await read(app))[0]).snapshot.hosts == ()


async def test_unknown_numbers_are_none_that_a_request_could_ask_for(app: App) -> None:
    unknown = a_card(memory_mib=None, cores=None, bandwidth_gbs=None, clock_mhz=None)
    await Agent.reporting(app, cards=(unknown,))
    (host,) = read_snapshot((await read(app))[0]).snapshot.hosts
    assert (host.cards[0].memory_mib, host.cards[0].cores) == (0, 0)


async def test_parts_of_a_card_are_its_geometry(app: App) -> None:
    parts = PartsFacts("mig-A100", 8, True, (ProfileFacts("1g.10gb", 142, 1, (0, 1, 2), 10240),))
    await Agent.reporting(app, cards=(a_card(mode=LendMode.MIG, parts=parts),))
    (host,) = read_snapshot((await read(app))[0]).snapshot.hosts
    geometry = host.cards[0].geometry
    assert geometry is not None
    assert (geometry.name, geometry.profiles[0].name, geometry.profiles[0].starts) == ("mig-A100", "1g.10gb", (0, 1, 2))


async def test_the_tag_changes_with_the_state_only(app: App) -> None:
    agent = await Agent.reporting(app)
    token = await consumer(app)
    async with api_client(app, None) as client:
        headers = {"Authorization": f"Bearer {token}"}
        first = await client.get("/scheduling/snapshot", headers=headers)
        clock_of(app).tick(10)
        await agent.say()
        again = await client.get("/scheduling/snapshot", headers=headers | {"If-None-Match": first.headers["etag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
        await agent.say(loads=(held(),))
        changed = await client.get("/scheduling/snapshot", headers=headers | {"If-None-Match": first.headers["etag"]})
        assert changed.status_code == 200
        assert changed.headers["etag"] != first.headers["etag"]


async def test_only_a_consumers_credential_reads_it(app: App) -> None:
    agent = await Agent.reporting(app)
    token = await consumer(app)
    for secret in ("guessed", agent.credential, token[:-1]):
        with pytest.raises(NotSignedIn):
            await srm_snapshot.snapshot(app, secret, address="10.0.0.9", known=lambda _tag: False)
    operator = await caller(app, OPERATOR)
    assert [(one.name, one.used_at) for one in await srm.list_consumers(app, operator)] == [("nova", None)]
    await srm_snapshot.snapshot(app, token, address="10.0.0.9", known=lambda _tag: False)
    assert (await srm.list_consumers(app, operator))[0].used_at == clock_of(app).now()
    await srm.remove_consumer(app, operator, "nova")
    with pytest.raises(NotSignedIn):
        await srm_snapshot.snapshot(app, token, address="10.0.0.9", known=lambda _tag: False)


@pytest.mark.parametrize("person", [None, "olga"])
async def test_a_login_is_no_credential_of_a_scheduler(app: App, person: str | None) -> None:
    async with api_client(app, person) as client:
        answer = await client.get("/scheduling/snapshot")
    assert (answer.status_code, answer.json()["code"]) == (401, "not_signed_in")


async def test_every_change_that_matters_changes_the_tag(app: App) -> None:
    agent = await Agent.reporting(app)
    operator = await caller(app, OPERATOR)
    tags = [(await read(app))[1]]

    async def changed() -> None:
        document, tag = await read(app)
        assert tag not in tags
        tags.append(tag)
        (host,) = read_snapshot(document).snapshot.hosts
        table = (await srm_snapshot.records_world(app)).table
        assert bool(table.enabled[table.row["gpu01"]]) == host.enabled

    await agent.say(loads=(held(),))
    await changed()
    await agent.say(cards=(a_card(SECOND, numa=1, memory_mib=1024),))
    await changed()
    await srm.change_host(app, operator, "gpu01", enabled=False)
    await changed()
    await srm.change_host(app, operator, "gpu01", aggregates=("b9",))
    await changed()
    clock_of(app).tick(app.rules.srm.stale_after.total_seconds() + 1)
    await changed()
    await agent.say(gone=(SECOND,))
    await changed()
