"""The namespaces in which machines are booted: nothing of the outer machine changes, and nothing outlives them."""

import json
import subprocess
from pathlib import Path

import pytest

from acceptance.people import until
from controlplane import enclosure

pytestmark = [pytest.mark.root, pytest.mark.vm]


def links():
    told = subprocess.run(["ip", "-json", "link"], check=True, capture_output=True, text=True).stdout
    return {link["ifname"] for link in json.loads(told)}


@pytest.fixture
def holder(tmp_path):
    with enclosure.network():
        process = subprocess.Popen(list(map(str, enclosure.holder(tmp_path))))
        try:
            until("the folders", lambda: enclosure.is_ready(tmp_path), seconds=30)
            yield process
        finally:
            process.kill()
            process.wait()


def inside(holder, command):
    return subprocess.run(
        list(map(str, enclosure.inside(holder.pid, ["sh", "-c", command]))), check=True, capture_output=True, text=True
    )


def test_the_network_has_only_what_we_put_there_and_is_left_again():
    before = links()
    with enclosure.network():
        assert links() == {"lo", enclosure.MACHINES_END, enclosure.HOST_END}
    assert links() == before


@pytest.mark.parametrize("folder", ["/etc", "/run", "/var/lib", "/var/log", "/var/cache"])
def test_what_is_written_inside_is_not_seen_outside(holder, folder):
    name = f"{folder}/beamdesk-enclosure-test"
    assert inside(holder, f"echo here > {name}; cat {name}").stdout == "here\n"
    assert not Path(name).exists()


def test_control_groups_of_the_machine_are_out_of_reach(holder):
    assert inside(holder, "ls /sys/fs/cgroup").stdout == ""


def test_what_runs_inside_ends_with_it(holder):
    command = ["setsid", "sleep", "1000"]
    running = subprocess.Popen(list(map(str, enclosure.inside(holder.pid, command))))
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(1)
    holder.kill()
    assert running.wait(30) != 0
