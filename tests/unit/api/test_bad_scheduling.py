"""Bad input to the scheduler and to resource monitoring, as its sender meets it: a problem document, and nothing has changed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from apikit import IMAGING, a_desktop, api_client
from beamdesk.app.context import App
from beamdesk.domain.catalog import Flavor, Resources
from beamdesk.domain.ids import FlavorId
from beamdesk.domain.text import Text
from beamdesk.protocol.codec import encode
from beamdesk.scheduling.vocabulary import Words
from srmkit import FIRST, OPERATOR, SECOND, Agent, a_card, digest, held

pytestmark = pytest.mark.anyio
PLAIN = Text("x", "x")


def json_by(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}


def refused(answer: httpx2.Response, status: int, code: str, says: str, field: str = "") -> None:
    """Check a problem document."""
    told = answer.json()
    assert (answer.status_code, told["code"], answer.headers["content-type"]) == (status, code, "application/problem+json")
    assert says in told["detail"]
    assert [one["field"] for one in told["errors"]] == ([field] if field else [])


async def test_more_cards_than_any_host_has(app: App) -> None:
    app.catalog.all_flavors = (Flavor(FlavorId("eight"), PLAIN, Resources(4, 8192, 40, 8)),)  # type: ignore[attr-defined]
    wanted = {"experiment": IMAGING, "image": "imaging", "flavor": "eight"}
    async with api_client(app) as client:
        refused(
            await client.post("/desktops", json=wanted),
            422,
            "invalid",
            "No host of this site could ever run this size: too little GPUs",
            "flavor",
        )
        assert (await client.get("/desktops")).json()["items"] == []


async def test_a_kind_of_card_that_no_host_has(app: App) -> None:
    size = Flavor(FlavorId("big"), PLAIN, Resources(4, 8192, 40, 1), Words(gpu_memory_mib=80_000))
    app.catalog.all_flavors = (size,)  # type: ignore[attr-defined]
    wanted = {"experiment": IMAGING, "image": "imaging", "flavor": "big"}
    async with api_client(app) as client:
        refused(await client.post("/desktops", json=wanted), 422, "invalid", "too little GPUs of this kind", "flavor")


async def test_an_image_and_a_size_that_contradict_each_other(app: App) -> None:
    general, imaging = app.catalog.all_images  # type: ignore[attr-defined]
    app.catalog.all_images = general, replace(imaging, words=Words(gpus=1))  # type: ignore[attr-defined]
    async with api_client(app) as client:
        answer = await client.post("/desktops", json={"experiment": IMAGING, "image": "imaging", "flavor": "small"})
    refused(answer, 422, "invalid", "This image needs a GPU", "flavor")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"desktops": -1}, "desktops"),
        ({"desktops": 1.5}, "desktops"),
        ({"desktops": 10**30}, "desktops"),
        ({"starts": 12}, "starts"),
        ({"starts": "2026-03-02T09:00:00"}, "starts"),
        ({"ends": "yesterday"}, "ends"),
        ({"ends": "9999-12-31T23:59:59Z"}, "ends"),
        ({"experiment": "../../etc"}, "experiment"),
        ({"note": "a\u202eb"}, "note"),
    ],
)
async def test_a_booking_of_what_is_no_number_or_time(app: App, change: dict[str, Any], field: str) -> None:
    good = {
        "experiment": IMAGING,
        "flavor": "gpu.small",
        "desktops": 1,
        "starts": "2026-03-02T09:00:00Z",
        "ends": "2026-03-02T10:00:00Z",
    }
    async with api_client(app, OPERATOR) as client:
        answer = await client.post("/bookings", json=good | change)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
        assert (await client.get("/bookings")).json()["items"] == []


async def test_a_slot_that_is_taken_names_the_nearest_that_is_not(app: App) -> None:
    slot = {"experiment": IMAGING, "flavor": "gpu.small", "starts": "2026-03-02T09:00:00Z", "ends": "2026-03-02T11:00:00Z"}
    async with api_client(app, OPERATOR) as client:
        assert (await client.post("/bookings", json=slot)).status_code == 201
        answer = await client.post("/bookings", json=slot | {"starts": "2026-03-02T10:00:00Z", "ends": "2026-03-02T12:00:00Z"})
    refused(answer, 409, "conflict", "The nearest slot of this length with room begins at 2026-03-02 11:00 UTC", "starts")
    assert answer.json()["slot"] == {"starts": "2026-03-02T11:00:00Z", "ends": "2026-03-02T13:00:00Z"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"[" * 1000, b"\xff\xfe", b'{"session": 7}', b'{"sequence": NaN}'])
async def test_a_report_that_is_none(app: App, body: bytes) -> None:
    agent = await Agent.reporting(app)
    async with api_client(app, None) as client:
        answer = await client.post("/srm/reports", content=body, headers=json_by(agent.credential))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert await agent.say(), "the next honest report counts"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1", "1e999"])
async def test_a_report_with_a_number_that_cannot_be(app: App, number: str) -> None:
    agent = await Agent.reporting(app)
    said = json.loads(encode(agent.next(cards=(a_card(),))))
    said["cards"][0]["memory_mib"] = "HERE"
    body = json.dumps(said).replace('"HERE"', number)
    async with api_client(app, None) as client:
        answer = await client.post("/srm/reports", content=body, headers=json_by(agent.credential))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert (await agent.device()).facts.memory_mib == 49152


async def test_a_report_with_a_guessed_credential_and_one_from_another_session(app: App) -> None:
    agent = await Agent.reporting(app)
    forged = agent.next(session="guessed", loads=(held(),))
    async with api_client(app, None) as client:
        for secret, status, code in (("guessed", 401, "not_signed_in"), (agent.credential, 409, "conflict")):
            answer = await client.post("/srm/reports", content=encode(forged), headers=json_by(secret))
            assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await agent.states())[FIRST] == "free"


async def test_a_report_from_a_clock_that_is_wrong(app: App) -> None:
    agent = await Agent.reporting(app)
    late = agent.next(sent_at=agent.now - 4000)
    async with api_client(app, None) as client:
        answer = await client.post("/srm/reports", content=encode(late), headers=json_by(agent.credential))
    refused(answer, 409, "conflict", "4000 s behind", "sent_at")


async def test_a_host_that_reports_fewer_cards_than_are_in_use_shows_it_to_operators(app: App) -> None:
    agent = await Agent.reporting(app)
    view = await a_desktop(app, flavor="gpu.small")
    await agent.say(loads=(held(FIRST, str(view.desktop.id)),))
    await agent.say_all(cards=(a_card(SECOND, numa=1),))
    async with api_client(app, OPERATOR) as client:
        cards = {one["address"]: one for one in (await client.get("/srm/hosts/gpu01")).json()["cards"]}
        events = (await client.get("/events")).json()["items"]
    assert (cards[FIRST]["state"], cards[FIRST]["present"]) == ("failed", False)
    assert cards[FIRST]["detail"] == "in use, but its host does not report it"
    assert any(one["kind"] == "srm.alarm" and one["data"]["kind"] == "card_missing_in_use" for one in events)


async def test_two_hosts_of_one_name(app: App) -> None:
    await Agent.reporting(app)
    async with api_client(app, OPERATOR) as client:
        again = await client.post("/srm/hosts", json={"name": "gpu01"})
        refused(again, 409, "conflict", "Host gpu01 is enrolled already", "name")
    stranger = Agent(app, "gpu01", digest("another machine"))
    async with api_client(app, None) as client:
        answer = await client.post("/srm/enrolments", content=encode(_enrol(stranger, "guessed")), headers=json_by("none"))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def _enrol(agent: Agent, token: str) -> object:
    from beamdesk.protocol.srm import Enrol

    return Enrol(token, agent.host, agent.machine, "test")


@pytest.mark.parametrize("hours", ["nan", "inf", "-1", "0", "1e9"])
async def test_history_of_no_length(app: App, hours: str) -> None:
    await Agent.reporting(app)
    async with api_client(app, OPERATOR) as client:
        answer = await client.get(f"/srm/hosts/gpu01/history?address={FIRST}&hours={hours}")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "hours")
