"""Live events from a real server: resume, end, bounds."""

import json
import threading
import time
import uuid

import httpx2
import pytest

BODY = {"experiment": "heps-2026-0147", "image": "general", "flavor": "small"}


class Person:
    """Somebody with a token and a client."""

    def __init__(self, site, login):
        answer = httpx2.post(f"{site.url}/api/v1/logins", json={"login": login, "password": site.password})
        self.client = httpx2.Client(
            base_url=f"{site.url}/api/v1", headers={"Authorization": f"Bearer {answer.json()['token']}"}, timeout=20
        )

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.client.close()

    def stream(self, query="", **headers):
        return self.client.stream("GET", f"/events/stream{query}", headers=headers)

    def apply(self):
        answer = self.client.post("/desktops", json={**BODY, "name": f"s-{uuid.uuid4().hex[:8]}"})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def rename(self, desktop_id, name):
        assert self.client.patch(f"/desktops/{desktop_id}", json={"name": name}).status_code == 200


@pytest.fixture
def bob(site):
    with Person(site, "bob") as person:
        yield person


def read(answer, count):
    """Return the next events of a stream."""
    got = []
    for line in answer.iter_lines():
        if line.startswith("data: "):
            got.append(json.loads(line[6:]))
        if len(got) == count:
            break
    return got


def test_events_come_as_they_happen(bob):
    desktop_id = bob.apply()
    with bob.stream(f"?desktop={desktop_id}") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        start = time.monotonic()
        threading.Timer(0.5, bob.rename, (desktop_id, "live")).start()
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"
        while True:
            line = next(lines)
            if line == "event: desktop.renamed":
                break
        event = json.loads(next(lines).removeprefix("data: "))
        assert event["data"] == {"name": "live"}
        assert time.monotonic() - start < 4


def test_a_stream_resumes_after_the_last_event_without_loss_or_repeat(bob):
    desktop_id = bob.apply()
    for number in range(12):
        bob.rename(desktop_id, f"name {number}")
    everything = bob.client.get(f"/desktops/{desktop_id}/events?limit=100").json()["items"][::-1]
    renamed = [event["id"] for event in everything if event["kind"] == "desktop.renamed"]
    got, last = [], str(everything[0]["id"])
    for _ in range(4):  # four connections, three events each
        with bob.stream(f"?desktop={desktop_id}", **{"Last-Event-ID": last}) as answer:
            got += read(answer, 3)
        last = str(got[-1]["id"])
    ids = [event["id"] for event in got]
    assert ids == sorted(set(ids))
    assert ids == [event["id"] for event in everything if event["id"] > everything[0]["id"]][: len(ids)]
    assert set(renamed) & set(ids)


@pytest.mark.parametrize("last", ["", "abc", "-1", "1e9", "9" * 30, "²"])
def test_an_odd_last_event_id_begins_now(bob, last):
    with bob.stream(**{"Last-Event-ID": last.encode()}) as answer:
        assert answer.status_code == 200


def test_signing_out_ends_the_stream_at_once(site):
    with Person(site, "bob") as person, person.stream() as answer:
        threading.Timer(0.5, person.client.delete, ("/logins/current",)).start()
        start = time.monotonic()
        for _ in answer.iter_lines():
            pass
        assert 0.3 < time.monotonic() - start < 5


def test_a_login_has_a_bounded_number_of_streams(site):
    with Person(site, "bob") as person:
        opened = [person.stream() for _ in range(8)]
        answers = [one.__enter__() for one in opened]
        assert [answer.status_code for answer in answers] == [200] * 8
        refused = person.client.get("/events/stream")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        for one in opened:
            one.__exit__(None, None, None)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # the server notices closed connections in its own time
            with person.stream() as answer:
                if answer.status_code == 200:
                    return
            time.sleep(0.2)
        pytest.fail("closed streams were never given back")


def test_other_peoples_events_do_not_come(site, bob):
    with Person(site, "chen") as chen, chen.stream() as answer:
        lines = answer.iter_lines()
        next(lines)
        bob.apply()
        me = chen.client.get("/me")
        assert me.status_code == 200
        threading.Timer(0.5, chen.client.delete, ("/logins/current",)).start()
        kinds = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert all(event["desktop_id"] is None for event in kinds)
