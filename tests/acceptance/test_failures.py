"""What goes wrong on a real deployment: each thing is told in one line, repaired, or ended without a trace, and no work is lost."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
from pathlib import Path

import pytest

from acceptance import inside
from acceptance.deployment import Deployment
from acceptance.people import until

pytestmark = [pytest.mark.desktop, pytest.mark.root]

WANTED = {"experiment": "heps-2026-0147", "image": "general", "flavor": "small"}
BOB = 20102


@pytest.fixture(scope="module")
def small():
    """A deployment of its own, with room for two small desktops, whose parts may be broken."""
    one = Deployment.make(capacity__memory_mib="4200")
    try:
        (one.state / "data").mkdir()
        for folder in ("heps-2026-0147/raw", "heps-2026-0147/processed", "heps-2026-0212/raw", "heps-2026-0212/processed"):
            (one.state / "data" / folder).mkdir(parents=True)
        one.start()
        yield one
    finally:
        one.remove()


@pytest.fixture
def bob(small):
    with small.api("bob") as client:
        yield client


def _ready(client, desktop_id, seconds=60):
    return until("ready", lambda: (d := client.get(f"/desktops/{desktop_id}").json())["phase"] == "ready" and d, seconds)


@pytest.fixture(scope="module")
def desktop(small):
    with small.api("bob") as client:
        answer = client.post("/desktops", json=WANTED)
        answer.raise_for_status()
        _ready(client, answer.json()["id"])
        return answer.json()["id"]


def _pids(desktop_id, pattern):
    return set(inside.run(desktop_id, f"pgrep -f {pattern}").stdout.split())


def _kill_inside(desktop_id, name):
    assert inside.run(desktop_id, f"pkill -KILL -f {name}").returncode == 0


def _recovered(client, desktop_id, since):
    """Return the desktop once it left READY after ``since`` and is ready again, or failed with a cause."""
    d = client.get(f"/desktops/{desktop_id}").json()
    return d if (d["phase"] in ("ready", "failed") and d["phase_since"] > since) else None


@pytest.mark.parametrize("program", ["[X]vfb", "[/]opt/selkies", "[x]fwm4"])
def test_a_program_of_the_desktop_that_dies_is_back_within_ten_seconds(small, bob, desktop, program):
    before = until(f"{program} runs", lambda: _pids(desktop, program))
    _kill_inside(desktop, program)
    until(f"a new {program}", lambda: _pids(desktop, program) - before, 10)
    _ready(bob, desktop, 10)


def test_a_desktop_whose_agent_dies_is_repaired_or_failed_with_the_cause(small, bob, desktop):
    agent = inside.first_process(desktop)
    os.kill(agent, signal.SIGKILL)
    until("the truth", lambda: bob.get(f"/desktops/{desktop}").json()["phase"] != "ready" or _other_agent(desktop, agent), 10)
    _ready(bob, desktop, 40)


def _other_agent(desktop_id, old):
    with contextlib.suppress(AssertionError):
        return inside.first_process(desktop_id) != old
    return False


def test_stop_keeps_the_home_start_brings_it_back(small, bob, desktop):
    assert inside.run(desktop, "echo kept > /home/bob/note", uid=BOB).returncode == 0
    bob.post(f"/desktops/{desktop}/actions/stop").raise_for_status()
    until("stopped", lambda: bob.get(f"/desktops/{desktop}").json()["phase"] == "stopped")
    bob.post(f"/desktops/{desktop}/actions/start").raise_for_status()
    _ready(bob, desktop)
    assert inside.run(desktop, "cat /home/bob/note", uid=BOB).stdout == "kept\n"


def test_who_does_not_fit_waits_in_line_with_place_and_reason_and_moves_up(small, bob, desktop):
    with small.api("ada") as ada:
        second = ada.post("/desktops", json=WANTED).json()["id"]
        _ready(ada, second)
        third = ada.post("/desktops", json=WANTED).json()["id"]
        waiting = until("a place in line", lambda: (d := ada.get(f"/desktops/{third}").json())["queue"] and d)
        assert waiting["phase"] == "queued"
        assert waiting["queue"]["place"] == 1
        assert "memory_mib" in waiting["queue"]["lacking"]
        ada.delete(f"/desktops/{second}").raise_for_status()
        _ready(ada, third)
        ada.delete(f"/desktops/{third}").raise_for_status()
        until("gone", lambda: ada.get(f"/desktops/{third}").status_code == 404)


def test_a_full_home_harms_nobody_else(small, bob, desktop):
    full = inside.run(desktop, "fallocate -l 9500M /home/bob/big; dd if=/dev/zero of=/home/bob/more bs=1M count=1000", uid=BOB)
    assert "No space left on device" in full.stderr
    assert bob.get(f"/desktops/{desktop}").json()["phase"] == "ready"
    assert (
        inside.run(desktop, "rm /home/bob/big /home/bob/more; echo again > /home/bob/after && cat /home/bob/after", uid=BOB).stdout
        == "again\n"
    )


def test_secrets_stay_out_of_logs_processes_and_events(small, bob, desktop):
    ticket = bob.post(f"/desktops/{desktop}/connections").json()["ticket"]
    database = sqlite3.connect(f"file:{small.state}/app/store.db?mode=ro", uri=True)
    (stream_secret,) = database.execute("select stream_secret from guest where desktop_id = ?", (desktop,)).fetchone()
    canaries = {
        "password": small.password,
        "ticket": ticket,
        "stream secret": stream_secret,
        "token": bob.headers["Authorization"].split()[1],
    }
    places = {"logs": small.logs(), "processes": _arguments(), "events": str(database.execute("select * from event").fetchall())}
    database.close()
    for place, text in places.items():
        for name, canary in canaries.items():
            assert canary not in text, f"{name} in {place}"


def _arguments():
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            texts.append(path.read_bytes().decode(errors="replace"))
    return "\n".join(texts)


def test_a_killed_service_is_started_again_and_the_desktop_goes_on(small, bob, desktop):
    own = [pid for pid in small.processes() if b"reconcile" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(own[0], signal.SIGKILL)
    second = bob.post("/desktops", json=WANTED).json()["id"]
    _ready(bob, second)
    assert bob.get(f"/desktops/{desktop}").json()["phase"] == "ready"
    bob.delete(f"/desktops/{second}").raise_for_status()
    until("gone", lambda: bob.get(f"/desktops/{second}").status_code == 404)


def test_nothing_runs_after_the_supervisor_was_killed_and_all_is_there_after_the_next_start(small, desktop):
    assert inside.run(desktop, "echo saved > /home/bob/work && sync /home/bob/work", uid=BOB).returncode == 0
    supervisor = json.loads((small.state / "supervisor.json").read_text())["pid"]
    os.kill(supervisor, signal.SIGKILL)
    until("nothing runs", lambda: not small.processes(), 15)
    assert str(small.state) not in Path("/proc/self/mountinfo").read_text()
    assert str(small.state) not in subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
    small.start()
    with small.api("bob") as bob:
        _ready(bob, desktop)
        assert inside.run(desktop, "cat /home/bob/work", uid=BOB).stdout == "saved\n"


def test_delete_removes_home_and_container(small, bob, desktop):
    bob.delete(f"/desktops/{desktop}").raise_for_status()
    until("gone", lambda: bob.get(f"/desktops/{desktop}").status_code == 404)
    assert not [path for path in (small.state / "homes").rglob("*") if desktop in path.name]
    with pytest.raises(AssertionError):
        inside.first_process(desktop)


def test_up_says_which_port_is_taken():
    one = Deployment.make()
    with socket.create_server(("127.0.0.1", one.port)):
        result = one.beamdesk("up", "--detach", check=False)
    one.remove()
    assert result.returncode == 78
    assert result.stderr.count("\n") == 1
    assert f"Port {one.port} for the portal is taken" in result.stderr


def test_up_says_what_is_wrong_with_its_configuration(tmp_path):
    file = tmp_path / "beamdesk.toml"
    file.write_text("[lease]\ninitial_hours = 'long'\n")
    one = Deployment.make(config=str(file))
    result = one.beamdesk("up", "--detach", check=False)
    one.remove()
    assert result.returncode == 78
    assert result.stderr.count("\n") == 1
    assert "lease.initial_hours" in result.stderr
    assert "Traceback" not in result.stderr
