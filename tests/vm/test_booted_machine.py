"""From sign-in to the painted desktop of a machine that Nova made, what is inside it, and its end. Slow where there is only emulation."""

import io
import json
import os
import re
import time

import httpx2
import pytest
from PIL import Image
from playwright.sync_api import TimeoutError as NotSeen
from playwright.sync_api import expect

from acceptance.people import apply_for_desktop, sign_in, until
from beamdesk.adapters.demo.people import BOB, IMAGING
from vm.conftest import told
from vm.machine import READY_S, STEP_S

pytestmark = [pytest.mark.browser, pytest.mark.root, pytest.mark.vm]

FOLDER = f"/data/{IMAGING.folder}"
NONCE_AT = "/run/beamdesk/agent/nonce"
GIDS = f"{BOB.uid},{IMAGING.gid}"


def come_up(site, bob, desktop_id, times, what):
    """Follow a desktop until it is ready; note when each part of the way was over."""
    began = time.monotonic()
    seen = set()

    def ready():
        now = bob.get(f"/desktops/{desktop_id}").json()
        reached = {step["name"] for step in now["steps"] if step["state"] == "done"} & {"server", "enrol"}
        if now["phase"] == "ready":
            reached.add("ready")
        for name in sorted(reached - seen):
            seen.add(name)
            times[f"{what}: {PARTS[name]}"] = told(began)
        return now if now["phase"] in ("ready", "failed") else None

    now = until("the desktop", ready, seconds=READY_S, pause=1)
    if now["phase"] == "failed":
        console = site.cloud.console(desktop_id)[-6000:]
        raise AssertionError(f"the desktop was never ready: {now}\n{console}\n{site.logs()}\n{site.cloud.logs()}")


PARTS = {"server": "until Nova says ACTIVE", "enrol": "until enrolled", "ready": "until ready"}


def show(page, site, desktop_id, times, what):
    """Press Connect and wait for the painted desktop; return its tab."""
    page.goto(f"{site.origin}/desktops/{desktop_id}")
    button = page.get_by_role("button", name=re.compile("^Connect")).first
    expect(button).to_be_visible(timeout=STEP_S * 1000)
    pressed = time.monotonic()
    with page.context.expect_page() as opened:
        button.click()
    tab = opened.value
    try:
        tab.wait_for_selector("html[data-state=open]", timeout=STEP_S * 1000)
    except NotSeen as error:
        console = site.cloud.console(desktop_id)[-6000:]
        raise AssertionError(f"no picture came\n{tab.inner_text('body')}\n{console}\n{site.logs()}") from error
    times[f"{what}: from Connect to the first picture"] = told(pressed)
    until("a painted desktop", lambda: colours(tab) > 30, seconds=STEP_S, pause=2)
    times[f"{what}: from Connect to the painted desktop"] = told(pressed)
    return tab


@pytest.fixture(scope="module")
def desktop(site, chromium, times):
    """A desktop that its owner has open in the browser: its id and its tab."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
    page = sign_in(context, site, "bob")
    desktop_id = apply_for_desktop(page, site, size="medium")
    with site.api("bob") as bob:
        come_up(site, bob, desktop_id, times, "first start")
    tab = show(page, site, desktop_id, times, "first start")
    yield desktop_id, tab
    context.close()


def colours(tab) -> int:
    """Count the colours on the screen, coarsely: a blank or half drawn one has few."""
    picture = Image.open(io.BytesIO(tab.screenshot(timeout=120_000))).convert("RGB").resize((320, 200))
    return len({tuple(part >> 4 for part in pixel) for pixel in picture.get_flattened_data()})


def shot(tab, name):
    """Keep a picture for looking at, if somebody wants to."""
    if folder := os.environ.get("BEAMDESK_TEST_SHOTS"):
        tab.screenshot(path=f"{folder}/{name}.png", timeout=STEP_S * 1000)


def test_the_desktop_in_the_machine_is_painted_in_the_browser(desktop):
    _, tab = desktop
    assert colours(tab) > 30
    shot(tab, "vm-desktop")


def test_the_person_and_the_team_are_known_inside(site, desktop):
    code, said = site.inside(desktop[0]).run("id bob; getent passwd bob")
    assert code == 0
    assert f"uid={BOB.uid}(bob) gid={BOB.uid}(bob)" in said
    assert f"{IMAGING.gid}(exp-{IMAGING.id})" in said
    assert said.splitlines()[1].endswith(":/home/bob:/bin/bash")


def test_the_experiments_data_are_mounted_by_nfs_4(site, desktop):
    _, mounts = site.inside(desktop[0]).run(
        f"grep ' {FOLDER}/' /proc/mounts; systemctl list-units --type=mount --no-legend 'data-*'"
    )
    lines = {line.split()[1]: line.split() for line in mounts.splitlines() if ":" in line.split()[0]}
    assert {target: (fields[2], fields[3].split(",")[0]) for target, fields in lines.items()} == {
        f"{FOLDER}/raw": ("nfs4", "ro"),
        f"{FOLDER}/processed": ("nfs4", "rw"),
    }
    assert all({"nosuid", "nodev", "hard"} <= set(fields[3].split(",")) for fields in lines.values())
    assert mounts.count("loaded active mounted") == 2


def test_the_person_reads_raw_data_and_cannot_change_them(site, desktop):
    inside = site.inside(desktop[0])
    assert inside.run(f"cat {FOLDER}/raw/about.txt", uid=BOB.uid, gids=GIDS) == (0, f"raw of {IMAGING.folder}\n")
    code, said = inside.run(f"touch {FOLDER}/raw/mine", uid=BOB.uid, gids=GIDS)
    assert code != 0
    assert "Read-only file system" in said


def test_what_is_typed_in_the_browser_ends_up_on_the_sites_storage(site, desktop, times):
    desktop_id, tab = desktop
    inside = site.inside(desktop_id)
    written = site.data / IMAGING.folder / "processed/typed.txt"
    environment = "DISPLAY=:0 XAUTHORITY=/run/user/20102/Xauthority HOME=/home/bob XDG_RUNTIME_DIR=/run/user/20102"
    inside.run(f"cd; env {environment} setsid xfce4-terminal --maximize >/dev/null 2>&1 &", uid=BOB.uid, gids=GIDS)
    # Keys go to the window that is active, which is long after it is on the screen where there is only emulation.
    active = "xprop -id $(xprop -root -notype _NET_ACTIVE_WINDOW | sed 's/.*# *//; s/,.*//') WM_CLASS | grep -i terminal"
    active = f"export {environment}; {active}"
    until("a terminal window", lambda: inside.run(active, uid=BOB.uid)[0] == 0, seconds=STEP_S, pause=3)
    until("its shell", lambda: inside.run("pgrep -u bob -x bash")[0] == 0, seconds=STEP_S, pause=3)
    tab.mouse.click(640, 400)
    began = time.monotonic()
    tab.keyboard.type(f"id > {FOLDER}/processed/typed.txt\n", delay=60)
    try:
        until("the file on the NFS server", lambda: written.exists() and written.read_text(), seconds=STEP_S, pause=1)
    finally:
        shot(tab, "vm-typed")
    times["from the first key to the file on the NFS server"] = told(began)
    assert f"uid={BOB.uid}(bob)" in written.read_text()
    assert (written.stat().st_uid, written.stat().st_gid) == (BOB.uid, IMAGING.gid)


def test_the_identity_is_for_root_only_and_the_nonce_is_spent(site, desktop):
    inside = site.inside(desktop[0])
    assert inside.run(f"test ! -e {NONCE_AT} && stat -c %a /var/lib/beamdesk-guest/identity.json") == (0, "600\n")
    code, said = inside.run("cat /var/lib/beamdesk-guest/identity.json", uid=BOB.uid)
    assert code != 0
    assert "Permission denied" in said
    written = json.loads(inside.run("tail -n +2 /var/lib/cloud/instance/user-data.txt")[1])["write_files"]
    nonce = next(file["content"] for file in written if file["path"] == NONCE_AT)
    assert site.enrol(nonce) == 403


def test_only_the_stream_listens_on_the_network(site, desktop):
    _, said = site.inside(desktop[0]).run("ss -Hltn | awk '{print $4}'")
    outside = {line for line in said.split() if not line.startswith(("127.", "[::1]"))}
    assert outside == {"0.0.0.0:8082"}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/screenshot"), ("GET", "/api/sessions"), ("POST", "/api/tokens"), ("POST", "/api/switch")]
)
def test_without_the_secret_the_stream_says_and_takes_nothing(site, desktop, method, path):
    url = f"{site.stream(desktop[0])}{path}"
    answer = httpx2.request(
        method, url, headers={"Authorization": "Bearer guess"}, json={} if method == "POST" else None, timeout=120
    )
    assert answer.status_code == 401


def test_without_a_token_there_is_no_stream(site, desktop):
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
    }
    answer = httpx2.get(f"{site.stream(desktop[0])}/api/websockets", headers=upgrade, timeout=120)
    assert answer.status_code == 401


def test_operators_read_the_machines_console_and_nobody_else(site, desktop):
    with site.api("olga") as operator:
        answer = operator.get(f"/desktops/{desktop[0]}/console")
    assert answer.status_code == 200
    assert "beamdesk-guest" in answer.json()["text"]
    with site.api("bob") as owner:
        assert owner.get(f"/desktops/{desktop[0]}/console").status_code == 403


def test_stopping_and_starting_again_keeps_the_home_and_enrols_by_metadata(site, chromium, desktop, times):
    desktop_id, tab = desktop
    kept = site.inside(desktop_id).run("echo mine > /home/bob/kept && cat /var/lib/beamdesk-guest/identity.json", uid=0)[1]
    server = site.cloud.server(desktop_id).id
    with site.api("bob") as bob:
        began = time.monotonic()
        bob.post(f"/desktops/{desktop_id}/actions/stop").raise_for_status()
        until("stopped", lambda: bob.get(f"/desktops/{desktop_id}").json()["phase"] == "stopped", seconds=STEP_S, pause=1)
        times["from Stop to stopped"] = told(began)
        assert site.cloud.server(desktop_id).status == "SHUTOFF"
        bob.post(f"/desktops/{desktop_id}/actions/start").raise_for_status()
        come_up(site, bob, desktop_id, times, "second start")
    inside = site.inside(desktop_id)
    assert site.cloud.server(desktop_id).id == server
    assert inside.run("cat /home/bob/kept")[1] == "mine\n"
    assert inside.run("cat /var/lib/beamdesk-guest/identity.json")[1] != kept
    tab.close()
    show(tab.context.pages[0], site, desktop_id, times, "second start")


def test_deleting_leaves_no_server_port_volume_or_domain(site, desktop, times):
    desktop_id, _ = desktop
    server = site.cloud.server(desktop_id).id
    assert any(desktop_id in name for name in site.cloud.left()["ports"])
    began = time.monotonic()
    with site.api("bob") as bob:
        bob.delete(f"/desktops/{desktop_id}").raise_for_status()
        until("deleted", lambda: bob.get(f"/desktops/{desktop_id}").status_code == 404, seconds=STEP_S, pause=1)
    times["from Delete to deleted"] = told(began)
    assert server not in site.cloud.domains()
    assert site.cloud.left() == {"servers": [], "ports": [], "volumes": []}
