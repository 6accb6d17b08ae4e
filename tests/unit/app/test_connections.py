"""From a click to a viewer session."""

from dataclasses import replace

import anyio
import pytest

from apikit import STREAM_SECRET, a_desktop, caller, clock_of, events_of, make_ready, put_guest
from beamdesk.adapters.demo.people import BOB, CHEN
from beamdesk.adapters.demo.people import IMAGING as IMAGING_EXPERIMENT
from beamdesk.app import desktops
from beamdesk.app.connections import attach, connect, end_session, open_session
from beamdesk.domain.errors import Conflict, Forbidden, NotFound, TicketRefused
from beamdesk.domain.session import ViewerRole

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ready(app):
    desktop_id = (await a_desktop(app)).desktop.id
    await put_guest(app, desktop_id, "nonce")
    await make_ready(app, desktop_id)
    return desktop_id


async def test_a_ticket_opens_one_session_that_leads_to_the_desktop(app, ready):
    fresh = await connect(app, await caller(app, "ada"), ready)
    assert fresh.url == f"http://d-{ready}.localhost:8081/open"
    opened = await open_session(app, ready, fresh.ticket)
    found = await attach(app, ready, opened.secret)
    assert (found.address, found.stream_secret, found.session.role) == (
        "unix:/run/x/stream.sock",
        STREAM_SECRET,
        ViewerRole.CONTROLLER,
    )


async def test_members_of_the_team_may_only_look(app, ready):
    assert (await connect(app, await caller(app, "bob"), ready)).role is ViewerRole.VIEWER


@pytest.mark.parametrize(("person", "error"), [("chen", NotFound), ("olga", Forbidden)])
async def test_others_get_no_ticket(app, ready, person, error):
    with pytest.raises(error):
        await connect(app, await caller(app, person), ready)
    assert (await events_of(app, "refused"))[0].data["action"] == "connect"


async def test_there_is_no_ticket_for_a_desktop_that_is_not_ready(app):
    desktop_id = (await a_desktop(app)).desktop.id
    with pytest.raises(Conflict):
        await connect(app, await caller(app, "ada"), desktop_id)


async def test_a_ticket_works_once_even_when_raced(app, ready):
    fresh, results = await connect(app, await caller(app, "ada"), ready), []

    async def one():
        try:
            await open_session(app, ready, fresh.ticket)
            results.append("opened")
        except TicketRefused:
            results.append("refused")

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one)
    assert sorted(results) == ["opened"] + ["refused"] * 7
    assert len(await events_of(app, "ticket.refused")) == 7


async def test_late_foreign_and_invented_tickets_are_refused_alike(app, ready):
    other = (await a_desktop(app)).desktop.id
    ada = await caller(app, "ada")
    foreign = (await connect(app, ada, ready)).ticket
    late = (await connect(app, ada, ready)).ticket
    texts = set()
    for desktop_id, ticket, wait in ((other, foreign, 0), (ready, "invented", 0), (ready, "", 0), (ready, late, 11)):
        clock_of(app).tick(wait)
        with pytest.raises(TicketRefused) as refusal:
            await open_session(app, desktop_id, ticket)
        texts.add(refusal.value.message)
    assert len(texts) == 1


async def test_a_ticket_of_somebody_who_left_the_team_is_refused(app, ready):
    fresh = await connect(app, await caller(app, "bob"), ready)
    async with app.store.begin(write=True) as tx:
        await tx.people.put_experiment(replace(IMAGING_EXPERIMENT, team=IMAGING_EXPERIMENT.team - {BOB.id}))
    with pytest.raises(TicketRefused):
        await open_session(app, ready, fresh.ticket)


async def test_a_session_of_somebody_who_left_the_team_leads_nowhere(app, ready):
    opened = await open_session(app, ready, (await connect(app, await caller(app, "bob"), ready)).ticket)
    async with app.store.begin(write=True) as tx:
        await tx.people.put_experiment(replace(IMAGING_EXPERIMENT, team=frozenset({CHEN.id})))
    with pytest.raises(TicketRefused):
        await attach(app, ready, opened.secret)


@pytest.mark.parametrize("act", ["stop", "delete"])
async def test_stopping_and_deleting_end_the_sessions(app, ready, act):
    opened = await open_session(app, ready, (await connect(app, await caller(app, "ada"), ready)).ticket)
    await getattr(desktops, act)(app, await caller(app, "ada"), ready)
    with pytest.raises(TicketRefused):
        await attach(app, ready, opened.secret)
    async with app.store.begin() as tx:
        assert await tx.sessions.ended_among((opened.session.id,), app.clock.now())


async def test_disconnecting_twice_is_fine_and_recorded_once(app, ready):
    opened = await open_session(app, ready, (await connect(app, await caller(app, "ada"), ready)).ticket)
    await end_session(app, opened.session, "disconnect")
    await end_session(app, opened.session, "disconnect")
    assert len(await events_of(app, "session.ended")) == 1


async def test_secrets_stay_out_of_events_and_reprs(app, ready):
    fresh = await connect(app, await caller(app, "ada"), ready)
    opened = await open_session(app, ready, fresh.ticket)
    found = await attach(app, ready, opened.secret)
    told = repr(await events_of(app)) + repr(fresh) + repr(opened) + repr(found)
    for secret in (fresh.ticket, opened.secret, STREAM_SECRET):
        assert secret not in told
