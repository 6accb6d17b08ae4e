"""Who is asking, forged requests, and other people's things."""

import dataclasses
import json
import logging

import anyio
import pytest

from apikit import IMAGING, ORIGIN, PASSWORD, a_desktop, api_client, events_of, make_ready, signed_in
from beamdesk.api import events
from beamdesk.app import logins

pytestmark = pytest.mark.anyio
BODY = {"experiment": IMAGING, "image": "imaging", "flavor": "small"}


async def test_a_token_signs_in_and_out(app):
    async with api_client(app, None) as client:
        answer = await client.post("/logins", json={"login": "ada", "password": PASSWORD})
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        headers = {"Authorization": f"Bearer {answer.json()['token']}"}
        me = await client.get("/me", headers=headers)
        assert me.json() == {
            "id": "ada", "login": "ada", "full_name": "Ada Lin", "language": "zh", "role": "scientist", "beamlines": [],
        }  # fmt: skip
        assert (await client.delete("/logins/current", headers=headers)).status_code == 204
        assert (await client.get("/me", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer invented"},
        {"Authorization": "Basic YWRhOmFkYQ=="},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Cookie": "beamdesk_session="},
        {"Cookie": "beamdesk_session=invented"},
        {"Cookie": "other=1"},
    ],
)
async def test_nobody_gets_401_and_how_to_sign_in(app, headers):
    async with api_client(app, None) as client:
        answer = await client.get("/desktops", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "not_signed_in")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_every_operation_but_sign_in_asks_who_is_there(app):
    async with api_client(app, None) as client:
        document = (await client.get("/openapi.json")).json()
        for path, operations in document["paths"].items():
            for method in operations.keys() - {"parameters"}:
                if (path, method) == ("/logins", "post"):
                    continue
                address = path.replace("{desktop_id}", "dabc").replace("{experiment_id}", IMAGING)
                answer = await client.request(method, address, json=None if method in ("get", "head", "delete") else {})
                expected = 501 if "/data" in path or "/file" in path or "/preview" in path else 401
                assert answer.status_code == expected, (method, path)


async def test_a_wrong_token_is_not_rescued_by_a_cookie(app):
    cookie = (await signed_in(app, "ada", kind="browser")).secret
    async with api_client(app, None) as client:
        headers = {"Authorization": "Bearer wrong", "Cookie": f"beamdesk_session={cookie}"}
        assert (await client.get("/me", headers=headers)).status_code == 401


@pytest.mark.parametrize("origin", [None, "null", "", "http://evil.example", "http://localhost:8081", ORIGIN + "/", ORIGIN.upper()])
async def test_a_page_of_another_origin_cannot_act_with_the_cookie(app, origin):
    desktop_id = (await a_desktop(app)).desktop.id
    cookie = (await signed_in(app, "ada", kind="browser")).secret
    headers = {"Cookie": f"beamdesk_session={cookie}"} | ({"Origin": origin} if origin is not None else {})
    async with api_client(app, None) as client:
        assert (await client.get("/me", headers=headers)).status_code == 200
        for method, path, body in (
            ("POST", "/desktops", BODY),
            ("PATCH", f"/desktops/{desktop_id}", {"name": "x"}),
            ("POST", f"/desktops/{desktop_id}/actions/stop", None),
            ("POST", f"/desktops/{desktop_id}/connections", None),
            ("DELETE", f"/desktops/{desktop_id}", None),
            ("DELETE", "/logins/current", None),
        ):
            answer = await client.request(method, path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
        assert (await client.get(f"/desktops/{desktop_id}", headers=headers)).json()["desired"] == "running"
    assert len([event for event in await events_of(app, "refused") if event.data["action"] == "cross_site_request"]) == 6


async def test_a_page_of_the_portal_can_act_with_the_cookie(app):
    cookie = (await signed_in(app, "ada", kind="browser")).secret
    headers = {"Cookie": f"beamdesk_session={cookie}", "Origin": ORIGIN}
    async with api_client(app, None) as client:
        assert (await client.post("/desktops", json=BODY, headers=headers)).status_code == 201


async def test_by_https_only_the_cookie_bound_to_host_and_path_counts(app):
    secure = dataclasses.replace(app, portal_origin="https://portal.example")
    cookie = (await signed_in(secure, "ada", kind="browser")).secret
    async with api_client(secure, None) as client:
        assert (await client.get("/me", headers={"Cookie": f"beamdesk_session={cookie}"})).status_code == 401
        assert (await client.get("/me", headers={"Cookie": f"__Host-beamdesk_session={cookie}"})).status_code == 200


FOREIGN = [
    ("GET", "", None),
    ("PATCH", "", {"name": "mine now"}),
    ("DELETE", "", None),
    ("POST", "/actions/stop", None),
    ("POST", "/actions/start", None),
    ("POST", "/actions/extend", None),
    ("POST", "/actions/rebuild", None),
    ("POST", "/actions/resize", {"flavor": "large"}),
    ("POST", "/connections", None),
    ("GET", "/events", None),
    ("GET", "/thumbnail", None),
    ("GET", "/console", None),
    ("POST", "/screen", None),
]


@pytest.mark.parametrize(("method", "path", "body"), FOREIGN)
async def test_somebody_elses_desktop_is_not_there_and_asking_is_recorded(app, method, path, body):
    desktop_id = (await a_desktop(app)).desktop.id
    await make_ready(app, desktop_id)
    async with api_client(app, "chen") as client:
        there = await client.request(method, f"/desktops/{desktop_id}{path}", json=body)
        absent = await client.request(method, f"/desktops/{'z' * 16}{path}", json=body)
    assert (there.status_code, absent.status_code) == (404, 404)
    same = [{key: value for key, value in answer.json().items() if key != "instance"} for answer in (there, absent)]
    assert same[0] == same[1]
    recorded = [event for event in await events_of(app, "refused") if event.desktop_id == desktop_id]
    assert [event.actor for event in recorded] == ["chen"]


async def test_foreign_events_and_streams_are_not_there(app):
    desktop_id = (await a_desktop(app)).desktop.id
    async with api_client(app, "chen") as client:
        for path in (f"/events?desktop={desktop_id}", f"/events/stream?desktop={desktop_id}"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get(f"/experiments/{IMAGING}")).status_code == 404
        assert (await client.get(f"/flavors?experiment={IMAGING}")).status_code == 404
        assert (await client.get(f"/images?experiment={IMAGING}")).status_code == 404


async def test_guessing_passwords_is_slowed_down(app):
    async with api_client(app, None) as client:
        answers = [await client.post("/logins", json={"login": "ada", "password": "no"}) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert answers[-1].json()["code"] == "too_many_requests"
    assert int(answers[-1].headers["retry-after"]) >= 1


async def test_no_secret_reaches_logs_events_or_error_texts(app, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    texts = []
    async with api_client(app, None) as client:
        bodies = (
            {"login": "ada", "password": "canary-wrong-1"},
            {"login": "ada", "password": {"canary-wrong-2": 1}},
            {"login": "ada", "password": "canary-wrong-3" + "x" * 300},
            {"login": "ada", "passwort": "canary-wrong-4"},
        )
        texts.extend([(await client.post("/logins", json=body)).text for body in bodies])
        texts.append((await client.post("/logins", content=b'{"password": "canary-wrong-5"', headers=JSON)).text)
        token = (await client.post("/logins", json={"login": "ada", "password": PASSWORD})).json()["token"]
        texts.append((await client.get("/me", headers={"Authorization": f"Token {token}"})).text)
    output = capfd.readouterr()
    told = "".join(texts) + repr(await events_of(app)) + caplog.text + output.out + output.err
    for canary in ("canary-wrong-1", "canary-wrong-2", "canary-wrong-3", "canary-wrong-4", "canary-wrong-5", PASSWORD, token):
        assert canary not in told
    assert json.loads(texts[1])["errors"][0]["field"] == "password"


JSON = {"Content-Type": "application/json"}


async def test_a_quiet_stream_says_that_it_lives(app, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.02)
    fresh = await signed_in(app, "ada")
    lines = events._lines(app, fresh.secret, fresh.caller, None, None)
    assert await anext(lines) == "retry: 1000\n\n"
    assert [await anext(lines) for _ in range(3)] == [": nothing new\n\n"] * 3
    await logins.sign_out(app, fresh.caller)
    with anyio.fail_after(5):
        rest = [line async for line in lines]
    assert all("login.ended" in line for line in rest if "event:" in line)
