"""How desktops and helpers end: quickly, completely, and with a cause, whatever dies."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beamdesk.adapters.local.driver import LocalCloud
from beamdesk.domain.errors import NotSupported
from beamdesk.domain.ids import DesktopId, ServerId
from beamdesk.ports.cloud import Server, ServerStatus
from integration.local.conftest import Desktop, start_desktop
from integration.local.helper_world import SOURCE, HelperWorld, open_world, spec_of

pytestmark = pytest.mark.root


def cloud(world: HelperWorld) -> LocalCloud:
    return LocalCloud(world.client, "tests")


def seen(world: HelperWorld, desktop_id: str) -> Server:
    (server,) = asyncio.run(cloud(world).find_servers(DesktopId(desktop_id))).servers
    return server


def soon(world: HelperWorld, desktop_id: str, status: ServerStatus) -> Server:
    deadline = time.monotonic() + 10
    while (server := seen(world, desktop_id)).status is not status:
        if time.monotonic() > deadline:
            pytest.fail(f"still {server}")
        time.sleep(0.02)
    return server


def remains(world: HelperWorld, *desktop_ids: str) -> list[str]:
    """Name all that is left of desktops: processes, groups, mounts, loop devices."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        found += [f"process {command[:40]}" for name in desktop_ids if f"beamdesk-{name}" in command]
    for folder, names, _files in os.walk("/sys/fs/cgroup"):
        found += [f"group {folder}/{name}" for name in names if name in desktop_ids]
    mounts = Path("/proc/self/mountinfo").read_text()
    found += [f"mount of {name}" for name in desktop_ids if name in mounts]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            content = backing.read_text()
        except OSError:
            continue
        found += [f"loop device {content}" for name in desktop_ids if name in content]
    return found


def gone(world: HelperWorld, *desktop_ids: str, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while left := remains(world, *desktop_ids):
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {left}")
        time.sleep(0.02)


def test_remains_are_found_while_a_desktop_runs(world: HelperWorld, desktop: Desktop) -> None:
    kinds = {item.split()[0] for item in remains(world, desktop())}
    assert kinds == {"process", "group", "mount", "loop"}


def test_a_desktop_that_ignores_its_end_stops_within_a_second(world: HelperWorld, desktop: Desktop) -> None:
    stubborn = desktop(own=True)
    code = "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(100)"
    assert world.run(stubborn, "sh", "-c", f"python3 -c '{code}' >/dev/null 2>&1").rc == 0
    began = time.monotonic()
    asyncio.run(cloud(world).stop_server(ServerId(stubborn)))
    assert time.monotonic() - began < 1
    assert seen(world, stubborn).status is ServerStatus.SHUTOFF
    assert remains(world, stubborn) == []


@pytest.mark.parametrize(
    ("end", "status", "fault"),
    [
        ("kill -9 2", ServerStatus.ERROR, "was killed"),
        ("kill -TERM 2", ServerStatus.ERROR, "was killed"),
    ],
)
def test_a_desktop_whose_agent_dies_has_failed_with_the_cause(
    world: HelperWorld, desktop: Desktop, end: str, status: ServerStatus, fault: str
) -> None:
    dying = desktop(own=True)
    world.run(dying, "true")
    world.run_detached(dying, end)
    server = soon(world, dying, status)
    assert fault in server.fault
    assert server.address is None
    assert remains(world, dying) == []


def test_a_desktop_that_shuts_itself_down_is_shut_off(fresh_world: HelperWorld) -> None:
    fresh_world.stop()
    fresh_world.settings["init"] = ["/bin/sh", "-c", "echo bye; exit 0"]
    fresh_world.start()
    ended = start_desktop(fresh_world)
    assert soon(fresh_world, ended, ServerStatus.SHUTOFF).fault == ""
    assert "bye" in asyncio.run(cloud(fresh_world).console_log(ServerId(ended)))


def test_an_exit_status_is_the_cause_of_a_failure(fresh_world: HelperWorld) -> None:
    fresh_world.stop()
    fresh_world.settings["init"] = ["/bin/sh", "-c", "echo no display; exit 7"]
    fresh_world.start()
    failed = start_desktop(fresh_world)
    assert "status 7" in soon(fresh_world, failed, ServerStatus.ERROR).fault
    assert "no display" in asyncio.run(cloud(fresh_world).console_log(ServerId(failed)))


def test_a_failed_desktop_can_be_started_again(world: HelperWorld, desktop: Desktop) -> None:
    again = desktop(own=True)
    world.run(again, "true")
    world.run_detached(again, "kill -9 2")
    soon(world, again, ServerStatus.ERROR)
    asyncio.run(cloud(world).start_server(ServerId(again), spec_of(again)))
    assert soon(world, again, ServerStatus.ACTIVE).fault == ""
    assert world.run(again, "echo", "alive").out == "alive\n"


def test_a_console_flood_is_bounded_and_slows_only_itself(fresh_world: HelperWorld) -> None:
    fresh_world.stop()
    fresh_world.settings["init"] = ["/bin/sh", "-c", "yes flood"]
    fresh_world.start()
    flood = start_desktop(fresh_world)
    time.sleep(1)
    began = time.monotonic()
    seen(fresh_world, flood)
    assert time.monotonic() - began < 0.5
    assert (fresh_world.folder / f"state/console/{flood}.log").stat().st_size <= 256 * 1024
    assert len(asyncio.run(cloud(fresh_world).console_log(ServerId(flood), lines=5)).splitlines()) == 5


def test_a_killed_helper_leaves_no_container(fresh_world: HelperWorld) -> None:
    names = (start_desktop(fresh_world), start_desktop(fresh_world))
    for name in names:
        fresh_world.run(name, "true")
    fresh_world.kill()
    gone(fresh_world, *names, within_s=2)


def test_a_helper_whose_supervisor_dies_stops_its_containers_and_ends(fresh_world: HelperWorld) -> None:
    name = start_desktop(fresh_world)
    assert fresh_world.cut_lifeline() == 0
    gone(fresh_world, name, within_s=1)


def test_a_restarted_helper_lists_stopped_servers_and_starts_them_with_their_homes(fresh_world: HelperWorld) -> None:
    name = start_desktop(fresh_world)
    before = seen(fresh_world, name)
    fresh_world.run(name, "sh", "-c", "echo kept > ~/note; sync", person=True)
    assert fresh_world.run(name, "sh", "-c", "echo kept > /home/ada/note", person=True).rc == 0
    fresh_world.kill()
    fresh_world.start()
    after = seen(fresh_world, name)
    assert (after.status, after.created_at) == (ServerStatus.SHUTOFF, before.created_at)
    asyncio.run(cloud(fresh_world).start_server(ServerId(name), spec_of(name)))
    assert fresh_world.run(name, "cat", "/home/ada/note", person=True).out == "kept\n"


def test_a_larger_size_gives_the_home_more_room_and_a_smaller_one_takes_none_away(fresh_world: HelperWorld) -> None:
    name = start_desktop(fresh_world)
    driver, note = cloud(fresh_world), "/home/ada/note"

    def room_mib() -> int:
        return int(fresh_world.run(name, "df", "--output=size", "-m", "/home/ada").out.split()[-1])

    def made_anew(disk_gib: int) -> None:
        asyncio.run(driver.delete_server(ServerId(name)))
        gone(fresh_world, name, within_s=5)
        asyncio.run(driver.create_server(spec_of(name, disk_gib=disk_gib)))

    assert fresh_world.run(name, "sh", "-c", f"echo kept > {note}", person=True).rc == 0
    small = room_mib()
    made_anew(3)
    large = room_mib()
    assert (small < 1024, 2 * 1024 < large < 3 * 1024) == (True, True), (small, large)
    assert fresh_world.run(name, "dd", "if=/dev/zero", "of=/home/ada/big", "bs=1M", "count=1500", person=True).rc == 0
    made_anew(1)
    assert room_mib() == large
    assert fresh_world.run(name, "cat", note, person=True).out == "kept\n"
    image = fresh_world.folder / "homes" / f"{name}.img"
    asyncio.run(driver.delete_server(ServerId(name)))
    gone(fresh_world, name, within_s=5)
    assert subprocess.run(["e2fsck", "-f", "-n", image], capture_output=True, check=False).returncode == 0


def test_a_second_helper_on_the_same_folders_is_refused(fresh_world: HelperWorld) -> None:
    command = (sys.executable, "-m", "beamdesk.adapters.local.helper", "--config", str(fresh_world.config))
    second = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False, timeout=30)
    assert second.returncode == 2
    assert "another helper runs" in second.stderr
    assert fresh_world.process
    assert fresh_world.process.poll() is None


def test_a_machine_that_cannot_isolate_says_so_and_starts_nothing() -> None:
    with open_world(guest_api_dir="/sys/kernel") as world:
        assert asyncio.run(cloud(world).host()).missing == ("idmapped mounts on /sys/kernel",)
        with pytest.raises(NotSupported, match="lacks idmapped mounts on /sys/kernel"):
            start_desktop(world)
        assert asyncio.run(cloud(world).list_homes()) == ()


def test_what_was_missing_is_looked_at_again() -> None:
    with open_world() as world:
        world.stop()
        (world.folder / "api").rmdir()
        world.start()
        assert asyncio.run(cloud(world).host()).missing == (f"folder {world.folder}/api",)
        (world.folder / "api").mkdir()
        assert asyncio.run(cloud(world).host()).missing == ()
        start_desktop(world)


def test_a_start_that_fails_leaves_nothing(fresh_world: HelperWorld) -> None:
    fresh_world.stop()
    fresh_world.settings["init"] = ["/no/such/program"]
    fresh_world.start()
    name = start_desktop(fresh_world)
    soon(fresh_world, name, ServerStatus.ERROR)
    gone(fresh_world, name, within_s=1)
