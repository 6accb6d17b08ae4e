"""Signing in and out: cookies, errors beside fields, limits, and where one ends up."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from apikit import PASSWORD, events_of
from beamdesk.app.context import App
from beamdesk.portal.config import PortalSettings
from beamdesk.portal.security import safe_next

from .conftest import Browse, browser
from .pages import field, send, text

pytestmark = pytest.mark.anyio


async def test_the_session_cookie_is_out_of_reach_for_scripts_and_other_sites(browse: Browse) -> None:
    async with browse(None) as client:
        answer = await client.post("/sign-in", data={"login": "ada", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("beamdesk_session=")
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "domain=" not in cookie
    assert "secure" not in cookie


async def test_behind_https_the_cookie_is_bound_to_the_host(app: App) -> None:
    settings = PortalSettings(portal_origin="https://desk.light.example")
    async with browser(app, None, settings=settings) as client:
        answer = await client.post("/sign-in", data={"login": "ada", "password": PASSWORD})
        page = await client.get("/desktops")
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("__host-beamdesk_session=")
    assert "secure" in cookie
    assert "domain=" not in cookie
    assert page.status_code == 200
    assert page.headers["strict-transport-security"]


async def test_a_wrong_password_is_told_beside_the_field_and_keeps_the_name(browse: Browse, app: App) -> None:
    async with browse(None) as client:
        page = await client.post("/sign-in", data={"login": "ada", "password": "canary-wrong"})
    assert page.status_code == 401
    assert 'aria-describedby="password-error"' in page.text
    assert "The name or the password is wrong" in text(page)
    assert field(page, "login") == "ada"
    assert "canary-wrong" not in page.text
    assert await events_of(app, "login.refused")


async def test_an_unknown_name_reads_the_same_as_a_wrong_password(browse: Browse) -> None:
    async with browse(None) as client:
        unknown = await client.post("/sign-in", data={"login": "nobody", "password": "x"})
        wrong = await client.post("/sign-in", data={"login": "ada", "password": "x"})
    assert text(unknown).replace("nobody", "ada") == text(wrong)


async def test_missing_fields_are_named(browse: Browse) -> None:
    async with browse(None) as client:
        page = await client.post("/sign-in", data={"login": " ", "password": ""})
    assert page.status_code == 400
    assert "Type your name." in text(page)
    assert "Type your password." in text(page)


async def test_too_many_guesses_are_slowed_down_politely(browse: Browse) -> None:
    async with browse(None) as client:
        pages = [await client.post("/sign-in", data={"login": "ada", "password": f"guess{n}"}) for n in range(11)]
    assert [page.status_code for page in pages[:10]] == [401] * 10
    assert pages[10].status_code == 429
    assert "Too many failed sign-ins. Wait" in text(pages[10])


async def test_after_signing_in_one_is_back_where_one_wanted_to_be(browse: Browse) -> None:
    async with browse(None) as client:
        asked = await client.get("/activity?desktop=abc")
        assert asked.status_code == 303
        form = await client.get(asked.headers["location"])
        assert field(form, "next") == "/activity?desktop=abc"
        answer = await client.post("/sign-in", data={"login": "ada", "password": PASSWORD, "next": field(form, "next")})
    assert answer.headers["location"] == "/activity?desktop=abc"


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/ok\r\nSet-Cookie: x=1",
        "evil",
        "",
        "/" + "a" * 3000,
        "/\u2028x",
        "///evil.example",
    ],
)
async def test_the_way_back_never_leads_to_another_site(browse: Browse, target: str) -> None:
    async with browse(None) as client:
        answer = await client.post("/sign-in", data={"login": "ada", "password": PASSWORD, "next": target})
    where = urlsplit(answer.headers["location"])
    assert (where.scheme, where.netloc) == ("", "")
    assert answer.headers["location"].startswith("/")
    assert not answer.headers["location"].startswith("//")
    assert "set-cookie: x" not in str(answer.headers).lower()


def test_paths_of_our_own_are_kept() -> None:
    assert safe_next("/desktops/abc?x=1&y=%2F") == "/desktops/abc?x=1&y=%2F"
    assert safe_next("//evil") == "/desktops"


async def test_signing_out_ends_the_login_not_only_the_cookie(browse: Browse) -> None:
    async with browse() as client:
        secret = client.cookies["beamdesk_session"]
        answer = await send(client, "/sign-out")
        assert answer.headers["location"] == "/sign-in?left=1"
        client.cookies.set("beamdesk_session", secret)
        assert (await client.get("/desktops")).status_code == 303


async def test_signing_in_anew_ends_the_login_before(browse: Browse) -> None:
    async with browse() as client:
        before = client.cookies["beamdesk_session"]
        await client.post("/sign-in", data={"login": "bob", "password": PASSWORD})  # the form may be older than the login
        assert client.cookies["beamdesk_session"] != before
        client.cookies.clear()
        client.cookies.set("beamdesk_session", before)
        assert (await client.get("/desktops")).status_code == 303


async def test_who_is_signed_in_does_not_see_the_form_again(browse: Browse) -> None:
    async with browse() as client:
        assert (await client.get("/sign-in?next=/data")).headers["location"] == "/data"


async def test_a_part_of_a_page_sends_the_whole_page_to_the_form(browse: Browse) -> None:
    async with browse(None) as client:
        answer = await client.get("/desktops", headers={"HX-Request": "true"})
    assert answer.status_code == 401
    assert answer.headers["hx-redirect"].startswith("/sign-in?")


async def test_without_password_sign_in_the_page_says_so(app: App) -> None:
    from dataclasses import replace

    async with browser(replace(app, sign_in=None), None) as client:
        page = await client.get("/sign-in")
    assert "no sign-in with a password" in text(page)
    assert 'name="password"' not in page.text


async def test_the_language_comes_from_cookie_then_person_then_browser(browse: Browse) -> None:
    async with browse(None, Accept_Language="zh-CN") as client:
        assert "欢迎" in (await client.get("/sign-in")).text
        answer = await client.post("/language", data={"language": "en", "next": "/sign-in"})
        assert answer.headers["location"] == "/sign-in"
        assert "Welcome" in (await client.get("/sign-in")).text
    async with browse("ada") as client:  # Ada's own language is Chinese, the browser's English
        page = await client.get("/desktops")
        assert '<html lang="zh-CN"' in page.text
        assert page.headers["content-language"] == "zh-CN"
    async with browse("bob", Accept_Language="zh") as client:
        assert '<html lang="en"' in (await client.get("/desktops")).text


async def test_the_theme_is_remembered_and_nothing_else_is_taken(browse: Browse) -> None:
    async with browse(None) as client:
        await client.post("/theme", data={"theme": "dark"})
        assert 'data-theme="dark"' in (await client.get("/sign-in")).text
        assert (await client.post("/theme", data={"theme": '"><script>'})).status_code == 400
        client.cookies.clear()
        client.cookies.set("beamdesk_theme", "x")
        assert "data-theme=" not in (await client.get("/sign-in")).text


async def test_another_name_of_this_machine_leads_to_the_portals_own(browse: Browse) -> None:
    async with browse(None) as client:
        answer = await client.get("http://127.0.0.1:8080/desktops?x=1")
        assert answer.status_code == 307
        assert answer.headers["location"] == "http://localhost:8080/desktops?x=1"
        assert (await client.get("http://evil.example/sign-in")).status_code == 200  # no redirect by a foreign Host
