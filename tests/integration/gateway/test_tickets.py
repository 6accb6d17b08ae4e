"""From a ticket to a session: who may, who is asked, who is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from beamdesk.adapters.demo.people import ADA, BOB
from beamdesk.app.connections import connect
from beamdesk.domain.events import EventKind
from beamdesk.domain.session import ViewerRole
from integration.gateway.stage import Stage, put_ready_desktop

pytestmark = pytest.mark.anyio


async def test_a_ticket_from_the_portal_opens_the_desktop(stage: Stage):
    arrived = await stage.post_ticket(await stage.ticket())
    assert (arrived.status, arrived.field("location")) == (303, "/open")
    opened = await stage.follow(arrived)
    assert (opened.status, opened.field("location")) == (303, "/")
    (cookie,) = [value for value in opened.all("set-cookie") if value.startswith("__Host-beamdesk=")]
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    page = await stage.request("GET", "/", Cookie=f"__Host-beamdesk={opened.cookie('__Host-beamdesk')}")
    assert page.status == 200
    assert b"selkies-core.js" in page.body


async def test_the_connect_page_is_guarded(stage: Stage):
    page = await stage.request("GET", "/", Cookie=await stage.sign_in())
    policy = page.field("content-security-policy")
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert page.field("referrer-policy") == "no-referrer"
    assert page.field("cache-control") == "no-store"
    assert b"<script>" not in page.body
    assert b"style=" not in page.body


async def test_a_ticket_is_spent_on_arrival(stage: Stage):
    ticket = await stage.ticket()
    assert (await stage.post_ticket(ticket)).status == 303
    again = await stage.post_ticket(ticket)
    assert again.status == 403
    assert b"This link cannot be used" in again.body
    assert b"http://localhost:8080/" in again.body
    assert not again.all("set-cookie")


async def test_an_exchange_works_once(stage: Stage):
    arrived = await stage.post_ticket(await stage.ticket())
    assert (await stage.follow(arrived)).status == 303
    assert (await stage.follow(arrived)).status == 403


async def test_an_expired_ticket_is_refused(stage: Stage):
    ticket = await stage.ticket()
    stage.clock.ahead += timedelta(seconds=11)
    assert (await stage.post_ticket(ticket)).status == 403


async def test_a_ticket_of_another_desktop_is_refused(stage: Stage):
    other = await put_ready_desktop(stage.app, f"unix:{stage.upstream.path}")
    ticket = (await connect(stage.app, await stage.caller(), other.id)).ticket
    assert (await stage.post_ticket(ticket)).status == 403


@pytest.mark.parametrize("ticket", ["", "x", "x" * 43, "%00" * 20, "../" * 20, "a" * 3000])
async def test_a_made_up_ticket_is_refused(stage: Stage, ticket: str):
    assert (await stage.post_ticket(ticket)).status == 403


async def test_a_ticket_sent_twice_in_one_form_is_refused(stage: Stage):
    ticket = await stage.ticket()
    assert (await stage.post_ticket(f"{ticket}&ticket={ticket}")).status == 403


async def test_a_ticket_in_json_is_refused(stage: Stage):
    body = b'{"ticket": "' + (await stage.ticket()).encode() + b'"}'
    answer = await stage.request("POST", "/open", body, Content_Type="application/json", Origin="http://localhost:8080")
    assert answer.status == 403


async def test_a_ticket_in_the_address_is_refused_and_not_spent(stage: Stage):
    ticket = await stage.ticket()
    answer = await stage.request("GET", f"/open?ticket={ticket}")
    assert answer.status == 403
    assert b"not opened from an address" in answer.body
    assert (await stage.post_ticket(ticket)).status == 303


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost:8081", "https://localhost:8080", "http://localhost:8080.evil.example"]
)
async def test_another_site_cannot_post_a_ticket(stage: Stage, origin: str):
    ticket = await stage.ticket()
    assert (await stage.post_ticket(ticket, origin=origin)).status == 403
    assert (await stage.post_ticket(ticket)).status == 303, "it was not spent"


@pytest.mark.parametrize("origin", [None, "null"])
async def test_a_form_of_unknown_origin_asks_first(stage: Stage, origin: str | None):
    asked = await stage.follow(await stage.post_ticket(await stage.ticket(), origin=origin))
    assert asked.status == 200
    assert "以 Ada Lin 的身份继续" in asked.body.decode()
    assert asked.cookie("__Host-beamdesk") == ""
    pending = f"__Host-beamdesk-open={asked.cookie('__Host-beamdesk-open')}"
    assert (await stage.request("GET", "/", Cookie=pending)).status == 403, "the waiting exchange opens nothing by itself"
    confirmed = await stage.request("POST", "/open/confirm", b"consent=yes", Cookie=pending, Origin=stage.origin)
    assert (confirmed.status, confirmed.field("location")) == (303, "/")
    assert confirmed.cookie("__Host-beamdesk")


async def test_nobody_becomes_somebody_else_silently(stage: Stage):
    ada = await stage.sign_in(ADA)
    asked = await stage.follow(await stage.post_ticket(await stage.ticket(BOB)), cookie=ada)
    assert asked.status == 200
    assert b"Continue as Bob Meyer?" in asked.body
    assert (await stage.request("GET", "/session", Cookie=ada)).body.count(b'"open"') == 1, "Ada is still there"


async def test_the_same_person_goes_on_at_once_and_the_old_session_ends(stage: Stage):
    first = await stage.sign_in(ADA)
    opened = await stage.follow(await stage.post_ticket(await stage.ticket(ADA)), cookie=first)
    assert opened.status == 303
    old = await stage.request("GET", "/session", Cookie=first)
    assert b'"ended"' in old.body


@pytest.mark.parametrize("origin", [None, "null", "http://localhost:8080", "https://evil.example"])
async def test_consent_is_given_on_the_page_itself(stage: Stage, origin: str | None):
    asked = await stage.follow(await stage.post_ticket(await stage.ticket(), origin=None))
    fields = {"Cookie": f"__Host-beamdesk-open={asked.cookie('__Host-beamdesk-open')}"} | ({"Origin": origin} if origin else {})
    answer = await stage.request("POST", "/open/confirm", b"", **fields)
    assert answer.status == 403
    assert not answer.all("set-cookie")


async def test_consent_waits_two_minutes(stage: Stage):
    asked = await stage.follow(await stage.post_ticket(await stage.ticket(), origin=None))
    stage.clock.ahead += timedelta(seconds=121)
    pending = f"__Host-beamdesk-open={asked.cookie('__Host-beamdesk-open')}"
    assert (await stage.request("POST", "/open/confirm", b"", Cookie=pending, Origin=stage.origin)).status == 403


async def test_a_refused_ticket_is_recorded(stage: Stage):
    await stage.post_ticket("x" * 43)
    async with stage.app.store.begin() as tx:
        kinds = [event.kind for event in await tx.events.page(desktop_id=stage.desktop.id)]
    assert EventKind.TICKET_REFUSED in kinds


async def test_a_ticket_posted_many_times_at_once_has_one_winner(stage: Stage):
    ticket = await stage.ticket()
    answers = await asyncio.gather(*(stage.post_ticket(ticket) for _ in range(12)))
    assert sorted(answer.status for answer in answers) == [303] + [403] * 11


async def test_a_colleague_gets_to_watch_only(stage: Stage):
    await stage.stream(await stage.sign_in(BOB))
    assert [entry["role"] for entry in stage.upstream.tables[-1].values()] == [str(ViewerRole.VIEWER)]
