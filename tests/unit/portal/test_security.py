"""Headers, forged requests, hostile input."""

from __future__ import annotations

import re

import pytest

from apikit import a_desktop, events_of, make_ready
from beamdesk.app.context import App
from beamdesk.domain.desktop import Desired
from beamdesk.portal.security import MAX_FORM_BYTES

from .conftest import Browse
from .pages import csrf, send

pytestmark = pytest.mark.anyio
PAGES = ("/sign-in", "/desktops", "/desktops/new", "/data", "/activity", "/nowhere")
HOSTILE = '"><img src=x onerror=alert(1)>{{7*7}}</script><script>alert(2)'


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_has_the_headers(browse: Browse, path: str) -> None:
    async with browse(None if path == "/sign-in" else "bob") as client:
        headers = (await client.get(path)).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PAGES)
async def test_no_page_needs_inline_script_or_style(browse: Browse, path: str) -> None:
    async with browse(None if path == "/sign-in" else "bob") as client:
        page = (await client.get(path)).text
    assert not re.search(r"\son\w+=", page)
    assert " style=" not in page
    assert "<style" not in page
    scripts = re.findall(r"<script([^>]*)>", page)
    assert all("src=" in one or 'type="application/json"' in one for one in scripts)


async def test_the_connect_page_may_post_to_its_desktop_and_nowhere_else(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    await make_ready(app, view.desktop.id)
    async with browse("bob") as client:
        page = await send(client, f"/desktops/{view.desktop.id}/connect")
    origin = f"http://d-{view.desktop.id}.localhost:8081"
    assert page.status_code == 200
    assert f"form-action 'self' {origin};" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "strict-origin"
    assert f'action="{origin}/open"' in page.text
    assert re.search(r'<input type="hidden" name="ticket" value="[\w-]{43}">', page.text)
    assert not re.search(r"(href|src|action)=\"[^\"]*ticket", page.text)
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("action", ["stop", "start", "extend", "delete", "rename", "rebuild", "resize", "connect"])
async def test_a_form_without_the_logins_token_changes_nothing(browse: Browse, app: App, action: str) -> None:
    view = await a_desktop(app, "bob")
    async with browse("bob") as client, browse("ada") as other:
        for token in ("", "0" * 64, await csrf(other)):
            answer = await client.post(f"/desktops/{view.desktop.id}/{action}", data={"csrf": token, "name": "changed"})
            assert answer.status_code == 403
    async with app.store.begin() as tx:
        assert await tx.desktops.get(view.desktop.id) == view.desktop


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:8081", "https://localhost:8080", "http://d-abc.localhost:8080"]
)
async def test_a_request_of_another_origin_is_refused_even_with_the_token(browse: Browse, app: App, origin: str) -> None:
    view = await a_desktop(app, "bob")
    async with browse("bob") as client:
        token = await csrf(client)
        answer = await client.post(f"/desktops/{view.desktop.id}/delete", data={"csrf": token}, headers={"Origin": origin})
    assert answer.status_code == 403
    async with app.store.begin() as tx:
        desktop = await tx.desktops.get(view.desktop.id)
    assert desktop is not None
    assert desktop.desired is Desired.RUNNING


async def test_nobody_can_be_signed_in_from_another_site(browse: Browse) -> None:
    async with browse(None) as client:
        answer = await client.post("/sign-in", data={"login": "ada", "password": "x"}, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_without_an_origin_the_browser_must_vouch_for_the_request(browse: Browse) -> None:
    async with browse("bob") as client:
        token = await csrf(client)
        del client.headers["Origin"]
        assert (await client.post("/sign-out", data={"csrf": token})).status_code == 403
        assert (await client.post("/sign-out", data={"csrf": token}, headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403
        assert (await client.post("/sign-out", data={"csrf": token}, headers={"Sec-Fetch-Site": "same-origin"})).status_code == 303


async def test_looking_changes_nothing(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    async with browse("bob") as client:
        for action in ("stop", "start", "extend", "delete", "rename", "rebuild", "connect"):
            assert (await client.get(f"/desktops/{view.desktop.id}/{action}")).status_code == 405
        for path in ("/sign-out", "/language", "/theme"):
            assert (await client.get(path)).status_code == 405


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"a=" + b"x" * MAX_FORM_BYTES, "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=1" % n for n in range(100)), "application/x-www-form-urlencoded"),
        (b"login=%ff%fe", "application/x-www-form-urlencoded"),
        (b"login=\xff", "application/x-www-form-urlencoded"),
        (b'{"login": "ada"}', "application/json"),
        (b"--x--", "multipart/form-data; boundary=x"),
    ],
)
async def test_malformed_and_oversized_forms_are_refused(browse: Browse, body: bytes, kind: str) -> None:
    async with browse(None) as client:
        answer = await client.post("/sign-in", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert "Traceback" not in answer.text


async def test_hostile_names_are_shown_as_text_everywhere(browse: Browse, app: App) -> None:
    name = HOSTILE[:60]
    view = await a_desktop(app, "bob", name=name)
    desktop = f"/desktops/{view.desktop.id}"
    async with browse("bob") as client:
        for path in ("/desktops", desktop, f"{desktop}/card", f"{desktop}/ask/delete", f"{desktop}/ask/rename", "/activity"):
            page = await client.get(path)
            assert page.status_code == 200
            assert "<img src=x" not in page.text
            assert "<script>alert" not in page.text
            assert "&lt;img src=x" in page.text
        partial = await client.post(f"{desktop}/stop", data={"csrf": await csrf(client)}, headers={"HX-Request": "true"})
    assert partial.headers["hx-trigger"].isascii()
    assert "<img src=x" not in partial.text


async def test_hostile_queries_are_shown_as_text(browse: Browse) -> None:
    async with browse("bob") as client:
        for path in ("/desktops", "/activity", "/sign-in", "/desktops/new"):
            for key in ("next", "notice", "after", "before", "desktop", "experiment", "image", "flavor", "name", "ended"):
                page = await client.get(path, params={key: HOSTILE})
                assert "<img src=x" not in page.text
                assert "<script>alert" not in page.text


async def test_a_failed_form_comes_back_escaped(browse: Browse) -> None:
    async with browse("bob") as client:
        page = await send(client, "/desktops", experiment=HOSTILE, image=HOSTILE, flavor=HOSTILE, name=HOSTILE, key="k1")
    assert "<img src=x" not in page.text
    assert "<script>alert" not in page.text


async def test_a_bug_shows_no_traceback(browse: Browse, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    from beamdesk.app import desktops

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("canary-secret-4711")

    async with browse("bob") as client:
        monkeypatch.setattr(desktops, "list_desktops", broken)
        page = await client.get("/desktops")
    assert page.status_code == 500
    assert "canary-secret" not in page.text
    assert "Traceback" not in page.text
    assert "That was our mistake" in page.text
    assert page.headers["x-content-type-options"] == "nosniff"


async def test_an_unreachable_store_is_told_in_plain_words(browse: Browse, monkeypatch: pytest.MonkeyPatch) -> None:
    from beamdesk.app import desktops
    from beamdesk.domain.errors import StoreUnavailable

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("The database does not answer. Try again in a moment.")

    async with browse("bob") as client:
        monkeypatch.setattr(desktops, "list_desktops", away)
        page = await client.get("/desktops")
    assert page.status_code == 503
    assert page.headers["retry-after"]
    assert "Back in a moment" in page.text


async def test_a_foreign_desktop_is_as_unknown_as_none(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    async with browse("chen") as client:
        token = await csrf(client)
        for suffix in ("", "/card", "/ask/delete", "/thumbnail"):
            foreign = await client.get(f"/desktops/{view.desktop.id}{suffix}")
            missing = await client.get(f"/desktops/nothing{suffix}")
            assert foreign.status_code == missing.status_code
            assert foreign.text.replace(view.desktop.id, "nothing") == missing.text
        for action in ("stop", "start", "extend", "delete", "rebuild", "resize", "connect"):
            assert (await client.post(f"/desktops/{view.desktop.id}/{action}", data={"csrf": token})).status_code == 404
    assert await events_of(app, "refused")


async def test_the_secret_and_the_token_differ(browse: Browse) -> None:
    async with browse("bob") as client:
        token, secret = await csrf(client), client.cookies["beamdesk_session"]
        page = await client.get("/desktops")
    assert token != secret
    assert secret not in page.text
