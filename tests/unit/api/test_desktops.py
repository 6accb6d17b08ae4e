"""Desktops on the wire."""

import re

import anyio
import pytest

from apikit import DIFFRACTION, IMAGING, a_desktop, api_client, clock_of, events_of, make_ready, put_guest, running_app
from beamdesk.app import guests
from beamdesk.domain.desktop import Phase
from beamdesk.protocol.guest import NO_CARD_WORKS, Activity, Report, Step, StepName, StepState

pytestmark = pytest.mark.anyio
BODY = {"experiment": IMAGING, "image": "imaging", "flavor": "small", "name": "Sandstone"}


async def test_an_application_is_answered_at_once_with_where_to_look(app):
    async with api_client(app) as client:
        answer = await client.post("/desktops", json=BODY)
        assert answer.status_code == 201
        desktop = answer.json()
        assert answer.headers["location"] == f"/api/v1/desktops/{desktop['id']}"
        assert (desktop["phase"], desktop["name"], desktop["owner"]["login"]) == ("queued", "Sandstone", "ada")
        assert desktop["image"] == {"id": "imaging", "title": {"en": "Imaging beamline", "zh": "成像线站"}}
        assert desktop["steps"][0] == {"name": "queue", "state": "running", "detail": ""}
        again = await client.get(answer.headers["location"].removeprefix("/api/v1"))
        assert again.json() == desktop
        assert again.headers["etag"] == answer.headers["etag"]


async def test_nothing_of_the_inside_is_told(app):
    desktop_id = (await a_desktop(app)).desktop.id
    await put_guest(app, desktop_id, "nonce")
    await make_ready(app, desktop_id)
    async with api_client(app) as client:
        text = (await client.get(f"/desktops/{desktop_id}")).text
    for inside in ("address", "server_id", "unix:", "sha-imaging", "canary", "claim"):
        assert inside not in text


async def test_two_requests_with_one_key_make_one_desktop(app):
    made = []

    async def one(client):
        made.append((await client.post("/desktops", json=BODY, headers={"Idempotency-Key": "k"})).json()["id"])

    async with api_client(app) as client, anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(one, client)
    assert len(set(made)) == 1
    assert len(await events_of(app, "desktop.created")) == 1


@pytest.mark.parametrize(
    ("change", "status", "code", "field"),
    [
        ({"image": "windows"}, 422, "invalid", "image"),
        ({"flavor": "huge"}, 422, "invalid", "flavor"),
        ({"experiment": DIFFRACTION}, 403, "forbidden", "experiment"),
        ({"experiment": "../../etc"}, 422, "invalid", "experiment"),
        ({"experiment": 5}, 422, "invalid", "experiment"),
        ({"experiment": None}, 422, "invalid", "experiment"),
        ({"name": "a\u202eb"}, 422, "invalid", "name"),
        ({"name": "x" * 61}, 422, "invalid", "name"),
        ({"colour": "red"}, 422, "invalid", "colour"),
    ],
)
async def test_a_bad_application_is_a_problem_that_names_the_field(app, change, status, code, field):
    async with api_client(app) as client:
        answer = await client.post("/desktops", json={**BODY, **change})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["type"], problem["status"]) == (code, f"/problems/{code}", status)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert problem["instance"] == "/api/v1/desktops"


async def test_over_quota_is_a_conflict_with_its_own_code(app):
    async with api_client(app) as client:
        answers = [await client.post("/desktops", json=BODY) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201] * 4 + [409]
    assert answers[-1].json()["code"] == "quota_exceeded"


async def test_the_list_is_walked_by_its_links(app):
    for person in ("ada", "ada", "bob", "bob", "bob"):
        clock_of(app).tick(1)
        await a_desktop(app, person)
    seen, address = [], "/desktops?limit=2"
    async with api_client(app) as client:
        while address:
            answer = await client.get(address)
            seen += [item["id"] for item in answer.json()["items"]]
            link = re.fullmatch(r'<(/api/v1)(/desktops\?limit=2&cursor=\w+)>; rel="next"', answer.headers.get("link", ""))
            address = link[2] if link else None
            assert bool(address) == (answer.json()["next"] is not None)
    assert len(seen) == len(set(seen)) == 5


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=..%2Fx", "cursor=' OR 1=1", "cursor=%00"])
async def test_a_bad_page_is_refused(app, query):
    async with api_client(app) as client:
        assert (await client.get(f"/desktops?{query}")).status_code == 422


async def test_what_has_not_changed_is_not_sent_again(app):
    desktop_id = (await a_desktop(app)).desktop.id
    async with api_client(app) as client:
        tag = (await client.get(f"/desktops/{desktop_id}")).headers["etag"]
        for header in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            answer = await client.get(f"/desktops/{desktop_id}", headers={"If-None-Match": header})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        await client.patch(f"/desktops/{desktop_id}", json={"name": "new"})
        answer = await client.get(f"/desktops/{desktop_id}", headers={"If-None-Match": tag})
        assert answer.status_code == 200


async def test_a_step_that_went_by_is_news_but_does_not_refuse_a_change(app):
    desktop_id = (await a_desktop(app)).desktop.id
    await put_guest(app, desktop_id, "nonce")
    await make_ready(app, desktop_id, Phase.BOOTING)
    async with api_client(app) as client:
        identity = await guests.enrol(app, "nonce")
        tag = (await client.get(f"/desktops/{desktop_id}")).headers["etag"]
        said = Report((Step(StepName.ENROL, StepState.DONE), Step(StepName.ACCOUNT, StepState.RUNNING)), Activity(0.0, 0.0))
        await guests.report(app, identity.token, said)
        assert (await client.get(f"/desktops/{desktop_id}", headers={"If-None-Match": tag})).status_code == 200
        assert (await client.post(f"/desktops/{desktop_id}/actions/stop", headers={"If-Match": tag})).status_code == 202


async def test_a_change_to_an_old_version_is_refused(app):
    desktop_id = (await a_desktop(app)).desktop.id
    async with api_client(app) as client:
        tag = (await client.get(f"/desktops/{desktop_id}")).headers["etag"]
        assert (await client.patch(f"/desktops/{desktop_id}", json={"name": "b"}, headers={"If-Match": tag})).status_code == 200
        for header in (tag, f"W/{tag}", '"nonsense"', "5"):
            answer = await client.delete(f"/desktops/{desktop_id}", headers={"If-Match": header})
            assert (answer.status_code, answer.json()["code"]) == (412, "stale_write")
        assert (await client.delete(f"/desktops/{desktop_id}", headers={"If-Match": "*"})).status_code == 202


async def test_of_two_changes_to_the_same_version_one_wins(app):
    desktop_id = (await a_desktop(app)).desktop.id
    statuses = []
    async with api_client(app) as client:
        tag = (await client.get(f"/desktops/{desktop_id}")).headers["etag"]

        async def one(number):
            path = f"/desktops/{desktop_id}/actions/extend"
            statuses.append((await client.post(path, headers={"If-Match": tag})).status_code)

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(one, number)
    assert sorted(statuses) == [200] + [412] * 5


async def test_the_actions(app):
    desktop_id = (await a_desktop(app)).desktop.id
    async with api_client(app) as client:
        for action, status, desired in (("stop", 202, "stopped"), ("start", 202, "running"), ("extend", 200, "running")):
            answer = await client.post(f"/desktops/{desktop_id}/actions/{action}")
            assert (answer.status_code, answer.json()["desired"]) == (status, desired)
        assert (await client.delete(f"/desktops/{desktop_id}")).json()["desired"] == "deleted"
        assert (await client.post(f"/desktops/{desktop_id}/actions/start")).json()["code"] == "conflict"
        assert (await client.post(f"/desktops/{desktop_id}/actions/explode")).status_code == 404


async def test_a_stopped_desktop_is_resized_and_rebuilt(app):
    desktop_id = (await a_desktop(app)).desktop.id
    async with api_client(app) as client:
        path = f"/desktops/{desktop_id}/actions"
        early = await client.post(f"{path}/rebuild")
        assert (early.status_code, early.json()["code"]) == (409, "conflict")
        await client.post(f"{path}/stop")
        await make_ready(app, desktop_id, Phase.STOPPED)
        wrong = await client.post(f"{path}/resize", json={"flavor": "giant"})
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "flavor")
        assert (await client.post(f"{path}/resize", json={})).status_code == 422
        resized = await client.post(f"{path}/resize", json={"flavor": "medium"})
        assert (resized.status_code, resized.json()["flavor"]["id"], resized.json()["phase"]) == (200, "medium", "stopped")
        stale = await client.post(f"{path}/rebuild", headers={"If-Match": '"1-00000000"'})
        assert stale.status_code == 412
        rebuilt = await client.post(f"{path}/rebuild", headers={"If-Match": resized.headers["etag"]})
        assert (rebuilt.status_code, rebuilt.json()["desired"]) == (202, "running")


async def test_a_connection_is_a_ticket_for_the_desktops_own_origin(app):
    desktop_id = (await a_desktop(app)).desktop.id
    await make_ready(app, desktop_id)
    async with api_client(app) as client:
        answer = await client.post(f"/desktops/{desktop_id}/connections")
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["url"] == f"http://d-{desktop_id}.localhost:8081/open"
    assert body["ticket"] not in body["url"]
    assert body["role"] == "controller"


JPEG = b"\xff\xd8\xff\xe0" + b"j" * 64


async def _with_picture(app):
    desktop_id = (await a_desktop(app)).desktop.id
    await put_guest(app, desktop_id, "nonce")
    async with app.store.begin(write=True) as tx:
        await tx.guests.put_thumbnail(desktop_id, "image/jpeg", JPEG, app.clock.now())
    return desktop_id


async def test_a_picture_is_an_image_to_the_browser_and_nothing_else(app):
    desktop_id = await _with_picture(app)
    async with api_client(app) as client:
        answer = await client.get(f"/desktops/{desktop_id}/thumbnail")
        assert (answer.content, answer.headers["content-type"]) == (JPEG, "image/jpeg")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        again = await client.get(f"/desktops/{desktop_id}/thumbnail", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304


@pytest.mark.parametrize(("person", "status"), [("ada", 200), ("bob", 200), ("olga", 403), ("chen", 404)])
async def test_the_picture_is_for_those_who_may_connect(app, person, status):
    desktop_id = await _with_picture(app)
    async with api_client(app, person) as client:
        assert (await client.get(f"/desktops/{desktop_id}/thumbnail")).status_code == status


@pytest.mark.parametrize(("person", "status"), [("ada", 403), ("olga", 200), ("chen", 404)])
async def test_the_console_is_for_operators(app, person, status):
    desktop_id = (await a_desktop(app)).desktop.id
    await make_ready(app, desktop_id)
    async with api_client(app, person) as client:
        answer = await client.get(f"/desktops/{desktop_id}/console")
    assert answer.status_code == status
    if status == 200:
        assert answer.json() == {"text": f"console of server-{desktop_id}"}


@pytest.mark.parametrize(("person", "status"), [("ada", 403), ("olga", 201), ("chen", 404)])
async def test_the_servers_screen_is_for_operators_and_opening_it_is_recorded_without_its_token(app, person, status):
    desktop_id = (await a_desktop(app)).desktop.id
    await make_ready(app, desktop_id, Phase.BOOTING)
    async with api_client(app, person) as client:
        answer = await client.post(f"/desktops/{desktop_id}/screen")
    assert answer.status_code == status
    opened = await events_of(app, "screen.opened")
    if status == 201:
        assert answer.json() == {"url": f"https://cloud.example.org/vnc?token=secret-of-server-{desktop_id}"}
        assert answer.headers["cache-control"] == "no-store"
        assert [(event.actor, event.owner, event.desktop_id) for event in opened] == [("olga", "ada", desktop_id)]
        assert "secret" not in str(opened)
    else:
        assert opened == []


async def test_nobody_looks_over_a_shoulder_by_way_of_the_servers_screen(app):
    desktop_id = (await a_desktop(app)).desktop.id
    await make_ready(app, desktop_id)
    async with api_client(app, "olga") as client:
        answer = await client.post(f"/desktops/{desktop_id}/screen")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert [event.data["action"] for event in await events_of(app, "refused")] == ["open_screen"]


async def test_a_cloud_without_screens_says_so(tmp_path):
    async with running_app(tmp_path, screen=None) as app:
        desktop_id = (await a_desktop(app)).desktop.id
        await make_ready(app, desktop_id, Phase.FAILED)
        async with api_client(app, "olga") as client:
            answer = await client.post(f"/desktops/{desktop_id}/screen")
    assert answer.json()["code"] == "not_supported"
    assert "Read the console instead" in answer.json()["detail"]


STEPS = tuple(Step(name, StepState.DONE) for name in StepName)


async def reported(app, client, flavor, activity):
    """Return what is told of the use of a desktop whose agent said this."""
    desktop_id = (await a_desktop(app, flavor=flavor)).desktop.id
    await put_guest(app, desktop_id, "nonce")
    identity = await guests.enrol(app, "nonce")
    await make_ready(app, desktop_id)
    await guests.report(app, identity.token, Report(STEPS, activity))
    return desktop_id, (await client.get(f"/desktops/{desktop_id}")).json()["use"]


async def test_the_use_of_a_ready_desktop_is_told(app):
    async with api_client(app) as client:
        desktop_id, use = await reported(app, client, "gpu.small", Activity(5.0, 0.42, 0.9312))
        assert (use["cpu"], use["gpu"], use["gpu_state"], use["works"]) == (0.42, 0.931, "known", ["cpu", "gpu"])
        assert use["at"] == "2026-03-01T09:00:00Z"
        listed = (await client.get("/desktops")).json()["items"]
        assert [one["use"] for one in listed if one["id"] == desktop_id] == [use]


async def test_use_that_nobody_knows_is_null_and_never_zero(app):
    async with api_client(app) as client:
        desktop_id, use = await reported(app, client, "gpu.small", Activity(5.0, 0.01, None))
        assert (use["gpu"], use["gpu_state"], use["works"]) == (None, "unknown", ["gpu"])
        clock_of(app).tick(11)
        assert (await client.get(f"/desktops/{desktop_id}")).json()["use"] is None


async def test_a_card_that_does_not_work_is_no_idle_one(app):
    async with api_client(app) as client:
        _, use = await reported(app, client, "gpu.small", Activity(5.0, 0.01, NO_CARD_WORKS))
        assert (use["gpu"], use["gpu_state"], use["works"]) == (None, "unusable", [])


async def test_a_desktop_without_a_card_says_so(app):
    async with api_client(app) as client:
        _, use = await reported(app, client, "small", Activity(5.0, 0.0))
        assert (use["cpu"], use["gpu"], use["gpu_state"]) == (0.0, None, "none")
        assert (await a_desktop(app)).use is None


async def test_a_remark_of_the_agent_is_in_its_step_and_among_the_events(app):
    desktop_id = (await a_desktop(app)).desktop.id
    await put_guest(app, desktop_id, "nonce")
    identity = await guests.enrol(app, "nonce")
    await make_ready(app, desktop_id)
    steps = (*STEPS[:-1], Step(StepName.STREAM, StepState.DONE, "The CPUs encode the picture."))
    await guests.report(app, identity.token, Report(steps, Activity(1.0, 0.0)))
    async with api_client(app) as client:
        told = (await client.get(f"/desktops/{desktop_id}")).json()["steps"]
        assert told[-1] == {"name": "stream", "state": "done", "detail": "The CPUs encode the picture."}
        events = (await client.get(f"/desktops/{desktop_id}/events")).json()["items"]
        assert {"step": "stream", "state": "done", "detail": "The CPUs encode the picture."} in [one["data"] for one in events]
