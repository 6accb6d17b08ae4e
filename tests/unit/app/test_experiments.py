"""A change of a team takes effect at once."""

from dataclasses import replace

import pytest

from apikit import a_desktop, caller, events_of, make_ready, put_guest
from beamdesk.adapters.demo.people import ADA, BOB, IMAGING
from beamdesk.app.connections import attach, connect, open_session
from beamdesk.app.experiments import change_team, put_experiment, show_team
from beamdesk.domain.desktop import Desired
from beamdesk.domain.errors import Forbidden, Invalid, NotFound, TicketRefused

pytestmark = pytest.mark.anyio


@pytest.fixture
async def watched(app):
    """Ada's desktop with Ada and Bob attached: its id and both sessions."""
    desktop_id = (await a_desktop(app)).desktop.id
    await put_guest(app, desktop_id, "nonce")
    await make_ready(app, desktop_id)
    sessions = {}
    for name in ("ada", "bob"):
        ticket = (await connect(app, await caller(app, name), desktop_id)).ticket
        sessions[name] = await open_session(app, desktop_id, ticket)
    return desktop_id, sessions


async def _ended(app, sessions):
    async with app.store.begin() as tx:
        ids = tuple(opened.session.id for opened in sessions.values())
        return {session.person for session in await tx.sessions.ended_among(ids, app.clock.now())}


async def test_the_streams_of_who_leaves_end_and_those_of_others_do_not(app, watched):
    desktop_id, sessions = watched
    await put_experiment(app, replace(IMAGING, team=IMAGING.team - {BOB.id}))
    assert await _ended(app, sessions) == {BOB.id}
    with pytest.raises(TicketRefused):
        await attach(app, desktop_id, sessions["bob"].secret)
    assert (await attach(app, desktop_id, sessions["ada"].secret)).person == ADA


async def test_an_owner_who_leaves_has_the_desktop_stopped_and_everybody_is_cut(app, watched):
    desktop_id, sessions = watched
    await put_experiment(app, replace(IMAGING, team=IMAGING.team - {ADA.id}))
    assert await _ended(app, sessions) == {ADA.id, BOB.id}
    async with app.store.begin() as tx:
        assert (await tx.desktops.get(desktop_id)).desired is Desired.STOPPED


async def test_the_same_team_again_changes_nothing(app, watched):
    desktop_id, sessions = watched
    await put_experiment(app, IMAGING)
    assert await _ended(app, sessions) == set()
    async with app.store.begin() as tx:
        assert (await tx.desktops.get(desktop_id)).desired is Desired.RUNNING


async def _logins(app, name="olga", **change):
    team = await change_team(app, await caller(app, name), IMAGING.id, **change)
    return [member.login for member in team.members]


async def test_an_operator_changes_a_team_and_it_takes_effect_at_once(app, watched):
    _desktop_id, sessions = watched
    assert await _logins(app, add=["chen"], remove=["bob"]) == ["ada", "chen"]
    assert await _ended(app, sessions) == {BOB.id}
    told = {(event.data["member"], event.data["state"]) for event in await events_of(app, "experiment.team")}
    assert told == {("Chen Wei", "joined"), ("Bob Meyer", "left")}
    assert (await events_of(app, "experiment.team"))[0].actor == "olga"


async def test_asking_for_the_team_that_is_changes_nothing(app, watched):
    _desktop_id, sessions = watched
    assert await _logins(app, add=["ada"], remove=["chen"]) == ["ada", "bob"]
    assert await _ended(app, sessions) == set()
    assert await events_of(app, "experiment.team") == []


@pytest.mark.parametrize(("name", "refusal"), [("ada", Forbidden), ("chen", NotFound)])
async def test_nobody_else_changes_a_team_and_the_attempt_is_recorded(app, name, refusal):
    with pytest.raises(refusal):
        await _logins(app, name, add=["chen"])
    assert (await events_of(app, "refused"))[0].data["action"] == "change_team"
    assert [member.login for member in (await show_team(app, await caller(app, "olga"), IMAGING.id)).members] == ["ada", "bob"]


async def test_a_team_is_shown_to_its_members_and_not_to_others(app):
    assert len((await show_team(app, await caller(app, "ada"), IMAGING.id)).members) == 2
    with pytest.raises(NotFound):
        await show_team(app, await caller(app, "chen"), IMAGING.id)


async def test_an_unknown_login_changes_nothing(app):
    with pytest.raises(Invalid) as refused:
        await _logins(app, add=["chen", "nobody"])
    assert refused.value.field == "add"
    assert await _logins(app) == ["ada", "bob"]
