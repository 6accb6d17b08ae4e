"""The meters of CPU and GPU: what a reader sees of a desktop's use, and that what is not known looks like nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from apikit import a_desktop, clock_of, make_ready, put_guest
from beamdesk.app import guests
from beamdesk.app.context import App
from beamdesk.app.views import DesktopView
from beamdesk.domain.desktop import Desired, Phase
from beamdesk.domain.guest import Guest
from beamdesk.domain.lease import LeaseRules
from beamdesk.domain.use import use_of
from beamdesk.portal.i18n import words_for
from beamdesk.portal.say import Say
from beamdesk.portal.use import UseShown, shown_use
from beamdesk.protocol.guest import NO_CARD_WORKS, Activity, Report, Step, StepName, StepState
from engine_kit import ADA, EXPERIMENT, T0, make_desktop

from .conftest import Browse
from .pages import text

HTMX = {"HX-Request": "true"}
STEPS = tuple(Step(name, StepState.DONE) for name in StepName)


def shown(cpu: float = 0.0, gpu: float | None = 0.0, gpus: int = 1, language: str = "en", *, silent: bool = False) -> UseShown:
    desktop = make_desktop(phase=Phase.READY)
    desktop = replace(desktop, resources=replace(desktop.resources, gpus=gpus))
    guest = Guest(desktop.id, None, T0, None, "", seen_at=None if silent else T0, steps=STEPS, cpu=cpu, gpu=gpu)
    use = use_of(desktop, guest, LeaseRules(), T0)
    view = DesktopView(desktop, EXPERIMENT, ADA, None, None, (), frozenset(), can_extend=False, last_active_at=T0, use=use)
    result = shown_use(view, Say(words_for(language), T0))
    assert result
    return result


def meters(use: UseShown) -> list[tuple[str, int | None, str]]:
    return [(meter.kind, meter.percent, meter.text) for meter in use.meters]


def test_a_desktop_without_a_card_has_one_meter() -> None:
    assert meters(shown(0.424, gpus=0)) == [("cpu", 42, "42 %")]


def test_an_idle_card_is_zero_and_one_that_does_not_tell_is_not() -> None:
    assert meters(shown(1.0, 0.0)) == [("cpu", 100, "100 %"), ("gpu", 0, "0 %")]
    assert meters(shown(0.0, None)) == [("cpu", 0, "0 %"), ("gpu", None, "not known")]
    assert meters(shown(0.0, NO_CARD_WORKS)) == [("cpu", 0, "0 %"), ("gpu", None, "cannot be used")]
    assert meters(shown(0.0, NO_CARD_WORKS, gpus=0)) == [("cpu", 0, "0 %")]
    assert meters(shown(0.0, None, language="zh")) == [("cpu", 0, "0%"), ("gpu", None, "未知")]


def test_of_a_silent_desktop_nothing_is_known() -> None:
    assert meters(shown(0.5, 0.5, silent=True)) == [("cpu", None, "not known"), ("gpu", None, "not known")]
    assert shown(silent=True).note == "The desktop has not told for a few seconds how much it is used."


def test_the_note_says_why_it_goes_on_or_when_it_stops() -> None:
    assert "computation" in shown(0.9).note
    assert "does not tell" in shown(0.0, None).note
    assert shown(0.0, None).stops_at is None
    assert "ask for help" in shown(0.9, NO_CARD_WORKS).note
    assert shown(0.0, NO_CARD_WORKS).stops_at is None
    idle = shown()
    assert (idle.note, idle.stops_at) == ("If nothing uses it any more, it is stopped at", T0 + LeaseRules().idle_after)


@pytest.mark.parametrize(
    ("phase", "desired"), [(Phase.BOOTING, Desired.RUNNING), (Phase.STOPPED, Desired.STOPPED), (Phase.READY, Desired.STOPPED)]
)
def test_what_does_not_run_has_no_meters(phase: Phase, desired: Desired) -> None:
    desktop = make_desktop(phase=phase, desired=desired)
    view = DesktopView(desktop, EXPERIMENT, ADA, None, None, (), frozenset(), can_extend=False, last_active_at=T0)
    assert shown_use(view, Say(words_for("en"), T0)) is None


async def a_reporting_desktop(app: App, gpu: float | None) -> str:
    desktop_id = (await a_desktop(app, "bob", name="Bones", flavor="gpu.small")).desktop.id
    await put_guest(app, desktop_id, "nonce")
    identity = await guests.enrol(app, "nonce")
    await make_ready(app, desktop_id)
    await guests.report(app, identity.token, Report(STEPS, Activity(3.0, 0.07, gpu)))
    return str(desktop_id)


@pytest.mark.anyio
async def test_the_meters_are_on_the_card_and_on_the_page(browse: Browse, app: App) -> None:
    desktop_id = await a_reporting_desktop(app, 0.93)
    async with browse("bob") as client:
        for path in ("/desktops", f"/desktops/{desktop_id}", f"/desktops/{desktop_id}/card"):
            page = text(await client.get(path))
            assert "CPU 7 %" in page
            assert "GPU 93 %" in page


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/desktops/use", "/desktops/{id}/use"])
async def test_the_part_that_is_fetched_anew_has_nothing_but_meters(browse: Browse, app: App, path: str) -> None:
    desktop_id = await a_reporting_desktop(app, None)
    async with browse("bob") as client:
        part = await client.get(path.format(id=desktop_id), headers=HTMX)
        assert re.findall(r'data-use="([^"]+)"', part.text) == [desktop_id]
        assert "<html" not in part.text
        assert "GPU not known" in text(part)
        assert 'class="share"' in part.text  # the CPU's bar; the GPU has none
        assert part.text.count('class="share"') == 1
        clock_of(app).tick(11)
        assert "CPU not known" in text(await client.get(path.format(id=desktop_id), headers=HTMX))


@pytest.mark.anyio
async def test_strangers_see_no_use(browse: Browse, app: App) -> None:
    desktop_id = await a_reporting_desktop(app, 0.5)
    async with browse("chen") as client:
        for path in ("/desktops/use", f"/desktops/{desktop_id}/use"):
            assert "data-use" not in (await client.get(path, headers=HTMX)).text
    async with browse(None) as client:
        assert (await client.get("/desktops/use", headers=HTMX)).status_code in {303, 401}
