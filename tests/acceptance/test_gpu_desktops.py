"""Desktops with a graphics card, whole: the size on offer, the scheduler's claim, the card in the desktop, its use on the page, the line.

The machine, the containers, the agent and its way of asking are the real ones. The cards are device files with nobody behind them, and
NVIDIA's library in the desktop is ours, so this shows everything but a card that computes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

import standin_driver
from acceptance import inside
from acceptance.deployment import Deployment
from acceptance.people import apply_for_desktop, sign_in, until
from standin_cards import TWO_CARDS

pytestmark = [pytest.mark.desktop, pytest.mark.browser, pytest.mark.root]

EXPERIMENT, BOB = "heps-2026-0147", 20102
SIZES = [
    {"id": "plain", "title_en": "Plain", "title_zh": "普通", "vcpus": 1, "memory_mib": 1024, "disk_gib": 10},
    {"id": "gpu", "title_en": "With a GPU", "title_zh": "带 GPU", "vcpus": 1, "memory_mib": 1024, "disk_gib": 10, "gpus": 1},
]
QUOTA = {"desktops": 4, "vcpus": 8, "memory_mib": 16384, "disk_gib": 200, "gpus": 2}
WANTED = {"experiment": EXPERIMENT, "image": "general", "flavor": "gpu"}
OPEN = "import os; os.open('/dev/nvidia{}', os.O_RDWR); os.open('/dev/nvidiactl', os.O_WRONLY); print('opened')"


@pytest.fixture(scope="module")
def site() -> Iterator[Deployment]:
    """A deployment of its own on a machine with two cards."""
    one = Deployment.make(prefix=TWO_CARDS, flavors=json.dumps(SIZES), person_quota=json.dumps(QUOTA))
    try:
        for folder in ("raw", "processed"):
            (one.data / EXPERIMENT / folder).mkdir(parents=True)
        one.start()
        yield one
    finally:
        one.remove()


def ready(client, desktop_id, seconds=60.0):
    return until("ready", lambda: (d := client.get(f"/desktops/{desktop_id}").json())["phase"] == "ready" and d, seconds)


def holders(site: Deployment) -> dict[str, tuple[str, str | None]]:
    """Return each card's state and the desktop that has it, as operators are told."""
    with site.api("olga") as client:
        (host,) = client.get("/scheduling/hosts").json()["items"]
    return {one["address"]: (one["state"], one["holder"] and one["holder"]["desktop"]) for one in host["cards"]}


def cards_in(desktop_id: str) -> list[str]:
    return inside.run(desktop_id, "ls /dev | grep nvidia").stdout.split()


def install_library(desktop_id: str, percent: int) -> None:
    """Put a library of a driver, with the desktop's card so busy, where the agent's probe finds it; take an earlier one away whole."""
    (name,) = (name for name in cards_in(desktop_id) if name != "nvidiactl")
    library = standin_driver.nvml(percent, minor=int(name.removeprefix("nvidia")))
    place = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
    octal = "".join(f"\\{byte:03o}" for byte in library)
    done = inside.run(
        desktop_id, f"printf '{octal}' > {place}.new && mv {place}.new {place} && pkill -f [g]pu_probe; test -s {place}"
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def first(site: Deployment, chromium) -> Iterator[tuple[str, object]]:
    """Bob's desktop with a GPU, applied for on the page, and the page."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, locale="en-US")
    page = sign_in(context, site, "bob")
    desktop_id = apply_for_desktop(page, site, size="gpu")
    expect(page.locator(".status .pill")).to_have_text("Ready", timeout=60_000)
    yield desktop_id, page
    context.close()


def test_the_card_that_the_scheduler_gave_is_the_one_in_the_desktop(site: Deployment, first) -> None:
    desktop_id, _page = first
    (card,) = (address for address, (state, desktop) in holders(site).items() if (state, desktop) == ("used", desktop_id))
    assert cards_in(desktop_id) == [card, "nvidiactl"]
    opened = inside.run(desktop_id, f'python3 -c "{OPEN.format(card.removeprefix("nvidia"))}"', uid=BOB)
    assert opened.stdout == "opened\n", opened.stderr
    with site.api("olga") as client:
        why = client.get(f"/desktops/{desktop_id}/explanation").json()
    assert (why["outcome"], why["cards"]) == ("placed", [card])


def test_how_much_the_card_is_used_is_on_the_page_and_in_the_api(site: Deployment, first) -> None:
    desktop_id, page = first
    expect(page.locator(".status .meters")).to_have_text(re.compile(r"GPU\s*cannot be used"), timeout=60_000)
    install_library(desktop_id, 73)
    expect(page.locator(".status .meters")).to_have_text(re.compile(r"GPU\s*73 %"), timeout=60_000)
    with site.api("bob") as client:
        use = client.get(f"/desktops/{desktop_id}").json()["use"]
        assert (use["gpu"], use["gpu_state"], use["works"][-1:]) == (0.73, "known", ["gpu"])
    install_library(desktop_id, 5)
    expect(page.locator(".status .meters")).to_have_text(re.compile(r"GPU\s*5 %"), timeout=60_000)
    page.goto(f"{site.origin}/desktops")
    expect(page.locator(f"#desktop-{desktop_id} .meters")).to_have_text(re.compile(r"GPU\s*5 %"))


def test_a_desktop_without_a_card_has_none_and_says_so(site: Deployment) -> None:
    with site.api("ada") as client:
        desktop_id = client.post("/desktops", json={**WANTED, "flavor": "plain"}).json()["id"]
        ready(client, desktop_id)
        assert cards_in(desktop_id) == []
        use = until("use", lambda: client.get(f"/desktops/{desktop_id}").json()["use"])
        assert (use["gpu"], use["gpu_state"]) == (None, "none")
        client.delete(f"/desktops/{desktop_id}")


def test_who_comes_when_all_cards_are_taken_waits_and_gets_the_one_that_is_given_back(site: Deployment, first) -> None:
    desktop_id, _page = first
    with site.api("ada") as ada, site.api("bob") as bob:
        second = ada.post("/desktops", json=WANTED).json()["id"]
        ready(ada, second)
        assert set(cards_in(second)) & set(cards_in(desktop_id)) == {"nvidiactl"}
        third = ada.post("/desktops", json=WANTED).json()["id"]
        queue = until("a place in the line", lambda: ada.get(f"/desktops/{third}").json()["queue"], 20)
        assert (queue["place"], queue["lacking"]) == (1, ["gpus"])
        given = cards_in(desktop_id)
        bob.post(f"/desktops/{desktop_id}/actions/stop")
        ready(ada, third)
        assert cards_in(third) == given
        for one in (second, third):
            ada.delete(f"/desktops/{one}")
        bob.delete(f"/desktops/{desktop_id}")
        until("all cards back", lambda: set(holders(site).values()) == {("free", None)}, 30)
