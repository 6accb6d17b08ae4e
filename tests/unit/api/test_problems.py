"""Errors on the wire: all of them problem documents, none of them a traceback."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from apikit import IMAGING, PASSWORD, api_client
from beamdesk.api.problems import PROBLEMS
from beamdesk.domain import errors

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}


async def _is_problem(answer, status, code):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"]
    assert problem["title"]
    assert "Traceback" not in answer.text
    return problem


def _all_errors(kind=errors.BeamdeskError):
    yield kind
    for child in kind.__subclasses__():
        yield from _all_errors(child)


def test_every_error_has_a_status():
    assert {kind.code for kind in _all_errors()} <= PROBLEMS.keys()


@pytest.mark.parametrize(
    "path", ["/nothing", "/", "/desktops/", "/desktops/UPPER", "/desktops/a/b/c", "/desktops/%00", "/docs", "/me/"]
)
async def test_what_is_not_there_is_a_problem(app, path):
    async with api_client(app) as client:
        await _is_problem(await client.get(path), 404, "not_found")


async def test_a_wrong_method_says_which_are_right(app):
    async with api_client(app) as client:
        for method, path, allowed in (("PUT", "/desktops", {"GET", "POST"}), ("DELETE", "/me", {"GET"}), ("TRACE", "/me", {"GET"})):
            answer = await client.request(method, path)
            await _is_problem(answer, 405, "method_not_allowed")
            assert allowed & {one.strip() for one in answer.headers["allow"].split(",")}


@pytest.mark.parametrize("content", [b"{", b"", b"[1,2", b"\xff\xfe", b'{"login": "\xff"}', b"[" * 60000, b'{"a":' * 9000])
async def test_a_body_that_is_no_json_is_refused(app, content):
    async with api_client(app, None) as client:
        answer = await client.post("/logins", content=content, headers=JSON)
    assert answer.status_code in (400, 422)
    await _is_problem(answer, answer.status_code, "malformed" if answer.status_code == 400 else "invalid")


@pytest.mark.parametrize("content", [b'"text"', b"5", b"null", b"[]", b'{"login": "\\ud800", "password": "x"}', b"NaN"])
async def test_a_body_of_another_shape_is_invalid(app, content):
    async with api_client(app, None) as client:
        await _is_problem(await client.post("/logins", content=content, headers=JSON), 422, "invalid")


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/json; charset=latin-1"],
)
async def test_a_body_that_is_not_declared_json_is_refused(app, kind):
    async with api_client(app, None) as client:
        answer = await client.post("/logins", content=b'{"login":"ada","password":"x"}', headers={"Content-Type": kind})
    await _is_problem(answer, 415, "unsupported_media_type")


async def test_an_announced_oversized_body_is_refused(app):
    async with api_client(app) as client:
        await _is_problem(await client.post("/desktops", content=b" " * 70_000, headers=JSON), 413, "too_large")


async def test_an_oversized_body_in_chunks_is_refused_while_it_is_read(app):
    sent = 0

    async def chunks():
        nonlocal sent
        for _ in range(1000):
            sent += 8192
            yield b" " * 8192

    async with api_client(app) as client:
        await _is_problem(await client.post("/desktops", content=chunks(), headers=JSON), 413, "too_large")


async def test_a_database_that_does_not_answer_is_503(app):
    class Broken:
        def begin(self, *, write=False):
            raise errors.StoreUnavailable("The database does not answer. Try again in a moment.")

    async with api_client(app) as client:
        token = client.headers["authorization"]
    async with api_client(replace(app, store=Broken()), None) as client:
        await _is_problem(await client.get("/me", headers={"Authorization": token}), 503, "store_unavailable")


@pytest.mark.parametrize("failure", [RuntimeError("/secret/path canary"), errors.ConfigurationError("/secret/path canary")])
async def test_the_unexpected_is_told_without_its_inside(app, failure):
    class Bursting:
        async def images(self):
            raise failure

        async def flavors(self):
            return ()

    with capture_logs() as logs:
        async with api_client(replace(app, catalog=Bursting())) as client:
            answer = await client.get("/images")
            again = await client.get("/me")
    assert [line["event"] for line in logs] in (["api.unexpected"], ["api.failed"])
    assert again.status_code == 200
    problem = await _is_problem(answer, 500, "error")
    assert "canary" not in answer.text
    assert "operators" in problem["detail"]


async def test_every_response_keeps_browsers_from_running_it(app):
    async with api_client(app) as client:
        for path in ("/me", "/nothing", "/openapi.json", "/desktops"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "access-control-allow-origin" not in headers


async def test_the_document_is_complete(app):
    async with api_client(app) as client:
        document = (await client.get("/openapi.json")).json()
    names = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names.add(operation["operationId"])
            assert operation["summary"], (path, method)
            assert operation["description"], (path, method)
            assert {"401", "503"} <= operation["responses"].keys()
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    (kind,) = response["content"]
                    assert kind == "application/problem+json"
    assert len(names) == sum(len(operations) for operations in document["paths"].values())


async def test_a_sign_in_at_a_site_without_passwords_is_refused(app):
    async with api_client(replace(app, sign_in=None), None) as client:
        answer = await client.post("/logins", json={"login": "ada", "password": PASSWORD})
    await _is_problem(answer, 401, "not_signed_in")


async def test_offers(app):
    async with api_client(app) as client:
        assert [item["id"] for item in (await client.get("/experiments")).json()["items"]] == [IMAGING]
        assert (await client.get(f"/experiments/{IMAGING}")).json()["beamline"] == "B7"
        assert [item["id"] for item in (await client.get(f"/images?experiment={IMAGING}")).json()["items"]] == [
            "imaging",
            "general",
        ]
        flavors = {item["id"]: item["availability"] for item in (await client.get("/flavors")).json()["items"]}
    assert (flavors["small"]["state"], flavors["small"]["lacking"]) == ("now", [])
    assert (flavors["huge"]["state"], flavors["huge"]["lacking"], flavors["huge"]["largest"]["vcpus"]) == ("never", ["vcpus"], 16)
