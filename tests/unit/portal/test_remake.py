"""The pages on which a desktop is rebuilt or given another size."""

from __future__ import annotations

import re

import pytest

from apikit import a_desktop, make_ready
from beamdesk.app.context import App
from beamdesk.domain.desktop import Desired, Phase
from beamdesk.domain.ids import DesktopId

from .conftest import Browse
from .pages import send, text

pytestmark = pytest.mark.anyio


async def stopped(app: App, name: str = "Bones") -> DesktopId:
    """Return a stopped desktop of Bob's."""
    view = await a_desktop(app, "bob", name=name)
    async with app.store.begin(write=True) as tx:
        await tx.desktops.change_intent(view.desktop.id, now=app.clock.now(), desired=Desired.STOPPED)
    await make_ready(app, view.desktop.id, Phase.STOPPED)
    return view.desktop.id


async def test_rebuilding_says_what_is_lost_and_what_stays_and_starts_it(browse: Browse, app: App) -> None:
    desktop_id = await stopped(app)
    async with browse("bob") as client:
        assert f"/desktops/{desktop_id}/ask/rebuild" in (await client.get("/desktops")).text
        asked = text(await client.get(f"/desktops/{desktop_id}/ask/rebuild"))
        assert "What was installed or changed outside the home folder is gone" in asked
        assert "Your home folder and the data of HEPS-2026-0147 stay" in asked
        answer = await send(client, f"/desktops/{desktop_id}/rebuild", **{"from": "detail"})
        assert answer.headers["location"] == f"/desktops/{desktop_id}?notice=rebuilt"
        page = text(await client.get(answer.headers["location"]))
    assert "The desktop is being rebuilt." in page
    assert "had Bones rebuilt from its image" in page
    async with app.store.begin() as tx:
        desktop = await tx.desktops.get(desktop_id)
    assert desktop is not None
    assert (desktop.desired, desktop.outdated) == (Desired.RUNNING, True)


async def test_another_size_is_chosen_on_a_page_that_says_what_can_be_had(browse: Browse, app: App) -> None:
    desktop_id = await stopped(app)
    async with browse("bob") as client:
        assert f"/desktops/{desktop_id}/resize" in (await client.get("/desktops")).text
        page = await client.get(f"/desktops/{desktop_id}/resize")
        assert re.search(r'value="small" checked', page.text)
        assert re.search(r'value="huge"[^>]* disabled', page.text)
        assert "Available now" in text(page)
        answer = await send(client, f"/desktops/{desktop_id}/resize", flavor="medium")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/desktops/{desktop_id}?notice=resized")
        shown = text(await client.get(answer.headers["location"]))
    assert "The desktop has its new size when it is started next." in shown
    assert "2 CPUs" in shown
    assert "gave Bones another size" in shown


async def test_a_size_that_cannot_be_comes_back_with_the_reason(browse: Browse, app: App) -> None:
    desktop_id = await stopped(app)
    async with browse("bob") as client:
        page = await send(client, f"/desktops/{desktop_id}/resize", flavor="giant")
        assert page.status_code == 400
        assert "There is no size of this name" in text(page)
        huge = await send(client, f"/desktops/{desktop_id}/resize", flavor="huge")
        assert "Choose a smaller one" in text(huge)


async def test_what_runs_is_not_offered_another_size(browse: Browse, app: App) -> None:
    view = await a_desktop(app, "bob")
    await make_ready(app, view.desktop.id)
    async with browse("bob") as client:
        assert "/resize" not in (await client.get("/desktops")).text
        page = await send(client, f"/desktops/{view.desktop.id}/resize", flavor="medium")
    assert page.status_code == 409
    assert "Stop the desktop and wait until it is" in text(page)
