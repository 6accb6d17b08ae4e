"""A real desktop from a built image comes up, is what it says, keeps its secrets and repairs itself."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from PIL import Image

from beamdesk.guest.silence import IN_USE_S, STREAM_S
from beamdesk.protocol.guest import StepName, StepState
from integration.guest.container import EXPERIMENT, GID, TEAM, UID, FakeApi

pytestmark = [pytest.mark.root, pytest.mark.desktop]

REPAIR_S = 10.0


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


def ask(container, method, path, body=None, **headers):
    connection = UnixHTTP(container.socket)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, answer


def down_and_up(container, step, patience_s=0.0):
    """Wait until a step was lost and all are back; ``patience_s``: for how long the agent waits before it acts."""
    container.api.wait_for(lambda api: api.latest()[step].state is not StepState.DONE, patience_s + REPAIR_S)
    container.api.wait_up(REPAIR_S)


# -- coming up


def test_steps_come_in_order_and_each_is_reported(running):
    done: list[StepName] = []
    for _, report in running.api.reports:
        for step in report.steps:
            if step.state is StepState.DONE and step.name not in done:
                done.append(step.name)
    assert done[:4] == [StepName.ENROL, StepName.ACCOUNT, StepName.STORAGE, StepName.DISPLAY]
    assert set(done) == set(StepName)


def test_a_heartbeat_comes_every_two_seconds(running):
    count = len(running.api.reports)
    running.api.wait_for(lambda api: len(api.reports) >= count + 3, 8)
    times = [at for at, _ in running.api.reports[-3:]]
    assert times[-1] - times[0] < 6


def test_desktop_is_complete_on_the_screen(running):
    kinds = running.enter(
        ["sh", "-c", "for w in $(xprop -root _NET_CLIENT_LIST | sed 's/.*#//; s/,//g'); do xprop -id $w _NET_WM_WINDOW_TYPE; done"]
    ).stdout
    assert "_NET_WM_WINDOW_TYPE_DESKTOP" in kinds
    assert "_NET_WM_WINDOW_TYPE_DOCK" in kinds
    assert (
        "xfwm4"
        in running.enter(
            ["sh", "-c", "xprop -id $(xprop -root -notype _NET_SUPPORTING_WM_CHECK | sed 's/.*# //') WM_NAME _NET_WM_NAME"]
        ).stdout.lower()
    )


def test_a_picture_of_the_screen_arrives(running):
    running.api.wait_for(lambda api: api.thumbnails and len(api.thumbnails[-1][1]) > 2000, 15)
    picture = Image.open(io.BytesIO(running.api.thumbnails[-1][1]))
    assert picture.size == (320, 180)
    assert len({picture.convert("RGB").getpixel((x, 60)) for x in range(0, 320, 20)}) > 3


# -- who is who


def test_everything_but_the_agent_runs_as_the_person_without_new_privileges(running):
    leader = running.leader()
    for pid in running.pids():
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
        command = running.command(pid)
        if pid != leader and command and "stubinit" not in status["Name"] and "(sd-" not in command[0]:
            assert status["Uid"].split() == [str(UID)] * 4, command
            assert status["Gid"].split() == [str(GID)] * 4, command
            assert set(status["Groups"].split()) == {str(GID), str(TEAM)}, command
            assert status["NoNewPrivs"].strip() == "1", command
            assert int(status["CapEff"], 16) == 0, command


def test_nothing_in_the_image_can_raise_rights(running):
    assert running.enter(["find", "/", "-xdev", "-perm", "/6000", "-type", "f"], root=True).stdout == ""


def test_the_display_refuses_who_has_no_cookie(running):
    refused = running.enter(["env", "-u", "XAUTHORITY", "HOME=/tmp", "xprop", "-root"])
    assert refused.returncode != 0
    assert running.enter(["xprop", "-root"]).returncode == 0


def test_the_runtime_folder_and_cookie_are_the_persons_alone(running):
    modes = running.enter(["stat", "-c", "%a %u", f"/run/user/{UID}", f"/run/user/{UID}/Xauthority"], root=True).stdout
    assert modes.split() == ["700", str(UID), "600", str(UID)]


def test_team_files_are_writable_for_the_team_and_raw_data_for_nobody(running):
    status = Path(f"/proc/{running.find('xfce4-panel')}/status").read_text()
    assert "Umask:\t0002" in status
    made = running.enter(["sh", "-c", f"umask 002; cd /data/{EXPERIMENT}/processed && touch x && stat -c '%a %g' x"])
    assert made.stdout.split() == ["664", str(TEAM)]
    assert "Read-only" in running.enter(["sh", "-c", f"touch /data/{EXPERIMENT}/raw/x"], root=True).stderr


# -- secrets


def test_secrets_are_nowhere_to_be_read(running):
    secrets = [running.api.nonce, running.api.token, running.api.secret]
    assert not (running.folder / "agent" / "nonce").exists()
    places = {"console": running.console()}
    places |= {f"command line of {pid}": " ".join(running.command(pid)) for pid in running.pids()}
    for pid in running.pids():
        if running.command(pid)[:1] and "selkies" not in " ".join(running.command(pid)):
            places[f"environment of {running.command(pid)}"] = Path(f"/proc/{pid}/environ").read_text(errors="replace")
    for place, text in places.items():
        assert not [secret for secret in secrets if secret in text], place


def test_the_stream_accepts_its_secret_only(running):
    table = json.dumps({"session": {"role": "viewer"}})
    json_type = {"Content-Type": "application/json"}
    assert ask(running, "POST", "/api/tokens", table, **json_type)[0] == 401
    assert ask(running, "POST", "/api/tokens", table, Authorization="Bearer wrong", **json_type)[0] == 401
    assert ask(running, "POST", "/api/tokens", table, Authorization=f"Bearer {running.api.secret}", **json_type)[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/api/files/", "/api/files/..%2f..%2fetc/passwd", "/api/screenshot", "/api/recording", "/api/sessions", "/api/websockets"],
)
def test_the_stream_gives_nothing_without_a_token(running, path):
    assert ask(running, "GET", path)[0] in (400, 401, 403, 404)


def test_files_cannot_be_fetched_even_with_a_token(running):
    ask(running, "POST", "/api/tokens", json.dumps({"t": {"role": "controller"}}), Authorization=f"Bearer {running.api.secret}")
    assert ask(running, "GET", "/api/files/?token=t")[0] in (403, 404)
    assert ask(running, "POST", "/api/upload?token=t", b"x")[0] in (403, 404)


# -- use


def test_a_computation_is_use_and_a_still_screen_is_not(running):
    running.enter(["sh", "-c", "timeout 5 sh -c 'while :; do :; done' >/dev/null 2>&1 &"])
    running.api.wait_for(lambda api: api.reports[-1][1].activity.cpu > 0.2 / (os.cpu_count() or 1), 8)
    running.api.wait_for(lambda api: api.reports[-1][1].activity.cpu < 0.02, 15)


def test_idle_time_grows_and_input_ends_it(running):
    running.api.wait_for(lambda api: api.reports[-1][1].activity.input_idle_s > 4, 12)
    script = (
        "import sys; sys.path.insert(0, '/opt/selkies/lib/python3.11/site-packages')\n"
        "from selkies.Xlib import X, display\nfrom selkies.Xlib.ext import xtest\n"
        "d = display.Display(); xtest.fake_input(d, X.MotionNotify, x=400, y=400); d.sync()"
    )
    assert running.enter(["python3", "-c", script]).returncode == 0
    running.api.wait_for(lambda api: api.reports[-1][1].activity.input_idle_s < 4, 6)


def test_a_message_is_shown_on_the_desktop(running):
    running.api.messages = ["Your desktop ends in 10 minutes."]
    running.api.wait_for(lambda api: not api.messages, 5)
    end = time.monotonic() + 5
    while "_NET_WM_WINDOW_TYPE_NOTIFICATION" not in (
        seen := running.enter(
            [
                "sh",
                "-c",
                "xwininfo -root -tree | awk '/notifyd/{print $1}' | while read w; do xprop -id $w _NET_WM_WINDOW_TYPE; done",
            ]
        ).stdout
    ):
        assert time.monotonic() < end, seen
        time.sleep(0.2)


# -- repair


@pytest.mark.parametrize("program", ["xfwm4", "xfce4-panel", "xfdesktop"])
def test_a_killed_part_of_the_desktop_comes_back(running, program):
    old = running.find(program)
    os.kill(old, signal.SIGKILL)
    down_and_up(running, StepName.DESKTOP)
    assert running.find(program) != old


def test_a_killed_streaming_server_comes_back(running):
    os.kill(running.find("selkies_launcher.py"), signal.SIGKILL)
    down_and_up(running, StepName.STREAM)
    assert ask(running, "GET", "/api/health")[0] == 200


def test_a_killed_display_brings_the_whole_desktop_back(running):
    os.kill(running.find("Xvfb"), signal.SIGKILL)
    down_and_up(running, StepName.DISPLAY)
    assert running.enter(["xprop", "-root"]).returncode == 0


@pytest.mark.parametrize(
    ("program", "step", "patience_s"),
    [("selkies_launcher.py", StepName.STREAM, STREAM_S), ("Xvfb", StepName.DISPLAY, IN_USE_S)],
)
def test_a_program_that_hangs_is_replaced(running, program, step, patience_s):
    os.kill(running.find(program), signal.SIGSTOP)
    down_and_up(running, step, patience_s)


def test_a_display_that_pauses_keeps_everything_on_it(running):
    names = ("Xvfb", "xfwm4", "xfce4-panel")
    before = [running.find(name) for name in names]
    said = len(running.api.reports)
    os.kill(before[0], signal.SIGSTOP)
    try:
        running.api.wait_for(lambda api: len(api.reports) >= said + 6, 30)  # a report every two seconds
    finally:
        os.kill(before[0], signal.SIGCONT)
    said = len(running.api.reports)
    running.api.wait_for(lambda api: len(api.reports) >= said + 4, 30)
    assert [running.find(name) for name in names] == before
    assert all(step.state is StepState.DONE for step in running.api.latest().values())


def wait_for_sound(container):
    end = time.monotonic() + REPAIR_S
    while "output" not in container.enter(["pactl", "info"]).stdout:
        assert time.monotonic() < end
        time.sleep(0.2)


def test_sound_comes_back(running):
    wait_for_sound(running)
    os.kill(running.find("pulseaudio"), signal.SIGKILL)
    wait_for_sound(running)


# -- beginning and end, each on a desktop of its own


def test_the_agent_waits_for_an_api_that_is_down(start):
    api = FakeApi()
    with start(api, serve=False) as container:
        time.sleep(1.0)
        assert (container.folder / "agent" / "nonce").exists()
        with api.serving(container.folder / "api" / "guest.sock"):
            api.wait_up()


def test_a_refused_nonce_ends_the_agent_with_the_cause(start):
    with start(FakeApi(spent=True)) as container:
        assert container.process.wait(10) == 1
        assert "refuses the nonce" in container.console()
        assert container.api.enrolments == 1


def test_a_lost_identity_ends_the_agent(start):
    with start() as container:
        container.api.wait_up()
        container.api.revoked = True
        assert container.process.wait(10) == 1
        assert "no longer valid" in container.console()


def test_stopping_is_quick(start):
    with start() as container:
        container.api.wait_up()
        began = time.monotonic()
        os.kill(container.leader(), signal.SIGTERM)
        container.process.wait(5)
        assert time.monotonic() - began < 2.0


def test_a_program_that_cannot_live_is_a_failure_with_its_cause(start):
    with start() as container:
        container.api.wait_up()
        container.enter(
            [
                "sh",
                "-c",
                "rm /usr/bin/xfwm4; printf '#!/bin/sh\\necho no theme found >&2; exit 3\\n' > /usr/bin/xfwm4; chmod 755 /usr/bin/xfwm4",
            ],
            root=True,
        )
        os.kill(container.find("xfwm4"), signal.SIGKILL)
        failure = container.api.wait_for(lambda api: api.reports[-1][1].failure, REPAIR_S)
        assert "window manager" in failure
        assert "no theme found" in failure
        container.api.wait_for(lambda api: api.latest()[StepName.DESKTOP].state is StepState.FAILED, 3)
        assert "the window manager" in container.api.latest()[StepName.DESKTOP].detail


def test_writable_raw_data_are_reported_and_nothing_is_started(start):
    with start(writable_raw=True) as container:
        failure = container.api.wait_for(lambda api: api.reports and api.reports[-1][1].failure, 10)
        assert "must be read-only" in failure
        assert container.api.latest()[StepName.STORAGE].state is StepState.FAILED
        assert not [pid for pid in container.pids() if "Xvfb" in " ".join(container.command(pid))]


def test_a_second_start_keeps_the_home(start, tmp_path):
    with start() as container:
        container.api.wait_up()
        container.enter(["sh", "-c", "echo kept > ~/mine; rm -r ~/.config/gtk-3.0"])
    with start() as container:
        container.api.wait_up()
        assert (tmp_path / "home" / "mine").read_text() == "kept\n"
        assert not (tmp_path / "home" / ".config" / "gtk-3.0" / "bookmarks").exists()
