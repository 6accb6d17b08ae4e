"""The main job, whole: sign in, apply, watch, connect, reconstruct the scan through the stream, fetch the result; and nobody else can."""

import hashlib
import re

import httpx2
import pytest

from acceptance import inside
from acceptance.people import apply_for_desktop, connect, sign_in, until

pytestmark = [pytest.mark.desktop, pytest.mark.browser, pytest.mark.root]

EXPERIMENT, OTHER = "heps-2026-0147", "heps-2026-0212"
BOB, CHEN = 20102, 20103
COMMAND = f"beamdesk-reconstruct /data/{EXPERIMENT}/raw/scan_0001_sandstone.nxs --slices centre"


def _open_terminal(tab):
    """Start the terminal by its launcher in the desktop's panel and type, all through the stream."""
    tab.mouse.move(373, 879)
    tab.mouse.click(373, 879)


@pytest.fixture(scope="module")
def desktops():
    """Ids of the desktops that the tests of this module share."""
    return {}


def test_a_scientist_gets_from_sign_in_to_a_reconstructed_slice(deployment, context_of, desktops, tmp_path):
    context = context_of()
    page = sign_in(context, deployment, "bob")
    desktop_id = apply_for_desktop(page, deployment)
    desktops["bob"] = desktop_id
    tab = connect(page)
    _open_terminal(tab)
    until("a terminal window", lambda: "xfce4-terminal" in inside.run(desktop_id, "ps -eo comm").stdout)
    tab.wait_for_timeout(2500)
    tab.keyboard.type(f"{COMMAND}\n", delay=15)

    processed = deployment.data / EXPERIMENT / "processed"
    slices = until("a reconstructed slice", lambda: _finished(processed), seconds=120)
    page.goto(f"{deployment.origin}/data/{EXPERIMENT}")
    for name in slices[0].relative_to(deployment.data / EXPERIMENT).parts:
        page.get_by_role("link", name=name, exact=True).click()
    picture = page.locator("main img").first
    picture.wait_for()
    until("its picture", lambda: picture.evaluate("image => image.complete && image.naturalWidth > 100"))
    with page.expect_download() as fetched:
        page.get_by_role("link", name=re.compile("Download")).first.click()
    fetched.value.save_as(tmp_path / "slice.tif")
    assert _digest(tmp_path / "slice.tif") == _digest(slices[0])
    assert slices[0].stat().st_uid == BOB


def _finished(processed):
    """Slices in their place: the command writes below a hidden folder and renames it when all is there."""
    found = sorted(processed.rglob("*.tif*"))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(processed).parts)]


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def chen(deployment):
    """Chen, of another experiment, with a token of the API."""
    with deployment.api("chen") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/actions/stop"),
        ("POST", "/actions/start"),
        ("POST", "/actions/extend"),
        ("POST", "/connections"),
        ("GET", "/thumbnail"),
        ("GET", "/events"),
    ],
)
def test_somebody_of_another_experiment_cannot_know_of_the_desktop(chen, desktops, method, path):
    assert chen.request(method, f"/desktops/{desktops['bob']}{path}").status_code == 404


def test_a_list_shows_nothing_of_other_experiments(chen, desktops):
    assert desktops["bob"] not in chen.get("/desktops").text
    assert EXPERIMENT not in chen.get("/experiments").text


@pytest.mark.parametrize(
    "what", ["data?path=raw", "file?path=raw/scan_0001_sandstone.nxs", "preview?path=raw/scan_0001_sandstone.nxs"]
)
def test_data_of_other_experiments_stay_closed(chen, what):
    assert chen.get(f"/experiments/{EXPERIMENT}/{what}").status_code == 404


def test_no_path_leads_from_own_data_to_others(chen):
    assert chen.get(f"/experiments/{OTHER}/data?path=raw").status_code == 200
    for path in (f"../{EXPERIMENT}/raw", f"raw/../../{EXPERIMENT}/raw", f"/var/lib/beamdesk/data/{EXPERIMENT}", "/etc"):
        for what in ("data", "file", "preview"):
            assert chen.get(f"/experiments/{OTHER}/{what}", params={"path": path}).status_code in (400, 403, 404, 422)


def test_the_gateway_lets_nobody_in_without_a_ticket(deployment, desktops):
    host = f"d-{desktops['bob']}.localhost:{deployment.gateway_port}"
    address = f"http://127.0.0.1:{deployment.gateway_port}"
    upgrade = {
        "Host": host,
        "Origin": f"http://{host}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert httpx2.get(f"{address}/api/websockets", headers=upgrade).status_code in (401, 403)
    forged = {"Host": host, "Origin": deployment.origin, "Content-Type": "application/x-www-form-urlencoded"}
    assert httpx2.post(f"{address}/open", headers=forged, content="ticket=" + "A" * 43).status_code == 403


def test_from_inside_another_desktop_nothing_of_it_can_be_seen(deployment, context_of, desktops):
    page = sign_in(context_of(), deployment, "chen")
    desktops["chen"] = apply_for_desktop(page, deployment, size="small")
    connect(page)
    for uid, gids in ((CHEN, (30212,)), (0, ())):
        seen = inside.run(
            desktops["chen"], "ls /data; ps -e -o args; ls -R /run/beamdesk; cat /proc/mounts", uid=uid, gids=gids
        ).stdout
        assert OTHER in seen
        assert EXPERIMENT not in seen
        assert desktops["bob"] not in seen
        assert "store.db" not in seen
        assert "helper.sock" not in seen
    assert inside.run(desktops["chen"], f"touch /data/{OTHER}/raw/mine").returncode != 0
    assert inside.run(desktops["chen"], f"touch /data/{OTHER}/processed/mine", uid=CHEN, gids=(30212,)).returncode == 0
    assert inside.run(desktops["chen"], "ip -o addr | grep -v ' lo '").stdout == ""
