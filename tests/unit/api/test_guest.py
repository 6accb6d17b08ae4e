"""The guest API: strict messages, spent nonces, bearer identities."""

import json

import pytest

from apikit import a_desktop, events_of, guest_client, put_guest
from beamdesk.protocol.codec import decode
from beamdesk.protocol.guest import ENROL_PATH, REPORT_PATH, THUMBNAIL_PATH, Identity

pytestmark = pytest.mark.anyio
NONCE = "canary-nonce-0d9e1a"
REPORT = {"steps": [{"name": "enrol", "state": "done"}], "activity": {"input_idle_s": 1, "cpu": 0.5}}


@pytest.fixture
async def desktop_id(app):
    view = await a_desktop(app)
    await put_guest(app, view.desktop.id, NONCE)
    return view.desktop.id


async def enrol(client):
    answer = await client.post(ENROL_PATH, json={"nonce": NONCE})
    assert answer.status_code == 200
    return decode(Identity, answer.content)


def bearer(identity):
    return {"Authorization": f"Bearer {identity.token}"}


async def test_an_agent_enrols_reports_and_hands_in_a_picture(app, desktop_id):
    async with guest_client(app) as client:
        identity = await enrol(client)
        assert identity.desktop_id == desktop_id
        answer = await client.post(REPORT_PATH, json=REPORT, headers=bearer(identity))
        assert answer.json() == {"messages": []}
        picture = await client.put(THUMBNAIL_PATH, content=b"\xff\xd8\xff\xe0jpeg", headers=bearer(identity))
        assert picture.status_code == 204
    assert [event.kind for event in await events_of(app) if event.desktop_id][1:] == ["guest.enrolled", "desktop.step"]


async def test_a_replayed_nonce_is_403_and_recorded(app, desktop_id):
    async with guest_client(app) as client:
        await enrol(client)
        assert (await client.post(ENROL_PATH, json={"nonce": NONCE})).status_code == 403
    (event,) = await events_of(app, "guest.refused")
    assert NONCE not in repr(event)


@pytest.mark.parametrize("nonce", ["", "wrong", "x" * 10_000])
async def test_a_wrong_nonce_is_403(app, desktop_id, nonce):
    async with guest_client(app) as client:
        assert (await client.post(ENROL_PATH, json={"nonce": nonce})).status_code == 403
        await enrol(client)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"nonce": 5}',
        b'{"nonce": null}',
        b"{}",
        b'{"nonce": "a", "desktop_id": "b"}',
        b'{"nonce": "\\ud800"}',
        b"[" * 15_000,
        b'{"nonce": "' + b"x" * 17_000 + b'"}',
        b"\xff",
    ],
)
async def test_a_message_of_another_shape_is_400(app, desktop_id, content):
    async with guest_client(app) as client:
        assert (await client.post(ENROL_PATH, content=content)).status_code == 400
        await enrol(client)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {NONCE}"},
        {"Authorization": b"Bearer \xff"},
    ],
)
async def test_without_an_identity_it_is_401(app, desktop_id, headers):
    async with guest_client(app) as client:
        assert (await client.post(REPORT_PATH, json=REPORT, headers=headers)).status_code == 401
        assert (await client.post(THUMBNAIL_PATH, content=b"\xff\xd8\xff", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        {"desktop_id": "d2"},
        {"failure": None},
        {"steps": [{"name": "enrol", "state": "exploded"}]},
        {"steps": [{"name": "rm -rf", "state": "done"}]},
        {"activity": {"input_idle_s": "1", "cpu": 0}},
        {"activity": {"input_idle_s": 1e999, "cpu": 0}},
        {"activity": {"input_idle_s": 10**400, "cpu": 0}},
    ],
)
async def test_a_report_of_another_shape_is_400(app, desktop_id, change):
    async with guest_client(app) as client:
        identity = await enrol(client)
        content = json.dumps({**REPORT, **change})
        assert (await client.post(REPORT_PATH, content=content, headers=bearer(identity))).status_code == 400


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"<html><script>", 422), (b"", 422), (b"GIF89a", 422), (b"\xff\xd8\xff" + b"x" * 65_536, 413)],
)
async def test_a_bad_picture_is_refused(app, desktop_id, content, status):
    async with guest_client(app) as client:
        identity = await enrol(client)
        assert (await client.post(THUMBNAIL_PATH, content=content, headers=bearer(identity))).status_code == status


async def test_an_oversized_picture_in_chunks_is_refused(app, desktop_id):
    async def chunks():
        yield b"\xff\xd8\xff"
        for _ in range(100):
            yield b"x" * 8192

    async with guest_client(app) as client:
        identity = await enrol(client)
        assert (await client.post(THUMBNAIL_PATH, content=chunks(), headers=bearer(identity))).status_code == 413


async def test_a_flood_is_429_with_a_time(app, desktop_id):
    async with guest_client(app) as client:
        identity = await enrol(client)
        answers = [await client.post(THUMBNAIL_PATH, content=b"\xff\xd8\xff", headers=bearer(identity)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [204, 204, 204, 429]
    assert answers[-1].headers["retry-after"] == "2"


async def test_nothing_else_is_served(app):
    async with guest_client(app) as client:
        for path in ("/", "/openapi.json", "/docs", "/guest/v1", "/api/v1/me"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get(ENROL_PATH)).status_code == 405
