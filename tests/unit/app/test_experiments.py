"""A change of a team takes effect at once."""

from dataclasses import replace

import pytest

from apikit import a_desktop, caller, make_ready, put_guest
from beamdesk.adapters.demo.people import ADA, BOB, IMAGING
from beamdesk.app.connections import attach, connect, open_session
from beamdesk.app.experiments import put_experiment
from beamdesk.domain.desktop import Desired
from beamdesk.domain.errors import TicketRefused

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
