"""Explanations, the map of hosts, and bookings, through the API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from apikit import DIFFRACTION, IMAGING, START, a_desktop, api_client, caller, clock_of, events_of, running_app
from beamdesk.adapters.system import SystemSecrets
from beamdesk.app.bookings import NewBooking, book
from beamdesk.app.context import App
from beamdesk.app.desktops import extend
from beamdesk.domain.errors import Conflict
from beamdesk.domain.ids import ExperimentId, FlavorId
from beamdesk.scheduling.host import HostFacts
from placingkit import Site, cpu_host, gpu_host

pytestmark = pytest.mark.anyio


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    places: tuple[HostFacts, ...] = (gpu_host("gpu-1", 2, vcpus=16), cpu_host("cpu-1"))

    async def hosts() -> tuple[HostFacts, ...]:
        return places

    async def capacity() -> None:
        return None

    async with running_app(tmp_path, hosts=hosts, capacity=capacity) as app:
        yield app


def reconciler(app: App) -> Site:
    site = Site(app.store, app.clock, SystemSecrets(), gpu_host("gpu-1", 2, vcpus=16), cpu_host("cpu-1"))
    site.placer = site.placer.__class__(site.cloud.hosts, app.catalog.flavors, site.placer.srm)
    site.worker._placer = site.placer
    clock = clock_of(app)
    clock.advance = clock.tick  # type: ignore[attr-defined]
    return site


def slot(hours: float = 2, length: float = 4, **more: Any) -> dict[str, Any]:
    starts = START + timedelta(hours=hours)
    ends = starts + timedelta(hours=length)
    return {"experiment": IMAGING, "flavor": "gpu.small", "starts": starts.isoformat(), "ends": ends.isoformat(), **more}


async def test_an_owner_is_told_why_this_host_and_why_not_that_one(app: App) -> None:
    view = await a_desktop(app, flavor="gpu.small")
    await reconciler(app).passes()
    async with api_client(app) as client:
        found = (await client.get(f"/desktops/{view.desktop.id}/explanation")).json()
    assert (found["outcome"], found["host"], found["cards"]) == ("placed", "gpu-1", ["0000:00:00.0"])
    assert found["ranking"][0]["host"] == "gpu-1"
    assert found["refused"] == [
        {"reason": "no_such_card", "text": "the host does not have such cards, or not as many", "host": "cpu-1", "hosts": 1}
    ]
    assert found["holders"] == []


async def test_who_waits_is_told_for_what_and_when_without_names_of_others(app: App) -> None:
    views = [await a_desktop(app, "ada", flavor="gpu.small", name="Of ada")]
    async with api_client(app, "olga") as client:
        assert (await client.post("/bookings", json=slot(hours=9, experiment=DIFFRACTION))).status_code == 201
    await reconciler(app).passes()
    view = await a_desktop(app, "bob", flavor="gpu.small", name="Of bob")
    await reconciler(app).passes()
    async with api_client(app, "bob") as client:
        answer = await client.get(f"/desktops/{view.desktop.id}/explanation")
    found = answer.json()
    assert (found["outcome"], found["place"]) in {("waiting", 1), ("placed", None)}
    assert "Of ada" not in answer.text
    assert views[0].owner.full_name not in answer.text


async def test_strangers_learn_nothing_of_a_desktop(app: App) -> None:
    view = await a_desktop(app)
    async with api_client(app, "chen") as client:
        assert (await client.get(f"/desktops/{view.desktop.id}/explanation")).status_code == 404


async def test_operators_see_who_holds_what(app: App) -> None:
    view = await a_desktop(app, flavor="gpu.small")
    await reconciler(app).passes()
    async with api_client(app, "olga") as client:
        hosts = (await client.get("/scheduling/hosts")).json()["items"]
        found = (await client.get(f"/desktops/{view.desktop.id}/explanation")).json()
    cards = {(host["name"], card["address"]): card for host in hosts for card in host["cards"]}
    used = cards["gpu-1", "0000:00:00.0"]
    assert (used["state"], used["holder"]["desktop"], used["holder"]["owner"]) == ("used", view.desktop.id, view.owner.full_name)
    assert cards["gpu-1", "0000:01:00.0"]["state"] == "free"
    assert found["holders"][0]["holder"]["desktop"] == view.desktop.id


@pytest.mark.parametrize("person", ["ada", "bob", "chen", None])
async def test_only_operators_see_the_hosts(app: App, person: str | None) -> None:
    async with api_client(app, person) as client:
        assert (await client.get("/scheduling/hosts")).status_code == (403 if person else 401)
    if person:
        assert [event.data["action"] for event in await events_of(app, "refused")] == ["see_fleet"]


async def test_a_size_that_no_single_host_could_run_is_refused_at_once_beside_its_field(app: App) -> None:
    async with api_client(app) as client:
        body = {"experiment": IMAGING, "image": "imaging", "flavor": "huge"}
        answer = await client.post("/desktops", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["errors"][0]["field"] == "flavor"
    assert "No host of this site could ever run this size: too little CPUs" in answer.json()["detail"]


async def test_an_operator_books_cards_and_others_wait_for_their_end(app: App) -> None:
    async with api_client(app, "olga") as client:
        made = await client.post("/bookings", json=slot(desktops=2, experiment=DIFFRACTION))
        assert made.status_code == 201, made.text
        assert made.json()["cards"] == ["gpu-1/0000:00:00.0", "gpu-1/0000:01:00.0"]
    view = await a_desktop(app, flavor="gpu.small")
    await reconciler(app).passes()
    async with api_client(app) as client:
        found = (await client.get(f"/desktops/{view.desktop.id}/explanation")).json()
        assert (await client.get("/bookings")).json()["items"] == [], "another experiment's booking is not ada's to see"
    assert (found["outcome"], found["lacking"]) == ("waiting", ["booked"])
    assert found["expected_at"] == (START + timedelta(hours=6)).isoformat().replace("+00:00", "Z")
    async with api_client(app, "olga") as client:
        assert (await client.delete(f"/bookings/{made.json()['id']}")).status_code == 204
    await reconciler(app).passes()
    async with api_client(app) as client:
        assert (await client.get(f"/desktops/{view.desktop.id}/explanation")).json()["outcome"] == "placed"


async def test_an_overlap_is_refused_with_the_reason(app: App) -> None:
    async with api_client(app, "olga") as client:
        assert (await client.post("/bookings", json=slot(desktops=2))).status_code == 201
        refused = await client.post("/bookings", json=slot(hours=5))
        after = await client.post("/bookings", json=slot(hours=6))
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "0 can be booked for this slot: other bookings overlap, the last of them until 2026-03-01 15:00 UTC" in refused.text
    assert after.status_code == 201, "a booking that begins when another ends does not touch it"


async def test_a_slot_into_which_leases_run_is_refused_with_that_reason(app: App) -> None:
    await a_desktop(app, flavor="gpu.small")
    await reconciler(app).passes()
    async with api_client(app, "olga") as client:
        refused = await client.post("/bookings", json=slot(desktops=2))
    assert refused.status_code == 409
    assert "Of 2 desktops 1 can be booked for this slot: leases of running desktops run into it." in refused.json()["detail"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ends": START.isoformat()}, "ends"),
        ({"starts": "2020-01-01T00:00:00Z", "ends": "2020-01-02T00:00:00Z"}, "ends"),
        ({"ends": "2026-06-01T00:00:00Z"}, "ends"),
        ({"starts": "2028-03-01T00:00:00Z", "ends": "2028-03-02T00:00:00Z"}, "starts"),
        ({"starts": "2026-03-01T12:00:00"}, "starts"),
        ({"starts": 12}, "starts"),
        ({"desktops": 0}, "desktops"),
        ({"desktops": 33}, "desktops"),
        ({"flavor": "none"}, "flavor"),
        ({"flavor": "huge"}, "flavor"),
        ({"note": "a\u202eb"}, "note"),
        ({"more": 1}, "more"),
    ],
    ids=str,
)
async def test_what_cannot_be_booked_is_refused_with_its_field(app: App, change: dict[str, Any], field: str) -> None:
    async with api_client(app, "olga") as client:
        answer = await client.post("/bookings", json=slot() | change)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field


async def test_who_is_neither_local_contact_nor_operator_cannot_book_or_cancel(app: App) -> None:
    async with api_client(app, "ada") as client:
        assert (await client.post("/bookings", json=slot())).status_code == 403
        assert (await client.post("/bookings", json=slot(experiment=DIFFRACTION))).status_code == 404
    async with api_client(app, "olga") as client:
        made = (await client.post("/bookings", json=slot())).json()["id"]
    async with api_client(app, "ada") as client:
        (seen,) = (await client.get("/bookings")).json()["items"]
        assert not seen["may_cancel"]
        assert (await client.delete(f"/bookings/{made}")).status_code == 403
        assert (await client.delete("/bookings/b0000000")).status_code == 404
    refused = {event.data["action"] for event in await events_of(app, "refused")}
    assert {"book", "cancel_booking"} <= refused


async def test_a_lease_is_not_extended_into_a_booking_of_its_card(app: App) -> None:
    view = await a_desktop(app, flavor="gpu.small")
    await reconciler(app).passes()
    starts = view.desktop.lease_ends_at + timedelta(minutes=1)
    wanted = NewBooking(ExperimentId(DIFFRACTION), FlavorId("gpu.small"), starts, starts + timedelta(hours=4), 2)
    await book(app, await caller(app, "olga"), wanted)
    with pytest.raises(Conflict, match=f"booked from {starts:%Y-%m-%d %H:%M} UTC"):
        await extend(app, await caller(app, "ada"), view.desktop.id)
