"""The desktops' pages without a browser: forms and redirects, parts for htmx, applying."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from apikit import StaticCatalog, a_desktop, clock_of, events_of, make_ready
from beamdesk.app.context import App
from beamdesk.domain.desktop import Desired, Phase, Reason
from beamdesk.domain.ids import DesktopId
from beamdesk.portal.desktops import clean_console
from beamdesk.ports.store import Transaction

from .conftest import Browse
from .pages import csrf, field, send, text

pytestmark = pytest.mark.anyio
HTMX = {"HX-Request": "true"}


async def desired(app: App, desktop_id: DesktopId) -> Desired:
    async with app.store.begin() as tx:
        desktop = await tx.desktops.get(desktop_id)
    assert desktop is not None
    return desktop.desired


async def test_somebody_without_desktops_is_invited(browse: Browse) -> None:
    async with browse("bob") as client:
        page = await client.get("/desktops")
    assert "Your first desktop is three clicks away" in text(page)
    assert 'href="/desktops/new"' in page.text


async def test_a_desktop_is_shown_with_all_that_matters(browse: Browse, app: App) -> None:
    await a_desktop(app, "bob", name="Bones")
    async with browse("bob") as client:
        page = text(await client.get("/desktops"))
    for words in ("Bones", "In line", "HEPS-2026-0147", "Imaging beamline", "Small"):
        assert words in page


async def test_a_colleagues_desktop_names_its_owner(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "ada", name="Adas")
    await make_ready(app, view.desktop.id)
    async with browse("bob") as client:
        page = await client.get("/desktops")
    assert "Ada Lin" in text(page)
    assert "Watch" in text(page)
    assert "/ask/delete" not in page.text


@pytest.mark.parametrize(
    ("action", "then", "notice"),
    [("stop", Desired.STOPPED, "stopped"), ("delete", Desired.DELETED, "deleted"), ("start", Desired.RUNNING, "started")],
)
async def test_a_form_without_scripts_acts_and_comes_back(
    browse: Browse, app: App, action: str, then: Desired, notice: str
) -> None:
    view = await a_desktop(app, "bob")
    async with browse("bob") as client:
        answer = await send(client, f"/desktops/{view.desktop.id}/{action}")
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/desktops?notice={notice}"
        page = await client.get(answer.headers["location"])
    assert await desired(app, view.desktop.id) is then
    assert 'role="status"' in page.text


async def test_from_its_own_page_one_comes_back_there(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    async with browse("bob") as client:
        stopped = await send(client, f"/desktops/{view.desktop.id}/stop", **{"from": "detail"})
        deleted = await send(client, f"/desktops/{view.desktop.id}/delete", **{"from": "detail"})
    assert stopped.headers["location"] == f"/desktops/{view.desktop.id}?notice=stopped"
    assert deleted.headers["location"] == "/desktops?notice=deleted"


async def test_with_scripts_the_card_comes_back_and_says_what_happened(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob", name="骨 Bones")
    async with browse("bob") as client:
        answer = await client.post(f"/desktops/{view.desktop.id}/stop", data={"csrf": await csrf(client)}, headers=HTMX)
    assert answer.status_code == 200
    assert answer.text.lstrip().startswith("<li")
    assert "<html" not in answer.text
    assert "\\u9aa8" in answer.headers["hx-trigger"]


async def test_what_the_state_forbids_is_told_and_nothing_is_swapped(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    async with browse("bob") as client:
        token = await csrf(client)
        await client.post(f"/desktops/{view.desktop.id}/delete", data={"csrf": token})
        partial = await client.post(f"/desktops/{view.desktop.id}/start", data={"csrf": token}, headers=HTMX)
        whole = await client.post(f"/desktops/{view.desktop.id}/start", data={"csrf": token})
    assert partial.status_code == whole.status_code == 409
    assert partial.headers["hx-reswap"] == "none"
    assert "being deleted" in partial.headers["hx-trigger"]
    assert "This desktop is being deleted." in text(whole)


async def test_extending_moves_the_end(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    await make_ready(app, view.desktop.id)
    async with browse("bob") as client:
        assert "8 hours left" in text(await client.get("/desktops"))
        await send(client, f"/desktops/{view.desktop.id}/extend")
        assert "12 hours left" in text(await client.get("/desktops"))


async def test_renaming_keeps_what_was_typed_when_it_is_refused(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob", name="Old")
    async with browse("bob") as client:
        page = await send(client, f"/desktops/{view.desktop.id}/rename", name="x" * 61)
        assert page.status_code == 400
        assert field(page, "name") == "x" * 61
        assert "at most 60 characters" in text(page)
        assert (await send(client, f"/desktops/{view.desktop.id}/rename", name="New")).status_code == 303
        assert "New" in text(await client.get("/desktops"))


async def test_deleting_says_what_is_lost_and_what_stays(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob", name="Bones")
    async with browse("bob") as client:
        whole = await client.get(f"/desktops/{view.desktop.id}/ask/delete")
        inside = await client.get(f"/desktops/{view.desktop.id}/ask/delete", headers=HTMX)
    for page in (whole, inside):
        assert "Its home folder is deleted" in text(page)
        assert "The data of HEPS-2026-0147, raw and processed, stay untouched" in text(page)
    assert "<html" not in inside.text
    assert "hx-post" not in whole.text


async def test_the_card_of_a_desktop_that_is_gone_takes_itself_away(browse: Browse) -> None:
    async with browse("bob") as client:
        answer = await client.get("/desktops/gone/card", headers=HTMX)
    assert answer.status_code == 200
    assert answer.headers["hx-reswap"] == "delete"
    assert answer.text.strip() == ""


async def test_the_list_comes_in_pages(browse: Browse, app: App) -> None:
    for number in range(4):
        await a_desktop(app, "bob", name=f"Desktop {number}")
    from beamdesk.portal.config import PortalSettings

    settings = PortalSettings(portal_origin="http://localhost:8080", desktops_per_page=3)
    async with browse("bob", settings=settings) as client:
        first = await client.get("/desktops")
        link = re.search(r'href="(/desktops\?after=[^"]+)"', first.text)
        assert link
        second = await client.get(link[1])
    assert first.text.count("<article") == 3
    assert second.text.count("<article") == 1


async def test_the_progress_page_names_every_step(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    async with browse("bob") as client:
        page = await client.get(f"/desktops/{view.desktop.id}")
    assert page.text.count('class="step ') == 8
    assert page.text.count('aria-current="step"') == 1


async def test_a_ready_desktop_offers_to_connect(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    await make_ready(app, view.desktop.id)
    async with browse("bob") as client:
        page = await client.get(f"/desktops/{view.desktop.id}")
    assert re.search(r'action="/desktops/\w+/connect" target="_blank"', page.text)
    assert "Your desktop is waiting for you." in text(page)


async def test_connecting_too_early_is_told(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    async with browse("bob") as client:
        page = await send(client, f"/desktops/{view.desktop.id}/connect")
    assert page.status_code == 409
    assert "This desktop is not running" in text(page)


async def put_picture(tx: Transaction, desktop_id: DesktopId, app: App, kind: str, image: bytes) -> None:
    await tx.guests.put_thumbnail(desktop_id, kind, image, app.clock.now())


async def test_the_screen_is_for_those_who_may_connect(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    await make_ready(app, view.desktop.id)
    path = f"/desktops/{view.desktop.id}/thumbnail"
    async with browse("bob") as client:
        assert (await client.get(path)).status_code == 404
        async with app.store.begin(write=True) as tx:
            await put_picture(tx, view.desktop.id, app, "image/png", b"\x89PNG picture")
        found = await client.get(path)
        again = await client.get(path, headers={"If-None-Match": found.headers["etag"]})
    assert found.headers["content-type"] == "image/png"
    assert "sandbox" in found.headers["content-security-policy"]
    assert found.headers["x-content-type-options"] == "nosniff"
    assert again.status_code == 304
    async with browse("olga") as client:
        assert (await client.get(path)).status_code == 403
    async with browse("chen") as client:
        assert (await client.get(path)).status_code == 404


async def test_a_hostile_picture_is_no_document(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    await make_ready(app, view.desktop.id)
    async with app.store.begin(write=True) as tx:
        await put_picture(tx, view.desktop.id, app, "text/html", b"<script>alert(1)</script>")
    async with browse("bob") as client:
        found = await client.get(f"/desktops/{view.desktop.id}/thumbnail")
    assert found.headers["content-type"] == "application/octet-stream"


async def test_applying_as_suggested_takes_no_choice_at_all(browse: Browse, app: App) -> None:
    async with browse("bob") as client:
        page = await client.get("/desktops/new")
        chosen = {
            kind: re.search(rf'name="{kind}" value="([^"]+)" checked', page.text) for kind in ("experiment", "image", "flavor")
        }
        values = {kind: found[1] for kind, found in chosen.items() if found}
        assert values == {"experiment": "heps-2026-0147", "image": "imaging", "flavor": "medium"}
        answer = await send(client, "/desktops", key=field(page, "key"), name="", **values)
    assert answer.status_code == 303
    assert re.fullmatch(r"/desktops/[a-z0-9]{16}", answer.headers["location"])


async def test_sending_the_form_twice_makes_one_desktop(browse: Browse, app: App) -> None:
    form = {"experiment": "heps-2026-0147", "image": "imaging", "flavor": "small", "name": "", "key": "form-1"}
    async with browse("bob") as client:
        answers = [await send(client, "/desktops", **form) for _ in range(2)]
    assert answers[0].headers["location"] == answers[1].headers["location"]
    assert len(await events_of(app, "desktop.created")) == 1


@pytest.mark.parametrize(
    ("change", "field_name", "words"),
    [
        ({"image": "windows-95"}, "image", "There is no image of this name"),
        ({"flavor": "endless"}, "flavor", "There is no size of this name"),
        ({"flavor": "huge"}, "flavor", "too little"),
        ({"experiment": "heps-2026-0212"}, "experiment", "You are not in the team of this experiment"),
        ({"name": "x" * 61}, "name", "at most 60 characters"),
        ({"name": "a\u202eb"}, "name", "invisible characters"),
    ],
)
async def test_an_error_stands_beside_its_field_and_keeps_the_rest(
    browse: Browse, change: dict[str, str], field_name: str, words: str
) -> None:
    form = {"experiment": "heps-2026-0147", "image": "general", "flavor": "small", "name": "Keep me", "key": "form-2"} | change
    async with browse("bob") as client:
        page = await send(client, "/desktops", **form)
    assert page.status_code in {400, 403, 409}
    assert words in text(page)
    assert f'id="{field_name}-error"' in page.text
    assert field(page, "name") == form["name"]
    if field_name != "image":
        assert 'value="general" checked' in page.text


async def test_over_the_quota_sizes_are_closed_with_the_reason(browse: Browse, app: App) -> None:
    for _ in range(4):
        await a_desktop(app, "bob")
    async with browse("bob") as client:
        page = await client.get("/desktops/new")
    assert "No size is within reach now" in text(page)
    assert "Your limit is reached: the number of desktops" in text(page)
    assert re.search(r'<button class="button primary big" disabled>', page.text)


async def test_somebody_without_experiment_is_told_what_to_do(browse: Browse) -> None:
    async with browse("olga") as client:
        page = await client.get("/desktops/new")
    assert "You are not in the team of an experiment yet" in text(page)
    assert "change what you like" not in text(page), "there is nothing to change"


async def test_before_images_are_built_the_page_says_so(browse: Browse, app: App) -> None:
    assert isinstance(app.catalog, StaticCatalog)
    app.catalog.all_images = ()
    async with browse("bob") as client:
        page = await client.get("/desktops/new")
    assert "No image is ready yet" in text(page)


async def test_a_desktop_whose_image_left_the_catalogue_is_still_shown(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob", name="Bones")
    assert isinstance(app.catalog, StaticCatalog)
    app.catalog.all_images, app.catalog.all_flavors = (), ()
    async with browse("bob") as client:
        assert "Bones" in text(await client.get("/desktops"))
        assert (await client.get(f"/desktops/{view.desktop.id}")).status_code == 200


async def test_activity_tells_in_both_languages_what_happened(browse: Browse, app: App) -> None:
    await a_desktop(app, "bob", name="Bones")
    async with browse("bob") as client:
        english = text(await client.get("/activity"))
        client.cookies.set("beamdesk_language", "zh")
        chinese = text(await client.get("/activity"))
    assert "You applied for Bones" in english
    assert "You signed in" in english
    assert "您申请了 Bones" in chinese


async def test_activity_shows_refusals(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "ada", name="Adas")
    async with browse("bob") as client:
        await send(client, f"/desktops/{view.desktop.id}/stop")
        page = text(await client.get("/activity"))
    assert "You may not stop Adas" in page


async def test_activity_can_be_narrowed_to_a_desktop_and_paged(browse: Browse, app: App) -> None:
    one = await a_desktop(app, "bob", name="First")
    await a_desktop(app, "bob", name="Second")
    async with browse("bob") as client:
        page = text(await client.get(f"/activity?desktop={one.desktop.id}"))
        assert "You applied for First" in page
        assert "You applied for Second" not in page
        for _ in range(70):
            await send(client, f"/desktops/{one.desktop.id}/rename", name="Renamed")
            clock_of(app).tick(60)
        first = await client.get("/activity")
        older = re.search(r'href="(/activity\?before=\d+)"', first.text)
        assert older
        assert "You applied for Second" in text(await client.get(older[1]))
        assert (await client.get("/activity?before=nonsense")).status_code == 200


async def test_times_are_told_in_the_readers_zone(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    async with browse("bob") as client:
        assert "09:00 UTC" in text(await client.get(f"/desktops/{view.desktop.id}"))
        client.cookies.set("beamdesk_zone", "Asia/Shanghai")
        assert "2026-03-01 17:00" in text(await client.get(f"/desktops/{view.desktop.id}"))
        for nonsense in ("../../etc/passwd", "%00", "x" * 100, "Mars/Olympus"):
            client.cookies.delete("beamdesk_zone")
            client.cookies.set("beamdesk_zone", nonsense)
            assert (await client.get(f"/desktops/{view.desktop.id}")).status_code == 200


async def test_operators_are_led_to_the_servers_console(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "ada", name="Adas")
    await make_ready(app, view.desktop.id)
    path = f"/desktops/{view.desktop.id}"
    async with browse("olga") as client:
        assert f'href="{path}/console"' in (await client.get(path)).text
        page = await client.get(f"{path}/console")
    assert f"console of server-{view.desktop.id}" in text(page)
    async with browse("ada") as client:
        assert "/console" not in (await client.get(path)).text
        assert (await client.get(f"{path}/console")).status_code == 403


async def test_operators_open_the_screen_of_a_server_that_does_not_come_up(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "ada", name="Adas")
    await make_ready(app, view.desktop.id, Phase.BOOTING)
    path = f"/desktops/{view.desktop.id}"
    async with browse("olga") as client:
        before = await client.get(f"{path}/console")
        assert f'action="{path}/screen"' in before.text
        assert "token=" not in before.text
        page = await send(client, f"{path}/screen")
        assert f'href="https://cloud.example.org/vnc?token=secret-of-server-{view.desktop.id}"' in page.text
        assert 'rel="noopener noreferrer"' in page.text
        assert page.headers["cache-control"] == "no-store"
        assert "opened the screen of Adas" in text(await client.get("/activity"))
        await make_ready(app, view.desktop.id)
        ready = await send(client, f"{path}/screen")
        assert (ready.status_code, "Somebody may be at work" in text(ready)) == (409, True)
        assert f'action="{path}/screen"' not in ready.text
    async with browse("ada") as client:
        assert (await send(client, f"{path}/screen")).status_code == 403


def test_a_console_shows_no_terminal_sequences_or_invisible_characters() -> None:
    wild = "\x1b[1;31mred\x1b[0m\x1b]0;title\x07 a\u202eb\x08\r\nnext\tline\x00\x1bc"
    assert clean_console(wild) == "red ab\nnext\tline"


async def test_a_ready_desktop_that_fell_silent_says_so_on_its_page(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob", name="Bones")
    await make_ready(app, view.desktop.id)
    said = "The desktop's agent was last heard of at 12:00:00 UTC."
    async with app.store.begin(write=True) as tx:
        (claimed,) = await tx.desktops.claim(token="t", now=app.clock.now() + timedelta(days=1), until=app.clock.now(), limit=1)
        assert await tx.desktops.tell(claimed, Reason.GUEST_SILENT, said)
    async with browse("bob") as client:
        page = text(await client.get(f"/desktops/{view.desktop.id}"))
    assert "The desktop stopped answering." in page
    assert said in page
